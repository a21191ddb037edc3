"""Encoding on a Ray cluster of two nodes, one of which is killed."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from ciea_hf.retrieval import DocumentView, EncodingOptions, encode_corpus, load_corpus
from ciea_hf.retrieval.ray_engine import RayOptions, encode_with_ray
from tests.support.toy_retrieval import ToyEncoder, dataset_of, folder_content

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SHARDS = 16

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("cache")]


class SlowEncoder(ToyEncoder):
    """Takes half a second per shard."""

    def encode_document(self, inputs: Any, **kwargs: Any) -> Any:
        time.sleep(0.5)
        return super().encode_document(inputs, **kwargs)


def load() -> tuple[Any, DocumentView]:
    return SlowEncoder(), DocumentView(dataset_of({f"d{number}": f"word{number}" for number in range(SHARDS)}))


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A cluster of two nodes on this machine."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")]))  # noqa: PTH109
    import ray
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    try:
        yield made
    finally:
        ray.shutdown()
        made.shutdown()


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_a_killed_node_changes_no_byte(tmp_path: Path, cluster: Any, prefix: str) -> None:
    output = f"{prefix}{tmp_path}/ray"
    second = cluster.add_node(num_cpus=2)
    cluster.wait_for_nodes()
    killed_at: list[int] = []

    def kill() -> None:
        folder = tmp_path / "ray" / "shards"
        while len(list(folder.glob("*.json"))) < 3:
            time.sleep(0.05)
        killed_at.append(len(list(folder.glob("*.json"))))
        cluster.remove_node(second, allow_graceful=False)

    options = EncodingOptions(shard_size=1)
    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    assert encode_with_ray(load, output, options, ray_options=RayOptions(address=cluster.address)) == 0
    killer.join(60)
    assert killed_at
    assert killed_at[0] < SHARDS
    model, view = load()
    encode_corpus(model, view.dataset, tmp_path / "one", options=options)
    assert folder_content(tmp_path / "ray") == folder_content(tmp_path / "one")
    assert len(load_corpus(output)) == SHARDS
