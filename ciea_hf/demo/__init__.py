"""The embedded benchmark, its vision tower and the demonstration."""
