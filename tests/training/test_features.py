"""Cached patch features of the frozen tower."""

from __future__ import annotations

import json
import logging
import pickle
from typing import TYPE_CHECKING, Any

import pytest
import torch

from ciea_hf.retrieval.documents import DocumentView
from ciea_hf.training.data import features as features_module
from ciea_hf.training.data.features import VisionFeatures, cache_vision_features, features_key
from tests.support.helpers import tiny_model
from tests.support.processes import in_processes
from tests.support.toy_training import training_data

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features_module, "SHARD_SIZE", 8)


def cache(folder: Path, model: Any = None, data: Any = None, on_broken_image: str = "skip") -> VisionFeatures:
    view = DocumentView(data or training_data(), on_broken_image=on_broken_image)
    return cache_vision_features(model or tiny_model(), view, folder, batch_size=3, progress=False)


def test_features_are_the_towers_within_fp16(tmp_path: Path) -> None:
    model, data = tiny_model(), training_data()
    view = DocumentView(data)
    features = cache(tmp_path, model)
    assert len(features) == 25
    assert len(list(tmp_path.glob("shard-*.npy"))) == 4
    for row, name in enumerate(data.corpus_ids):
        if view.kinds[row] == "image":
            pixels = model.processor.image_processor([view.image(row)], return_tensors="pt")["pixel_values"]
            with torch.no_grad():
                expected = model.get_vision_features(pixels)[0]
            assert features[name].dtype == torch.float16
            torch.testing.assert_close(features[name].float(), expected, atol=2e-3, rtol=2e-3)
    with pytest.raises(ValueError, match="could not be decoded when the vision features were computed"):
        features["txt-0"]


def test_reading_features_decodes_no_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = training_data()
    view = DocumentView(data, features=cache(tmp_path))
    monkeypatch.setattr(DocumentView, "image", lambda self, row: pytest.fail("an image is decoded"))
    document = view.read(0)
    assert document is not None
    assert (document.image, document.has_image, document.text) == (None, True, "a photo of the cat")


def test_a_second_call_computes_nothing_and_an_interrupted_one_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = cache(tmp_path)
    (tmp_path / "shard-00001.npy").unlink()
    read: list[int] = []
    image = DocumentView.image

    def reading(self: DocumentView, row: int) -> Any:
        read.append(row)
        return image(self, row)

    monkeypatch.setattr(DocumentView, "image", reading)
    second = cache(tmp_path)
    assert read == list(range(8, 16))
    assert all(torch.equal(first[f"img-{i}"], second[f"img-{i}"]) for i in range(24))
    cache(tmp_path)
    assert len(read) == 8


def test_stale_features_are_refused(tmp_path: Path) -> None:
    cache(tmp_path)
    trained = tiny_model(seed=3)
    layer = tiny_model(vision_feature_layer=-2)
    sized = tiny_model()
    sized.processor.image_processor.image_mean = [0.1, 0.2, 0.3]
    for model in (trained, layer, sized):
        assert features_key(model) != features_key(tiny_model())
        with pytest.raises(ValueError, match="made with another tower: choose another folder"):
            cache(tmp_path, model)
    with pytest.raises(ValueError, match="made with another corpus"):
        cache(tmp_path, data=training_data("dev"))
    cache(tmp_path, tiny_model(use_extractor=False))  # the tower is the same


def test_broken_images_are_named_or_fatal(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = training_data(broken=9)  # a whole shard and one more
    with caplog.at_level(logging.WARNING, "ciea_hf"):
        features = cache(tmp_path / "skip", data=data)
    assert len(features) == 25 - 9
    assert "document 'img-8' is left out" in caplog.text
    with pytest.raises(ValueError, match="could not be decoded"):
        features["img-0"]
    assert features["img-9"].shape == (4, 24)
    with pytest.raises(ValueError, match="document 'img-0'"):
        cache(tmp_path / "fail", data=data, on_broken_image="fail")


def test_workers_open_their_own_maps(tmp_path: Path) -> None:
    features = cache(tmp_path)
    expected = features["img-3"]
    copied = pickle.loads(pickle.dumps(features))  # noqa: S301 (what a worker is given)
    assert not copied._open
    assert torch.equal(copied["img-3"], expected)


def _cache_in_group(rank: int, world: int, folder: Path) -> None:
    features_module.SHARD_SIZE = 8
    model = tiny_model()
    calls: list[int] = []
    tower = model.get_vision_features

    def counting(pixel_values: torch.Tensor) -> torch.Tensor:
        calls.append(len(pixel_values))
        return tower(pixel_values)

    model.get_vision_features = counting  # type: ignore[method-assign]
    features = cache(folder / "features", model)
    (folder / f"{rank}.json").write_text(json.dumps([sum(calls), len(features)]))


def test_processes_share_the_work(tmp_path: Path) -> None:
    in_processes(2, tmp_path, _cache_in_group)
    figures = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert figures == [[16, 25], [9, 25]]
    alone = cache(tmp_path / "alone")
    together = VisionFeatures(tmp_path / "features")
    assert all(torch.equal(alone[f"img-{i}"], together[f"img-{i}"]) for i in range(24))
