"""Numbers that are not finite are never saved as a model or a checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from ciea_hf.training.data.collator import Collator
from ciea_hf.training.loss.embedder import Embedder
from ciea_hf.training.run.dev_evaluator import DevEvaluator
from ciea_hf.training.run.encoder import TrainingEncoder
from ciea_hf.training.run.stages import run_stages
from tests.support.helpers import tiny_model
from tests.support.toy_training import configured

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("fresh_engine")


@pytest.mark.parametrize("values", [{"dev_split": None}, {"eval_steps": 1}, {"save_steps": 1, "eval_steps": 9}])
@pytest.mark.parametrize("number", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_are_not_saved(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, values: dict[str, Any], number: float
) -> None:
    step = torch.optim.AdamW.step

    def breaking(self: torch.optim.AdamW, *arguments: Any, **options: Any) -> None:
        step(self, *arguments, **options)
        with torch.no_grad():
            self.param_groups[-1]["params"][0].view(-1)[0] = number

    monkeypatch.setattr(torch.optim.AdamW, "step", breaking)
    with pytest.raises(FloatingPointError, match=r"the weights after step 1 are not finite: \w+.*nothing was saved"):
        run_stages(configured(toy, tmp_path, max_steps=1, **values))
    assert not (tmp_path / "in_batch" / "best").exists()
    assert not (tmp_path / "in_batch" / "checkpoints").exists()
    assert not (tmp_path / "in_batch" / "result.json").exists()


def test_a_score_that_is_not_finite_selects_no_model(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DevEvaluator, "__call__", lambda *_: {"mrr@10": float("nan")})
    with pytest.raises(FloatingPointError, match=r"mrr@10 of the dev split is nan after step 2"):
        run_stages(configured(toy, tmp_path))
    assert not (tmp_path / "in_batch" / "best").exists()


def test_embeddings_that_are_not_finite_are_an_error() -> None:
    model = tiny_model()
    encoder = TrainingEncoder(model, Embedder(model).eval(), Collator(model.processor))
    assert encoder.encode_query(["a red cat"]).isfinite().all()
    with torch.no_grad():
        model.text_model.get_input_embeddings().weight.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="1 of 1 embeddings are not finite"):
        encoder.encode_query(["a red cat"])
