"""Values of options that are refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from ciea_hf.training.config import TrainingConfig, updated


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("batch_size", 0, "`batch_size` must be at least 1; got 0"),
        ("batch_size", "many", "`batch_size` must be of type int; got 'many'"),
        ("batch_size", True, "`batch_size` must be of type int; got True"),
        ("compile", 1, "`compile` must be of type bool; got 1"),
        ("query_reduction", "drop", "`query_reduction` must be one of delete, mask; got 'drop'"),
        ("adam_betas", "0.9", "`adam_betas` takes 2 values; got '0.9'"),
        ("max_steps", 0, "`max_steps` must be at least 1; got 0"),
        ("stages", ["hard_negatives"], "`stages` must map stages to their values"),
        ("freeze", "tower", "`freeze` must be a subset of vision, text, text_body"),
        ("mixed_precision", "fp8", "`mixed_precision` must be one of no, bf16, fp16; got 'fp8'"),
        ("image_negatives", -1, "`image_negatives` must be at least 0; got -1"),
        ("complement_weight", -0.5, "`complement_weight` must be at least 0; got -0.5"),
        ("learning_rate", 0.0, "`learning_rate` must be above 0; got 0.0"),
        ("stages", {"hard_negatives": {"mixed_precision": "bf16"}}, "`mixed_precision` cannot be set per stage"),
        ("weight_decay", "nan", "`weight_decay` must be a finite number; got nan"),
        ("complement_weight", float("nan"), "`complement_weight` must be a finite number; got nan"),
        ("learning_rate", "1e38", r"`learning_rate` must be at most 1; got 1e\+38"),
        ("max_grad_norm", "inf", "`max_grad_norm` must be a finite number; got inf"),
        ("batch_size", 10**30, "`batch_size` must be at most 2147483647"),
        ("batch_size", "1:30", "`batch_size` must be of type int; got '1:30'"),  # 90 in YAML
        ("adam_betas", "0.9,1", "`adam_betas` must be below 1"),
        ("adam_betas", 3, "`adam_betas` must be a list, or values separated by commas; got 3"),
        ("mine_window", "500,600", r"`mine_window` must begin before rank 100, the `mine_depth`; got \(500, 600\)"),
        ("stages", {"in_batch": {"lambda": "nan"}}, "stage in_batch: `complement_weight` must be a finite number"),
        ("stages", {"mine": {"mine_images": 0, "mine_texts": 0}}, "stage mine: .* are both 0"),
        ("stages", {"hard_negatives": {"image_negatives": 0, "text_negatives": 0}}, "would train without any"),
        ("stage", "in_batch,in_batch", "`stage` must name at least one stage, and each once"),
        ("all_stages", "", "`all_stages` must name at least one stage"),
        ("output_dir", "", "`output_dir` must be a folder"),
        ("output_dir", "a\0b", "`output_dir` must not contain a null character"),
        ("dataset", "\udcfc", "`dataset` must be valid UTF-8"),
        ("push_to_hub", "a/b/c", "`push_to_hub` must be the id of a repository"),
        ("lora", "r=0", "`lora`: r must be a positive integer; got 'r=0'"),
        ("lora", "dropout=nan", "`lora` takes r=NUMBER"),
        ("lora", "rank=4", "`lora` takes r=NUMBER, alpha=NUMBER, dropout=NUMBER; got 'rank=4'"),
    ],
)
def test_a_wrong_value_is_named_with_the_choices(option: str, value: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        updated(TrainingConfig(), {option: value})
