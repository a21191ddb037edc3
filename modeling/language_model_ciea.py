"""How the language model is run: over one batch, or over several at once where that is supported."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from .layers_ciea import pool_states
from .t5_ciea import decode_first, encode, supports

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .fusion_ciea import ModelBatch

    Base = torch.nn.Module
else:
    Base = object


class LanguageModelMixin(Base):
    """Runs the language model of [`CIEAModel`]."""

    if TYPE_CHECKING:
        config: Any
        text_model: Any

        def get_input_embeddings(self) -> torch.nn.Module:
            """Return the language model's token table."""

    def _token_embeddings(
        self, batches: Sequence[ModelBatch], joins: bool
    ) -> tuple[list[torch.Tensor], torch.Tensor | None]:
        """Look up the tokens of all batches, (batch, T, D) each, and of the decoder's start if its step is joined.

        One lookup for all has one gradient, which is as large as the token table.
        """
        starts = joins and self.config.pooling == "decoder_start"
        if len(batches) == 1 and not starts:  # in a form that torch.export can trace
            return [self.get_input_embeddings()(batches[0].input_ids)], None
        ids = [batch.input_ids.flatten() for batch in batches]
        if starts:
            ids.append(ids[0].new_full((1,), self.config.pooling_decoder_start_token_id))
        found = self.get_input_embeddings()(torch.cat(ids)).split([len(part) for part in ids])
        tokens = [rows.unflatten(0, batch.input_ids.shape) for rows, batch in zip(found, batches, strict=False)]
        return tokens, found[-1][0] if starts else None

    def _run_language_model(
        self,
        batches: Sequence[tuple[torch.Tensor, torch.Tensor]],
        start: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> list[tuple[torch.Tensor, Any]]:
        """Run the language model and pool its states into one embedding per row.

        Args:
            batches: Input embeddings (rows, T, D) and attention mask (rows, T) of each batch.
            start: Embedding of the token that the decoder starts from, (D,), if its step is joined.
            **kwargs: Further arguments of the language model.

        Returns:
            Embeddings (rows, D) of each batch, and the language model's output, `None` if the batches are joined.
        """
        dtype, pooling = self.text_model.dtype, self.config.pooling
        batches = [(embeddings.to(dtype), mask) for embeddings, mask in batches]
        if kwargs or not supports(self.text_model) or (pooling == "decoder_start" and start is None):
            return [self._run_alone(*batch, **kwargs) for batch in batches]
        states, masks = encode(self.text_model.encoder, batches), [mask for _, mask in batches]
        if start is None:
            return [(pool_states(rows, mask, pooling), None) for rows, mask in zip(states, masks, strict=True)]
        return [(rows, None) for rows in decode_first(self.text_model.decoder, start.to(dtype), states, masks)]

    def _run_alone(
        self, inputs_embeds: torch.Tensor, attention_mask: torch.Tensor, **kwargs: Any
    ) -> tuple[torch.Tensor, Any]:
        """Run the language model on one batch, as transformers offers it: embeddings (rows, D), and its output."""
        pooling, language_model = self.config.pooling, self.text_model
        if pooling == "decoder_start":
            start = self.config.pooling_decoder_start_token_id
            kwargs["decoder_input_ids"] = torch.full_like(attention_mask[:, :1], start, dtype=torch.long)
        elif self.config.text_config.is_encoder_decoder:  # other poolings use the encoder alone
            language_model = self.text_model.get_encoder()
        if hasattr(self.config.text_config, "use_cache"):
            kwargs["use_cache"] = False
        outputs = language_model(inputs_embeds=inputs_embeds, attention_mask=attention_mask, return_dict=True, **kwargs)
        return pool_states(outputs.last_hidden_state, attention_mask, pooling), outputs
