"""Model cards, generated from the files of a model and its training run."""

from __future__ import annotations

from ciea_hf.model_cards.card import render_model_card, write_model_card

__all__ = ["render_model_card", "write_model_card"]
