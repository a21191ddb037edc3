"""Configurations, presets, the command line, optimiser groups, freezing and the schedule."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
import yaml

from ciea_hf.data.loading import FORMATS
from ciea_hf.training.arguments import EXAMPLES, config_as_dict, config_from_arguments, load_preset, preset_names
from ciea_hf.training.config import FREEZABLE, STAGES, TrainingConfig, options, updated
from ciea_hf.training.run.backbone import load_model, prepare_model, saved_model
from ciea_hf.training.run.optim import (
    build_optimizer,
    build_schedule,
    clamp_logit_scale,
    freeze,
    parameter_groups,
    resume_schedule,
)
from ciea_hf.training.run.record import run_record
from ciea_hf.training.run.stages import run_stages
from ciea_hf.training.train import main
from tests.support.helpers import tiny_model

PAPER_PRESETS = ("edis", "marvel", "webqa_image", "webqa_multi")
OWN = ("edis", "webqa_image", "webqa_multi")
PAPER = {
    "learning_rate": 5e-6,
    "adam_betas": (0.9, 0.98),
    "adam_epsilon": 1e-6,
    "weight_decay": 0.2,
    "batch_size": 64,
    "epochs": 40,
    "eval_steps": 500,
    "max_length": 128,
    "warmup_steps": 0,
}


def test_every_preset_loads_and_every_stage_of_it() -> None:
    assert preset_names() == ["demo", "demo_paper", *sorted((*PAPER_PRESETS, *(f"{name}_words" for name in OWN)))]
    for name in preset_names():
        config = load_preset(name)
        for stage in STAGES:
            assert config.for_stage(stage).stage == stage


@pytest.mark.parametrize("name", PAPER_PRESETS)
def test_presets_of_the_paper_hold_its_values(name: str) -> None:
    config = load_preset(name)
    assert config.stage_names == ["align", "in_batch", "mine", "hard_negatives"]
    for option, value in PAPER.items():
        assert getattr(config.for_stage("in_batch"), option) == value, option
    align, hard = config.for_stage("align"), config.for_stage("hard_negatives")
    assert (align.max_length, set(align.freeze)) == (64, {"vision", "text_body"})
    assert (config.for_stage("in_batch").early_stopping, hard.early_stopping) == (10, 5)
    assert config.for_stage("mine").mine_depth == 100
    assert hard.complement_weight == (0.0 if name == "marvel" else 0.1)
    assert (hard.image_negatives, hard.text_negatives) == ((2, 0) if name in ("edis", "webqa_image") else (1, 1))
    assert config.dataset_format == ("webqa-image" if name == "webqa_image" else "auto")
    assert config.dataset_format in {"auto", *FORMATS}


@pytest.mark.parametrize("name", OWN)
def test_presets_of_this_recipe_differ_from_the_papers_in_the_recipe_only(name: str) -> None:
    paper, own, demo = load_preset(name), load_preset(f"{name}_words"), load_preset("demo")
    recipe = ("extractor_weights", "extract_uncaptioned", "dropout", "extractor_dropout", "complement_weight",
              "reverse_weight")  # fmt: skip
    stage = "in_batch"
    assert all(getattr(own.for_stage(stage), option) == getattr(demo.for_stage(stage), option) for option in recipe)
    one, other = config_as_dict(own.for_stage(stage)), config_as_dict(paper.for_stage(stage))
    changed = {option for option in one if one[option] != other[option]}
    assert changed == {*recipe, "new_learning_rate", "output_dir"} - {"complement_weight"} | {"lambda"}
    align, aligned = own.for_stage("align"), demo.for_stage("align")
    same = ("contrast", "max_steps", "eval_steps", "max_grad_norm", "word_scale", "word_learning_rate", "freeze")
    assert all(getattr(align, option) == getattr(aligned, option) for option in same)


def test_an_unknown_option_lists_the_valid_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown option 'learning_rat'. Did you mean 'learning_rate'") as caught:
        updated(TrainingConfig(), {"learning_rat": 1})
    assert all(option in str(caught.value) for option in options())
    with pytest.raises(ValueError, match=r"unknown option 'hard-negative'. Did you mean 'hard_negatives'"):
        config_from_arguments(["--hard_negative.epochs", "3"])
    with pytest.raises(ValueError, match="`stage` must be one of warm_up, align"):
        config_from_arguments(["--stage", "in_batch,hart"])
    with pytest.raises(FileNotFoundError, match=r"preset or file 'webqa' not found; presets: demo, demo_paper, edis"):
        load_preset("webqa")
    with pytest.raises(ValueError, match="begins with --; got '3'"):
        config_from_arguments(["--preset", "demo", "3"])


def test_the_command_line_wins_over_the_preset_and_a_stage_over_all() -> None:
    config = config_from_arguments(
        ["--preset", "demo", "--lambda", "0.25", "--hard_negatives.epochs=7", "--resume", "--max-steps", "9",
         "--stage", "all",
         "--max-grad-norm", "none", "--freeze", "vision,text", "--learning-rate", "5e-6", "--use-extractor", "false"]
    )  # fmt: skip
    assert (config.complement_weight, config.resume, config.max_grad_norm) == (0.25, True, None)
    assert config.stage_names == ["warm_up", "align", "in_batch", "mine", "hard_negatives"]
    assert (config.for_stage("hard_negatives").epochs, config.for_stage("in_batch").epochs) == (7, 40)
    assert config.for_stage("warm_up").max_steps == 9  # the preset's own 300 gives way
    assert config.for_stage("align").freeze == ("vision", "text")
    assert (config.learning_rate, config.use_extractor) == (5e-6, False)


@pytest.mark.parametrize("name", preset_names())
def test_a_configuration_survives_yaml(name: str, tmp_path: Any) -> None:
    config = updated(load_preset(name), {"lora": "r=4", "trackers": "none", "max_steps": 3})
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config_as_dict(config)))
    assert load_preset(str(path)) == config


def test_a_run_record_says_what_a_run_was() -> None:
    record = run_record(TrainingConfig(seed=3), {"train": "abc"})
    assert (record["seed"], record["data"], record["config"]["lambda"]) == (3, {"train": "abc"}, 0.1)
    assert record["versions"]["torch"] == torch.__version__
    assert {"python", "transformers", "accelerate", "ciea-hf"} <= record["versions"].keys()
    json.dumps(record)


def test_a_users_mistake_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Any) -> None:
    out = ["--output-dir", str(tmp_path / "run")]
    for arguments in (["--batch-sise", "3"], ["--preset", "nothing"], ["--stage", "in_batch"],
                      ["--dataset", str(tmp_path / "none"), *out]):  # fmt: skip
        assert main(arguments) == 2
        error = capsys.readouterr().err.strip()
        assert error.startswith("train.py: error: ")
        assert "\n" not in error
    assert not (tmp_path / "run").exists()


def trained(model: torch.nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_freezing_by_part() -> None:
    model = tiny_model()
    every = {name for name, _ in model.named_parameters()}
    prefixes = {"vision": "vision_model.", "text": "text_model.", "projector": "projector.", "extractor": "extractor."}
    for part in FREEZABLE:
        freeze(model, [part])
        frozen = every - trained(model)
        if part == "text_body":
            assert frozen == {name for name in every if name.startswith("text_model.")} - {"text_model.shared.weight"}
        else:
            assert frozen == {name for name in every if name.startswith(prefixes.get(part, part))}, part
    freeze(model, ["vision", "text", "logit_scale"])
    assert {name.split(".")[0] for name in trained(model)} == {"projector", "extractor"}
    freeze(model, [])
    assert trained(model) == every
    with pytest.raises(ValueError, match=r"`freeze` must be a subset of vision, text, text_body.* got body"):
        freeze(model, ["body"])


def test_optimiser_groups_by_rate_and_decay() -> None:
    model = tiny_model()
    freeze(model, ["vision"])
    groups = {group["name"]: group for group in parameter_groups(model, 1e-3, 1e-2, 0.2)}
    assert {name: (group["lr"], group["weight_decay"]) for name, group in groups.items()} == {
        "pretrained/decayed": (1e-3, 0.2),
        "pretrained/not decayed": (1e-3, 0.0),
        "new/decayed": (1e-2, 0.2),
        "new/not decayed": (1e-2, 0.0),
    }
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {group: {names[id(p)] for p in content["params"]} for group, content in groups.items()}
    assert found["new/not decayed"] >= {"projector.bias", "extractor.layer_norm.weight", "extractor.fc1.bias"}
    assert found["new/decayed"] >= {"projector.weight", "extractor.fc1.weight"}
    assert "logit_scale" in found["pretrained/not decayed"]
    assert "text_model.shared.weight" in found["pretrained/decayed"]
    still = {name for key in found if "not" in key for name in found[key]}
    assert all(model.get_parameter(name).ndim < 2 or "relative_attention_bias" in name for name in still)
    assert set().union(*found.values()) == trained(model)
    assert sum(map(len, found.values())) == len(trained(model))  # none twice
    assert len({group["lr"] for group in parameter_groups(model, 1e-3, None, 0.2)}) == 1
    optimizer = build_optimizer(list(groups.values()), (0.9, 0.98), 1e-6)
    assert (optimizer.defaults["betas"], optimizer.defaults["eps"]) == ((0.9, 0.98), 1e-6)


def test_nothing_left_to_train_is_an_error() -> None:
    model = tiny_model()
    freeze(model, ["vision", "text", "projector", "extractor", "logit_scale"])
    with pytest.raises(ValueError, match="`freeze` leaves no parameter to train"):
        parameter_groups(model, 1e-3, None, 0.1)


def rates(schedule: Any, optimizer: Any, steps: int) -> list[float]:
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_schedule_warms_up_and_falls_to_zero_and_resumes() -> None:
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = build_schedule(optimizer, 4, 14)
    found = rates(schedule, optimizer, 15)
    assert found[:5] == pytest.approx([0.4, 0.8, 1.2, 1.6, 2.0])
    assert found[4:] == pytest.approx([1 + math.cos(math.pi * step / 10) for step in range(11)])
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = build_schedule(optimizer, 4, 14)
    assert rates(schedule, optimizer, 6) == found[:6]
    state = optimizer.state_dict()
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = build_schedule(optimizer, 4, 14)
    optimizer.load_state_dict(state)
    resume_schedule(schedule, 6)
    assert rates(schedule, optimizer, 9) == found[6:]  # to the last bit


def test_logit_scale_is_clamped_at_ln_100() -> None:
    scale = torch.nn.Parameter(torch.tensor(7.0))
    clamp_logit_scale(scale)
    assert scale.item() == pytest.approx(math.log(100.0))


def test_lora_trains_adapters_and_what_is_new_and_saves_a_plain_model(tmp_path: Any) -> None:
    tiny_model().save_pretrained(tmp_path / "start")
    config = TrainingConfig(model=str(tmp_path / "start"), lora="r=4,dropout=0.0")
    model = prepare_model(load_model(config, None, tmp_path), config)
    kinds = {"lora" if "lora_" in name else name.split(".")[0] for name in trained(model)}
    assert kinds == {"lora", "projector", "extractor", "logit_scale"}
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    expected = model.eval().encode(["a red cat"])
    saved_model(model).save_pretrained(tmp_path / "merged")
    plain = type(model).from_pretrained(tmp_path / "merged")
    start = type(model).from_pretrained(tmp_path / "start")
    assert plain.state_dict().keys() == start.state_dict().keys()
    torch.testing.assert_close(plain.encode(["a red cat"]), expected, atol=1e-5, rtol=1e-5)
    assert abs(start.encode(["a red cat"]) - expected).max() > 1e-2
    assert any("lora_" in name for name in trained(model))  # the model in training keeps its adapters


def test_lora_leaves_a_frozen_language_model_alone(tmp_path: Any) -> None:
    tiny_model().save_pretrained(tmp_path)
    for parts in (("vision", "text"), ("vision", "text_body")):
        config = TrainingConfig(model=str(tmp_path), lora="r=4", freeze=parts)
        model = prepare_model(load_model(config, None, tmp_path), config)
        assert not any("lora" in name for name in trained(model)), parts


def test_adapters_and_sharded_weights_do_not_go_together(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.support.toy_training import configured, reset_engine, save_start, save_training_data

    reset_engine()
    save_training_data(tmp_path / "data", images=4)
    save_start(tmp_path / "start")
    monkeypatch.setattr("ciea_hf.training.run.stages.is_sharded", lambda accelerator: True)
    with pytest.raises(ValueError, match="`lora` cannot be combined with an engine that shards weights"):
        run_stages(configured(tmp_path, tmp_path / "run", lora="r=4"))


def test_the_help_is_grouped_and_shows_choices(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    groups = list(dict.fromkeys(option.group for option in options().values()))
    assert [line[:-1] for line in shown.splitlines() if line[:-1] in groups] == groups
    for name, choices in {
        "content": "{full,caption,image}", "on-broken-image": "{fail,skip,caption}", "query-reduction": "{delete,mask}",
        "mixed-precision": "{no,bf16,fp16,none}", "resume": "[{true,false}]",
    }.items():  # fmt: skip
        assert f"--{name} {choices}" in shown
    for name in options():
        assert f"--{name.replace('_', '-')}" in shown
    assert "(default: 0.9,0.98)" in shown


def test_examples_of_the_help_are_valid() -> None:
    lines = [line.partition("train.py ")[2] for line in EXAMPLES.splitlines() if "train.py" in line]
    assert len(lines) == 3
    for line in lines:
        config_from_arguments(line.split())


def test_a_missing_value_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--batch-size"]) == 2
    assert capsys.readouterr().err == "train.py: error: argument --batch-size: expected one argument\n"
    assert main(["--max-score", "-0.5", "--stage", "?"]) == 2  # a negative number is a value
    assert "got '?'" in capsys.readouterr().err
