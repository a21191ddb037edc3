"""The model outside Python: torch.export and ONNX, with a free number of inputs and a free length."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
import pytest
import torch
from torch.export import Dim

from tests.support.helpers import TEXT_FAMILIES, tiny_model, toy_image

if TYPE_CHECKING:
    from pathlib import Path

    from ciea_hf import CIEAModel

families = pytest.mark.parametrize("text", TEXT_FAMILIES)
BATCH, LENGTH = Dim("batch", min=1, max=64), Dim("length", min=8, max=60)
TEXT_SHAPES = {"input_ids": {0: BATCH, 1: LENGTH}, "attention_mask": {0: BATCH, 1: LENGTH}}
SHAPES = {"text": TEXT_SHAPES, "captioned image": {**TEXT_SHAPES, "pixel_values": {0: BATCH}}}


class Embedder(torch.nn.Module):
    """From tensors to a tensor."""

    def __init__(self, model: CIEAModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, pixel_values: torch.Tensor | None = None
    ) -> torch.Tensor:
        embeddings: torch.Tensor = self.model(input_ids, attention_mask, pixel_values).embeddings
        return embeddings


def batches(model: CIEAModel, kind: str) -> list[dict[str, torch.Tensor]]:
    """Batches of different numbers and lengths; the first one is exported with."""
    long = "where is the big blue boat next to the green tower and what is under it"
    several = ["a photo of the cat and the dog", "a cat", "the car", long]
    texts = [["a red cat with the small dog", long], [long], several]
    images = [None if kind == "text" else [toy_image(n) for n in range(len(group))] for group in texts]
    return [
        dict(model.processor(text=group, images=group_images))
        for group, group_images in zip(texts, images, strict=True)
    ]


@families
@pytest.mark.parametrize("kind", list(SHAPES))
@torch.no_grad()
def test_torch_export(text: str, kind: str) -> None:
    model = tiny_model(text)
    first, *others = batches(model, kind)
    exported = torch.export.export(Embedder(model).eval(), (), first, dynamic_shapes=SHAPES[kind]).module()
    shapes = {tuple(batch["input_ids"].shape) for batch in (first, *others)}
    assert len(shapes) == 3
    for batch in (first, *others):
        torch.testing.assert_close(exported(**batch), model(**batch).embeddings, atol=1e-5, rtol=0.0)


@pytest.mark.parametrize("text", ["t5", "bert"])  # BART and GPT-2 pass, too; each takes seconds
@torch.no_grad()
def test_onnx(text: str, tmp_path: Path) -> None:
    model = tiny_model(text)
    model.set_attn_implementation("eager")  # with sdpa, T5 cannot be written
    first, *others = batches(model, "captioned image")
    path = tmp_path / "model.onnx"
    names = list(SHAPES["captioned image"])
    torch.onnx.export(
        Embedder(model).eval(),
        kwargs=first,
        f=path,
        dynamo=True,
        input_names=names,
        output_names=["embeddings"],
        dynamic_shapes=SHAPES["captioned image"],
        verbose=False,
    )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for batch in (first, *others):
        (embeddings,) = session.run(["embeddings"], {name: batch[name].numpy() for name in names})
        np.testing.assert_allclose(embeddings, model(**batch).embeddings.numpy(), atol=1e-5)
