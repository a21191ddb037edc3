"""Training at its edges: odd resumes, odd batches, spawned workers, other tokenizers, users' mistakes."""

from __future__ import annotations

import logging
import pickle
from typing import TYPE_CHECKING, Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from ciea_hf.training.arguments import config_from_arguments, load_preset, preset_names
from ciea_hf.training.config import TrainingConfig
from ciea_hf.training.data.collator import Collator
from ciea_hf.training.data.complementary_query import ComplementaryQueryBuilder
from ciea_hf.training.run.optim import parameter_groups
from ciea_hf.training.run.stages import run_stages
from ciea_hf.training.train import main
from tests.support.helpers import tiny_model
from tests.support.toy_training import arguments_of, configured, read_log, reset_engine, save_training_data, weights_of

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("fresh_engine")


# --- resuming


@pytest.mark.parametrize(("before", "after"), [(1, 2), (3, 2)])
def test_a_run_resumed_with_another_accumulation_goes_on_training(
    toy: Path, tmp_path: Path, before: int, after: int
) -> None:
    settings = {"save_steps": 1, "dev_split": None, "learning_rate": 1e-2, "warmup_steps": 0}
    run_stages(configured(toy, tmp_path, max_steps=3, gradient_accumulation_steps=before, **settings))
    (tmp_path / "in_batch" / "result.json").unlink()
    first = weights_of(tmp_path / "in_batch" / "best")
    reset_engine()
    longer = {**settings, "max_steps": 9, "gradient_accumulation_steps": after, "resume": True}
    run_stages(configured(toy, tmp_path, **longer))
    last = weights_of(tmp_path / "in_batch" / "best")
    name = "projector.weight"
    assert (last[name] - first[name]).abs().max() > 1e-3
    norms = [line["grad_norm"] for line in read_log(tmp_path / "in_batch")]
    assert max(norms[3:]) < 2 * max(norms[:3])  # gradients are not piled up


def test_a_finished_stage_says_that_a_change_comes_too_late(
    toy: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_stages(configured(toy, tmp_path, max_steps=1))
    reset_engine()
    with caplog.at_level(logging.WARNING, "ciea_hf"):
        assert run_stages(configured(toy, tmp_path, max_steps=2, resume=True))["in_batch"]["step"] == 1
    assert "stage in_batch is finished: max_steps has no effect" in caplog.text
    assert "resuming" not in caplog.text


@pytest.mark.parametrize("change", [{"lora": "r=4"}, {"freeze": "vision,extractor"}])
def test_a_checkpoint_of_other_parameters_is_refused(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, str]
) -> None:
    settings = {"save_steps": 1, "dev_split": None}
    run_stages(configured(toy, tmp_path, max_steps=1, **settings))
    (tmp_path / "in_batch" / "result.json").unlink()
    reset_engine()
    again = configured(toy, tmp_path, max_steps=2, resume=True, **settings, **change)
    assert main(arguments_of(again, toy)) == 2
    assert "does not match the model in training: did `freeze`, `lora` or the model change?" in capsys.readouterr().err


# --- batches


