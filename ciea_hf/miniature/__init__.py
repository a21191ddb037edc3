"""Miniature vision and text towers that replace CLIP and T5 and can be trained on a laptop."""
