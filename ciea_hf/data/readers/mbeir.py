"""M-BEIR: queries, a pool of candidates, and judgements with a task, in files named after the task.

The files `query/{split}/NAME_{split}.jsonl`, `cand_pool/local/NAME_cand_pool.jsonl` and
`qrels/{split}/NAME_{split}_qrels.txt` may be anywhere below the folder; images are below M-BEIR's root
(`mbeir_images/...`). If a folder contains several tasks, the path of a pool of candidates selects one.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ciea_hf.data.issues import IssueHandler, raise_on_error
from ciea_hf.data.judgements import judgements
from ciea_hf.data.parsing import Judgement, json_lines
from ciea_hf.data.readers.base import DatasetReader
from ciea_hf.data.readers.fields import CorpusEntry, Query, document_of, id_list, local_image, query_of, required_id

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ciea_hf.data.parsing import Entry

POOL = "_cand_pool.jsonl"
SPLITS = {"train": "train", "dev": "val", "test": "test"}


def recognises(path: str) -> bool:
    """Return whether a path is a pool of candidates, or a folder that contains any."""
    return path.endswith(POOL) or (Path(path).is_dir() and next(_pools(Path(path)), None) is not None)


def _pools(folder: Path) -> Iterator[Path]:
    for pattern in (f"*{POOL}", f"*/*{POOL}", f"*/*/*{POOL}"):
        yield from sorted(folder.glob(pattern))


class MBeir(DatasetReader):
    """Reader of a task of M-BEIR.

    Args:
        path: Folder of the task, or its pool of candidates.
        report: Handler of issues.

    Raises:
        ValueError: If the folder contains several pools.
        FileNotFoundError: If it contains no pool.
    """

    def __init__(self, path: str, report: IssueHandler = raise_on_error) -> None:
        super().__init__(path, report)
        self.pool = Path(path) if path.endswith(POOL) else self._only_pool(Path(path))
        self._task = self.pool.name.removesuffix(POOL)

    @property
    def name(self) -> str:
        """Name of the task."""
        return self._task

    @property
    def splits(self) -> list[str]:
        """Splits with a file of queries."""
        return list(self._queries)

    def documents(self, corpus: str) -> Iterator[CorpusEntry]:  # noqa: ARG002
        """Yield the pool of candidates."""
        for entry in json_lines(self.pool, self.report):
            name = required_id(entry, "did", self.report)
            path = entry.value.get("img_path")
            if name is not None:
                image = local_image(entry, name, self._image_root, path, self.report) if path else None
                yield document_of(entry, name, entry.value.get("txt"), image, self.report)

    def queries(self, split: str) -> Iterator[Query]:
        """Yield the queries; queries with an image are an issue, because only text queries are supported."""
        for entry in self._entries(split):
            if entry.value.get("query_img_path"):
                message = "the query has an image; only text queries are supported"
                self.report("unreadable", entry.location, str(entry.value["qid"]), message)
            else:
                query = query_of(entry, str(entry.value["qid"]), entry.value.get("query_txt"), self.report)
                if query is not None:
                    yield query

    def judgements(self, split: str) -> Iterator[Judgement]:
        """Yield the positives (from the file of judgements, if it exists), then the data set's negatives."""
        file = self._find(f"{self._task}_{SPLITS[split]}_qrels.txt")
        if file is not None:
            yield from judgements(file, self.report)
        for entry in self._entries(split):
            query = str(entry.value["qid"])
            positives = id_list(entry, "pos_cand_list", self.report)
            if file is None:
                yield from (Judgement(entry.location, query, name, 1) for name in positives)
            for name in id_list(entry, "neg_cand_list", self.report):
                if positives and name not in positives:
                    yield Judgement(entry.location, query, name, 0)

    def corpus_files(self, corpus: str) -> list[Path]:  # noqa: ARG002
        """Return the file of the pool of candidates."""
        return [self.pool]

    def _entries(self, split: str) -> Iterator[Entry]:
        for entry in json_lines(self._queries[split], self.report):
            if required_id(entry, "qid", self.report) is not None:
                yield entry

    @cached_property
    def _queries(self) -> dict[str, Path]:
        found = {split: self._find(f"{self._task}_{name}.jsonl") for split, name in SPLITS.items()}
        return {split: file for split, file in found.items() if file is not None}

    @cached_property
    def _folders(self) -> list[Path]:
        """Return the folders to search: the given one, or those above a given pool."""
        given = Path(self.path).resolve()
        return [given] if given.is_dir() else list(given.parents)[:3]

    def _find(self, name: str) -> Path | None:
        for folder in self._folders:
            for pattern in (name, f"*/{name}", f"*/*/{name}"):
                for file in sorted(folder.glob(pattern)):
                    return file
        return None

    @cached_property
    def _image_root(self) -> Path:
        for folder in (*self._folders, *self.pool.resolve().parents):
            if (folder / "mbeir_images").is_dir():
                return folder
        return self._folders[0]

    def _only_pool(self, folder: Path) -> Path:
        pools = list(dict.fromkeys(_pools(folder)))
        if not pools:
            raise FileNotFoundError(f"{folder} contains no pool of candidates (NAME{POOL})")
        if len(pools) > 1:
            raise ValueError(f"{folder} contains several tasks: give the path of one, such as {pools[0]}")
        return pools[0]
