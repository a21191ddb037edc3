"""Miniature vision and text towers, small enough to train on a laptop: they stand in for CLIP and T5."""
