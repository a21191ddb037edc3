"""Model cards, filled from a run's own files."""