def test_accumulated_gradients_are_the_mean_of_the_batches(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[list[torch.Tensor]] = []

    def record(self: torch.optim.AdamW, *_: Any) -> None:
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        found.append([torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in parameters])

    monkeypatch.setattr(torch.optim.AdamW, "step", record)  # the weights stay: the batches' gradients are comparable
    run_stages(configured(toy, tmp_path / "single", max_steps=4))
    reset_engine()
    run_stages(configured(toy, tmp_path / "double", max_steps=2, gradient_accumulation_steps=2))
    assert len(found) == 6
    for step in range(2):
        for first, second, both in zip(*found[2 * step : 2 * step + 2], found[4 + step], strict=True):
            torch.testing.assert_close(both, (first + second) / 2, atol=1e-6, rtol=1e-5)
    assert max(gradient.abs().max() for gradient in found[4]) > 1e-2
    single, double = (read_log(tmp_path / name / "in_batch") for name in ("single", "double"))
    assert double[0]["loss"] == pytest.approx((single[0]["loss"] + single[1]["loss"]) / 2)


@pytest.mark.parametrize("broken", [0, 24])
def test_batches_of_which_nothing_is_trained_change_nothing(toy: Path, tmp_path: Path, broken: int) -> None:
    save_training_data(tmp_path / "data", images=24, broken=broken)
    settings: dict[str, Any] = {"dataset": str(tmp_path / "data"), "dev_split": None, "batch_size": 1, "max_steps": 12}
    run_stages(configured(toy, tmp_path / "run", freeze=["vision", "text", "logit_scale"], **settings))
    assert len(read_log(tmp_path / "run" / "in_batch")) == 12


def test_a_collator_goes_to_workers_that_are_spawned() -> None:
    processor = tiny_model().processor
    reducer = ComplementaryQueryBuilder(processor.tokenizer)
    assert reducer([*processor.tokenizer("red cat", add_special_tokens=False)["input_ids"]], ["cat"]) is not None
    again = pickle.loads(pickle.dumps(Collator(processor, query_builder=reducer)))  # noqa: S301 (its own)
    tokens = processor.tokenizer("where is the red cat")["input_ids"]
    assert again.query_builder(tokens, ["a red cat"]) == reducer(tokens, ["a red cat"])


def byte_level_tokenizer() -> PreTrainedTokenizerFast:
    """As of GPT-2 and BART: a word behind a space is another token than the same word at the beginning."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    texts = ["red cat with a red cat", "who is in the picture with a red cat"] * 4
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, special_tokens=["<pad>"])
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>")


def test_the_first_word_of_a_caption_is_taken_out_of_byte_level_queries() -> None:
    tokenizer = byte_level_tokenizer()
    query = tokenizer("who is in the picture with a red cat")["input_ids"]
    assert tokenizer("red cat")["input_ids"][0] not in query
    builder = ComplementaryQueryBuilder(tokenizer)
    for text, caption, left in (
        ("who is in the picture with a red cat", "red cat", "who is in the picture with a"),
        ("red who", "red cat", " who"),
        ("red cat who", "a red cat", " who"),
    ):
        assert tokenizer.decode(builder(tokenizer(text)["input_ids"], [caption]) or []) == left


# --- what is trained


def test_biases_that_are_matrices_do_not_decay() -> None:
    model = tiny_model("t5")
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = {group["name"]: {names[id(p)] for p in group["params"]} for group in parameter_groups(model, 1, 1, 0.1)}
    relative = {name for name in names.values() if "relative_attention_bias" in name}
    assert relative
    assert relative <= groups["pretrained/not decayed"]
    assert "projector.weight" in groups["new/decayed"]


def test_a_start_without_an_extractor_is_warned_of(toy: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tiny_model(use_extractor=False).save_pretrained(tmp_path / "marvel")
    settings: dict[str, Any] = {"model": str(tmp_path / "marvel"), "max_steps": 1, "dev_split": None}
    with caplog.at_level(logging.WARNING, "ciea_hf"):
        run_stages(configured(toy, tmp_path / "run", **settings))
        assert "has no extractor (MARVEL); set `use_extractor: true` to add a new one" in caplog.text
        caplog.clear()
        reset_engine()
        run_stages(configured(toy, tmp_path / "other", **settings, use_extractor=True))
    assert "has no extractor" not in caplog.text
    assert "extractor.fc1.weight" in weights_of(tmp_path / "other" / "in_batch" / "best")


def test_presets_of_ciea_ask_for_its_extractor() -> None:
    asked = {name: load_preset(name).use_extractor for name in preset_names() if "demo" not in name}
    assert asked == {name: name != "marvel" for name in asked}
    assert TrainingConfig().use_extractor is None


# --- users' mistakes


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: [1\n", "invalid YAML"),
        ("- a\n- b\n", "must map options to values; got a list"),
        ("stages: {hard: 3}\n", "`stages`: 'hard' must map options to their values; got 3"),
    ],
)
def test_a_preset_that_is_none_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, message: str
) -> None:
    (tmp_path / "mine.yaml").write_text(content)
    assert main(["--preset", str(tmp_path / "mine.yaml")]) == 2
    assert message in capsys.readouterr().err


def test_a_value_that_yaml_cannot_read_is_named() -> None:
    with pytest.raises(TypeError, match=r"`complement_weight` must be of type float; got '\['"):
        config_from_arguments(["--preset", "demo", "--lambda", "["])
