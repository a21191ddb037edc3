"""Where a run starts from: the authors' checkpoints, a stage's own model."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, CLIPImageProcessorPil, PreTrainedTokenizerFast

from ciea_hf.training.config import TrainingConfig
from ciea_hf.training.run.backbone import load_model
from ciea_hf.training.run.stages import run_stages
from tests.support.helpers import SPECIALS, WORDS, tiny_model
from tests.support.toy_training import best_model, configured, moved, reset_engine, weights_of

DATA = Path(__file__).parents[1] / "support" / "files"


pytestmark = pytest.mark.usefixtures("fresh_engine")


@pytest.fixture(scope="module")
def authors(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Folders of the backbones of the authors' tiny checkpoint, with a tokenizer of its size."""
    folder = tmp_path_factory.mktemp("authors")
    settings = json.loads((DATA / "t5_64_16.json").read_text())
    vocabulary = [*SPECIALS["t5"], *WORDS]
    vocabulary += [f"word{i}" for i in range(settings["im_patch_id"] - len(vocabulary))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder / "text")
    CLIPImageProcessorPil(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64}).save_pretrained(
        folder / "vision"
    )
    for name in ("vision", "text"):
        values = dict(settings[f"{name}_config"])
        AutoConfig.for_model(values.pop("model_type"), **values).save_pretrained(folder / name)
    return [str(folder / "vision"), str(folder / "text")]


@pytest.mark.parametrize("marvel", [False, True])
def test_training_starts_from_an_authors_checkpoint(
    toy: Path, tmp_path: Path, authors: list[str], marvel: bool
) -> None:
    checkpoint = DATA / "t5_64_16.model.best.pt"
    if marvel:  # the same without an extractor, to which a new one is added
        content = torch.load(checkpoint, weights_only=True)
        content["model"] = {k: v for k, v in content["model"].items() if not k.startswith("information_extract")}
        checkpoint = tmp_path / "marvel.pt"
        torch.save(content, checkpoint)
    values = {"model": str(checkpoint), "vision_model": authors[0], "text_model": authors[1], "max_steps": 1}
    weighting = "complement" if marvel else "uniform"
    options = {"use_extractor": True, "extractor_weights": weighting, "learning_rate": 1e-6}
    run_stages(configured(toy, tmp_path / "run", **options, **values))
    trained = weights_of(tmp_path / "run" / "in_batch" / "best")
    given = torch.load(checkpoint, weights_only=True)["model"]
    torch.testing.assert_close(trained["projector.weight"], given["projector.weight"], atol=1e-5, rtol=0)
    assert not torch.equal(trained["projector.weight"], given["projector.weight"])
    extractor = trained["extractor.fc1.weight"]
    if not marvel:
        torch.testing.assert_close(extractor, given["information_extract.feed_forward.0.weight"], atol=1e-5, rtol=0)
    config = best_model(tmp_path / "run", "in_batch").config
    assert config.use_extractor
    assert config.extractor_weights == weighting


def test_a_checkpoint_alone_is_not_enough(toy: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="contains weights only: set its backbones, `vision_model` and `text_model`"):
        load_model(TrainingConfig(model=str(DATA / "t5_64_16.model.best.pt")), None, tmp_path)
    with pytest.raises(ValueError, match="set `model`, or `vision_model` and `text_model`"):
        load_model(TrainingConfig(), None, tmp_path)


@pytest.mark.parametrize("name", ["model", "vision_model", "text_model"])
@pytest.mark.parametrize("path", ["/none", "x/y/z", "./a/b", "../a", "none.pt"])
def test_a_path_that_does_not_exist_is_named_with_its_option(tmp_path: Path, name: str, path: str) -> None:
    with pytest.raises(FileNotFoundError, match=f"`{name}`: .* not found"):
        load_model(TrainingConfig(**{name: path}), None, tmp_path)  # type: ignore[arg-type]


def test_a_stage_can_name_its_own_start(toy: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tiny_model(seed=7).save_pretrained(tmp_path / "other")
    values = {"max_steps": 1, "learning_rate": 1e-9, "eval_steps": 1}
    own = {"in_batch": {"model": str(tmp_path / "other")}}
    run_stages(configured(toy, tmp_path / "own", stage="align,in_batch", stages=own, **values))
    assert max(moved(tmp_path / "own" / "in_batch" / "best", tmp_path / "other").values()) < 1e-6
    reset_engine()
    with caplog.at_level(logging.WARNING, "ciea_hf"):
        run_stages(configured(toy, tmp_path / "run", stage="align,in_batch", **values))
    assert "stage in_batch starts from" in caplog.text
