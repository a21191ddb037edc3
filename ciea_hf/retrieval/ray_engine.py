"""Encoding of an index folder on a Ray cluster: Ray Data maps the missing shards over a pool of actors.

Dead workers, retries, unlike speeds, autoscaling and the dashboard are Ray's. A shard's bytes do not depend on who
encodes it, so the index equals that of one process. The folder must be shared by all nodes, or be a URL.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ciea_hf.retrieval.building import encode_shard
from ciea_hf.retrieval.plans import commit, make_plan
from ciea_hf.retrieval.shards import find_shard, write_shard
from ciea_hf.utils import import_optional

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ciea_hf.retrieval.documents import DocumentView
    from ciea_hf.retrieval.encoding import Encoder, EncodingOptions

    Loader = Callable[[], tuple[Encoder, DocumentView]]


_TIMEOUT = 10  # seconds


@dataclass(frozen=True)
class RayOptions:
    """Resources of a run on Ray.

    Attributes:
        address: Address of the cluster, or `"auto"`; a local cluster is started if `None`.
        num_cpus_per_worker: CPUs of a worker. A whole CPU per worker on all CPUs would starve the tasks that hand out
            the shards, so leave some free, or use fractions.
        num_gpus_per_worker: GPUs of a worker.
        max_workers: Largest number of workers; one per free resource if `None`.
    """

    address: str | None = None
    num_cpus_per_worker: float = 0.5
    num_gpus_per_worker: float = 0.0
    max_workers: int | None = None


class _ShardEncoder:
    """Actor: loads model and data set once, and encodes shards."""

    def __init__(
        self, load: Loader, folder: str, options: EncodingOptions, source: Mapping[str, str], append: bool
    ) -> None:
        self._model, self._view = load()
        self._options = options
        self._plan = make_plan(self._model, self._view.dataset, folder, self._view, options, source, append)
        self._shards = {shard.name: shard for shard in self._plan.shards}

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Encode the shards of a batch, and return their names."""
        names = [str(name) for name in batch["name"]]
        for name in names:
            shard = self._shards.get(name)
            if shard is not None and find_shard(self._plan.folder, name) is None:
                write_shard(self._plan.folder, name, encode_shard(self._model, self._view, shard.rows, self._options))
        return {"name": names}


def encode_with_ray(
    load: Loader,
    folder: str | os.PathLike[str],
    options: EncodingOptions,
    source: Mapping[str, str] | None = None,
    ray_options: RayOptions | None = None,
    append: bool = False,
) -> int:
    """Encode the missing shards of an index folder on a Ray cluster.

    Args:
        load: Function without arguments that returns model and view; every worker calls it once.
        folder: Index folder, shared by all nodes, or its URL.
        options: Batch size, precision, shard size and so on.
        source: Origin of the data set, kept in the manifest.
        ray_options: Cluster and resources.
        append: Whether to add new documents and replace changed ones in a complete index.

    Returns:
        Number of shards that are still missing: 0.

    Raises:
        ImportError: If Ray is not installed.
        ValueError: As `encode_shards`.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray = import_optional("ray", extra="ray")
    data = import_optional("ray.data", extra="ray")
    chosen = ray_options or RayOptions()
    model, view = load()
    origin = dict(source or {})
    plan = make_plan(model, view.dataset, folder, view, options, origin, append)
    missing = [shard.name for shard in plan.missing]
    if missing:
        if not ray.is_initialized():
            _check_address(chosen.address)
            ray.init(address=chosen.address, include_dashboard=False, log_to_driver=False)
        data.DataContext.get_current().enable_progress_bars = options.show_progress_bar
        names = data.from_items([{"name": name} for name in missing], override_num_blocks=len(missing))
        done = names.map_batches(
            _ShardEncoder,
            fn_constructor_args=(load, os.fspath(folder), options, origin, append),
            batch_size=1,
            num_cpus=chosen.num_cpus_per_worker,
            num_gpus=chosen.num_gpus_per_worker or None,
            compute=data.ActorPoolStrategy(min_size=1, max_size=chosen.max_workers or _workers(ray, chosen)),
        )
        done.materialize()
    commit(plan)
    return len(plan.missing)


def _check_address(address: str | None) -> None:
    """Check that a cluster answers, because Ray itself tries to reach one for many minutes.

    Raises:
        ConnectionError: If nothing listens at the address.
    """
    host, _, port = (address or "").rpartition("//")[2].rpartition(":")
    if not port.isdecimal():  # a name such as `auto`, which Ray resolves
        return
    try:
        socket.create_connection((host, int(port)), timeout=_TIMEOUT).close()
    except (OSError, OverflowError) as error:
        raise ConnectionError(f"no Ray cluster answers at {address}: {error}") from error


def _workers(ray: Any, chosen: RayOptions) -> int:
    """Return the number of workers that the cluster's resources allow, with a CPU free for Ray's own tasks."""
    there = ray.cluster_resources()
    counts = [int((there.get("CPU", 1) - 0.5) / chosen.num_cpus_per_worker)] if chosen.num_cpus_per_worker else []
    if chosen.num_gpus_per_worker:
        counts.append(int(there.get("GPU", 0) / chosen.num_gpus_per_worker))
    return max(1, *counts) if counts else 1
