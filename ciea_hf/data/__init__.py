"""Readers and the one in-memory shape of a retrieval data set."""
