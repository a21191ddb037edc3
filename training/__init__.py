"""Stages, losses, collator and trainer."""
