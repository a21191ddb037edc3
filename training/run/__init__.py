"""Running a training: stages, trainer, checkpoints, records and tracking."""
