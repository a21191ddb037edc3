"""Ranking metrics and the evaluator."""
