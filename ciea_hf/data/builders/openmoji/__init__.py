"""OpenMoji Scenes: the embedded benchmark, drawn from the OpenMoji font."""
