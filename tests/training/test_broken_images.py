"""Images that cannot be decoded, while a run trains."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from ciea_hf.retrieval.documents import DocumentView
from ciea_hf.training.run.stages import run_stages
from ciea_hf.training.train import main
from tests.support.toy_training import (
    arguments_of,
    configured,
    read_log,
    save_training_data,
)

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("fresh_engine")


@pytest.mark.parametrize("cache", [None, "auto"])
def test_broken_images_are_counted_named_and_left_out(
    toy: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, cache: str | None
) -> None:
    save_training_data(tmp_path / "data", images=12, broken=3)
    config = configured(
        toy, tmp_path / "run", dataset=str(tmp_path / "data"), max_steps=25, cache_vision_features=cache
    )
    with caplog.at_level(logging.WARNING, "ciea_hf"):
        result = run_stages(config)["in_batch"]
    assert list(result["broken"]) == ["img-0", "img-1", "img-2"]
    left_out = [record.getMessage() for record in caplog.records if record.name.endswith("trainer")]
    assert sorted(message.split(" has a broken image:")[0] for message in left_out) == [
        f"document 'img-{i}'" for i in range(3)
    ]
    assert "3 documents have images that cannot be decoded" in caplog.text


@pytest.mark.parametrize("cache", [None, "auto"])
def test_a_broken_image_is_fatal_on_request(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], cache: str | None
) -> None:
    save_training_data(tmp_path / "data", images=12, broken=3)
    config = configured(
        toy, tmp_path / "run", dataset=str(tmp_path / "data"), max_steps=8, on_broken_image="fail",
        cache_vision_features=cache,
    )  # fmt: skip
    assert main(arguments_of(config, tmp_path)) == 2
    assert "document 'img-" in capsys.readouterr().err


def test_a_batch_of_which_nothing_is_left_changes_nothing(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(self: DocumentView, row: int, broken: dict[str, str] | None = None) -> None:
        self.report_broken(row, ValueError("the disk failed"), broken)

    monkeypatch.setattr(DocumentView, "read", failing)
    result = run_stages(configured(toy, tmp_path, dev_split=None, max_steps=2))["in_batch"]
    assert [line["loss"] for line in read_log(tmp_path / "in_batch")] == [0.0, 0.0]
    assert result["step"] == 2
