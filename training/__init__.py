"""Training of CIEA: data, losses, stages and the trainer."""
