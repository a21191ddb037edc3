"""Progress of encoding, over all processes that fill one index folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ciea_hf.retrieval.shards import find_shards

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ciea_hf.retrieval.location import Location
    from ciea_hf.retrieval.plans import PlannedShard


class ShardProgress:
    """A progress bar with rate and time left; the shards that other processes complete are counted as they appear.

    Args:
        folder: Index folder.
        shards: Shards of the plan.
        shown: Whether to show the bar.
    """

    def __init__(self, folder: Location, shards: Sequence[PlannedShard], shown: bool) -> None:
        self._folder = folder
        self._shards = shards
        self._shown = shown
        self._bar: Any = None
        self._counted: set[str] = set()

    def __enter__(self) -> ShardProgress:
        if self._shown and self._shards:
            from tqdm.auto import tqdm

            done = self._completed()
            total = sum(len(shard.rows) for shard in self._shards)
            self._bar = tqdm(total=total, initial=done, desc="Encoding", unit="doc", dynamic_ncols=True)
        return self

    def __exit__(self, *_error: object) -> None:
        if self._bar is not None:
            self.look()
            self._bar.close()

    def advance(self, documents: int) -> None:
        """Count documents that this process has encoded."""
        if self._bar is not None:
            self._bar.update(documents)

    def look(self) -> None:
        """Count the shards that have been completed, by whatever process."""
        if self._bar is not None:
            self._bar.n = max(self._bar.n, self._completed())
            self._bar.refresh()

    def _completed(self) -> int:
        self._counted |= find_shards(
            self._folder, [shard.name for shard in self._shards if shard.name not in self._counted]
        ).keys()
        return sum(len(shard.rows) for shard in self._shards if shard.name in self._counted)
