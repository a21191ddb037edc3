"""Random options of short trainings: a run ends with a model whose weights are finite, or with one clear line."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from ciea_hf.training.run.stages import run_stages
from tests.fuzz.outcomes import Tally, cases, outcome
from tests.support.toy_training import configured, read_log, reset_engine, weights_of

if TYPE_CHECKING:
    import random
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("fresh_engine")

CASES = 8
EXTREMES: dict[str, tuple[Any, ...]] = {
    "learning_rate": (1e-300, 0.5, 1.0), "new_learning_rate": (1e-12, 1.0), "weight_decay": (0.0, 10.0),
    "adam_betas": ((0.0, 0.0), (0.999999, 0.999999)), "adam_epsilon": (1e-30, 1.0), "max_grad_norm": (1e-300, 1e300),
    "lambda": (0.0, 1e4), "reverse_weight": (1e4,), "false_negative_margin": (-2.0, 0.0, 2.0), "dropout": (0.999,),
    "caption_dropout": (0.999,), "extractor_dropout": (0.999,), "seed": (2**31 - 1,), "batch_size": (1, 2, 10**6),
    "max_length": (1, 2, 10**6), "gradient_cache_chunk": (1, 10**6), "gradient_accumulation_steps": (3,),
    "warmup_steps": (0, 10**9), "eval_batch_size": (1, 10**9), "eval_documents": (1,), "eval_steps": (1, 10**9),
    "save_steps": (1, 10**9), "log_steps": (1, 10**9), "early_stopping": (1,), "keep_checkpoints": (1, 10**9),
    "query_reduction": ("delete", "mask"), "content": ("caption", "image"), "complement_patches": ("projected",),
    "freeze": ("", "vision,text", "vision,text,projector,extractor,logit_scale"), "stage": ("align", "warm_up", "mine"),
    "use_extractor": (False,), "train_split": ("dev", "nothing"), "dev_split": (None, "nothing"),
    "dataset": ("", "/none"),
    "model": (None, "/none", "x/y/z"), "negatives": ("/none",), "trackers": ("nothing",), "mine_depth": (1,),
    "max_score": (-1.0,), "relative_margin": (2.0,), "epochs": (10**9,),
}  # fmt: skip


def random_values(rng: random.Random) -> dict[str, Any]:
    """One to four options at the ends of what is valid."""
    names = rng.sample(list(EXTREMES), rng.randint(1, 4))
    return {name: rng.choice(EXTREMES[name]) for name in names}


def train(toy: Path, output: Path, values: dict[str, Any]) -> None:
    run_stages(configured(toy, output, **values))


def test_short_runs_end_with_finite_weights_or_a_clear_error(toy: Path, tmp_path: Path) -> None:
    tally = Tally()
    for seed, rng in cases(CASES, seconds=5):
        reset_engine()
        values = random_values(rng)
        output = tmp_path / str(seed)
        verdict, found = outcome(partial(train, toy, output, {"max_steps": 2} | values))
        if verdict == "unclear" and "FloatingPointError" in str(found) and "not finite" in str(found):
            verdict = "clear"
        if verdict == "clear" and "\n" in str(found):
            verdict = "unclear"
        best = [path.parent for path in output.glob("*/best/model.safetensors")]
        if any(not bool(tensor.isfinite().all()) for folder in best for tensor in weights_of(folder).values()):
            verdict, found = "unclear", "a weight of the best model is not finite"
        for folder in output.glob("*/losses.jsonl"):
            if any(not math.isfinite(value) for line in read_log(folder.parent) for value in line.values()):
                verdict, found = "unclear", "a logged loss is not finite"
        tally.add(verdict, f"{values}: {found}")
    tally.check()
