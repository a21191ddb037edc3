"""Corpus encoding, indexes and search."""
