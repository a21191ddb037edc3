"""Losses, and the modules that compute them from a batch."""
