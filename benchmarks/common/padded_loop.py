"""What the published code computes in a step and in an encoding, as the baseline of the benchmark of speed.

The parts are those of this package's model, used as the published code uses its own: every text is padded to 128
positions and every captioned image to those of the image and 128 of text, each training step runs the vision tower
twice over the same images, the cosines of patches and tokens are broadcast to (images, T, P, D), and the language model
is called as transformers offers it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from benchmarks.common.speed_sample import Sample
    from ciea_hf import CIEAModel

TEXT_LENGTH = 128
LAMBDA = 0.1


class PaddedLoop:
    """Embeds padded batches, and trains on them.

    Args:
        model: Model whose parts are used.
        text_length: Number of positions of a text.
    """

    def __init__(self, model: CIEAModel, text_length: int = TEXT_LENGTH) -> None:
        self.model = model
        self.text_length = text_length

    def tokenize(self, texts: Sequence[str], images: bool) -> tuple[Tensor, Tensor]:
        """Return token ids and attention mask, both padded to the maximum length."""
        batch = self.model.processor.tokenize(
            texts, [images] * len(texts), max_length=self.text_length, padding="max_length"
        )
        return batch["input_ids"], batch["attention_mask"]

    def pad(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Return token ids and attention mask of texts that are tokenised already."""
        ids = torch.zeros(len(rows), self.text_length, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, tokens in enumerate(rows):
            ids[row, : len(tokens)] = torch.tensor(tokens)
            mask[row, : len(tokens)] = 1
        return ids, mask

    def embed_texts(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Embed texts: (rows, D)."""
        ids, mask = self._move(ids), self._move(mask)
        return self._language_model(self.model.get_input_embeddings()(ids), mask)

    def embed_captioned(self, ids: Tensor, mask: Tensor, pixel_values: Tensor) -> Tensor:
        """Embed images with captions: (rows, D)."""
        ids, mask = self._move(ids), self._move(mask)
        is_image = ids == self.model.config.image_token_id
        tokens = self.model.get_input_embeddings()(ids)
        projected = self._projected(pixel_values)
        after_image = (is_image.cumsum(dim=1) * ~is_image > 0) & mask.bool()
        cosine = F.cosine_similarity(tokens[:, :, None, :], projected[:, None, :, :], dim=-1)  # over (B, T, P, D)
        similarity = (cosine + 1.00001) / 2 * after_image[:, :, None]
        extractor = self.model.extractor
        if extractor is None:
            raise ValueError("the baseline requires a model with an extractor")
        extracted = extractor(projected, 1 - similarity.amax(dim=1))
        inputs = tokens.clone()
        inputs[is_image] = extracted.flatten(0, 1).to(inputs.dtype)
        return self._language_model(inputs, mask)

    def embed_images(self, pixel_values: Tensor) -> Tensor:
        """Embed images without their captions, from a vision pass of their own: (rows, D)."""
        projected = self._projected(pixel_values)
        return self._language_model(projected, torch.ones_like(projected[..., 0], dtype=torch.long))

    def prepare(self, sample: Sample, reduced: Sequence[Sequence[int]]) -> list[Tensor]:
        """Prepare a batch in which query i belongs to image i, as a data loader does.

        Args:
            sample: Queries, captions and images.
            reduced: Token ids of the reduced queries.

        Returns:
            Token ids and mask of queries, captions and reduced queries, and the pixel values.
        """
        queries, captions = self.tokenize(sample.queries, images=False), self.tokenize(sample.captions, images=True)
        pixel_values = torch.stack([image.pixel_values for image in sample.images])
        return [*queries, *captions, *self.pad(reduced), pixel_values]

    def loss(self, prepared: Sequence[Tensor]) -> Tensor:
        """Compute L_c + lambda L_comp of a batch.

        Args:
            prepared: See [`prepare`].

        Returns:
            The loss, a scalar.
        """
        queries, query_mask, captions, caption_mask, reduced, reduced_mask, pixel_values = prepared
        embedded = self.embed_texts(queries, query_mask)
        documents = self.embed_captioned(captions, caption_mask, pixel_values)
        complements = self.embed_texts(reduced, reduced_mask)
        images = self.embed_images(pixel_values)
        return self._contrast(embedded, documents) + LAMBDA * self._contrast(complements, images)

    def _move(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.model.device, non_blocking=True)

    def _projected(self, pixel_values: Tensor) -> Tensor:
        states = self.model.vision_model(self._move(pixel_values).to(self.model.dtype)).last_hidden_state
        projected: Tensor = self.model.projector(states[:, -self.model.config.image_seq_length :])
        return projected

    def _language_model(self, inputs: Tensor, mask: Tensor) -> Tensor:
        start = torch.zeros(len(inputs), 1, dtype=torch.long, device=inputs.device)
        outputs = self.model.text_model(inputs_embeds=inputs, attention_mask=mask, decoder_input_ids=start)
        states: Tensor = outputs.last_hidden_state
        return states[:, 0]

    def _contrast(self, queries: Tensor, documents: Tensor) -> Tensor:
        cosines = F.normalize(queries, dim=-1) @ F.normalize(documents, dim=-1).T
        logits = cosines * self.model.logit_scale.exp()
        return F.cross_entropy(logits, torch.arange(len(logits), device=logits.device))
