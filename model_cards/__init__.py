"""Model cards, filled from a run's own files."""

from __future__ import annotations

from ciea_hf.model_cards.card import render_model_card, write_model_card

__all__ = ["render_model_card", "write_model_card"]
