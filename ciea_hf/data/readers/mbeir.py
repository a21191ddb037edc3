"""M-BEIR's files: queries, a pool of candidates, judgements with a task, all named after their task.

Wherever they stand below the folder: `query/{split}/NAME_{split}.jsonl`, `cand_pool/local/NAME_cand_pool.jsonl`,
`qrels/{split}/NAME_{split}_qrels.txt`, with the images under M-BEIR's own root (`mbeir_images/...`). Where a folder
holds several tasks, the path of a pool of candidates chooses one.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ciea_hf.data.issues import IssueHandler, raise_on_error
from ciea_hf.data.parsing import Judgement, json_lines, judgements
from ciea_hf.data.readers.base import CorpusEntry, DatasetReader, Query, document_of, id_list, required_id

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ciea_hf.data.parsing import Entry

POOL = "_cand_pool.jsonl"
SPLITS = {"train": "train", "dev": "val", "test": "test"}


def recognises(path: str) -> bool:
    """Whether a path is a pool of candidates, or a folder with one or more in it."""
    return path.endswith(POOL) or (Path(path).is_dir() and next(_pools(Path(path)), None) is not None)


def _pools(folder: Path) -> Iterator[Path]:
    for pattern in (f"*{POOL}", f"*/*{POOL}", f"*/*/*{POOL}"):
        yield from sorted(folder.glob(pattern))


class MBeir(DatasetReader):
    """One task of M-BEIR.

    Args:
        path: The folder of the task, or its pool of candidates.
        report: Takes the faults that reading meets.

    Raises:
        ValueError: If the folder holds several pools.
        FileNotFoundError: If it holds none.
    """

    def __init__(self, path: str, report: IssueHandler = raise_on_error) -> None:
        super().__init__(path, report)
        self.pool = Path(path) if path.endswith(POOL) else self._only_pool(Path(path))
        self._task = self.pool.name.removesuffix(POOL)

    @property
    def name(self) -> str:
        """The task."""
        return self._task

    @property
    def splits(self) -> list[str]:
        """Those with a file of queries."""
        return list(self._queries)

    def documents(self, corpus: str) -> Iterator[CorpusEntry]:  # noqa: ARG002
        """Iterate over the pool of candidates."""
        for entry in json_lines(self.pool, self.report):
            name = required_id(entry, "did", self.report)
            path = entry.value.get("img_path")
            if path and not isinstance(path, str):
                self.report("unreadable", entry.place, name, f"'img_path' must be a path; got {str(path)[:80]}")
            elif name is not None:
                image = {"bytes": None, "path": str(self._image_root / path)} if path else None
                yield document_of(entry, name, entry.value.get("txt"), image, self.report)

    def queries(self, split: str) -> Iterator[Query]:
        """Iterate over the queries; one with an image is at fault: queries are texts here."""
        for entry in self._entries(split):
            if entry.value.get("query_img_path"):
                message = "the query has an image; only queries of text can be searched for"
                self.report("unreadable", entry.place, str(entry.value["qid"]), message)
            else:
                yield Query(entry.place, str(entry.value["qid"]), str(entry.value.get("query_txt") or ""))

    def judgements(self, split: str) -> Iterator[Judgement]:
        """Iterate over the positives, of the judgements' file if there is one, then over the source's negatives."""
        file = self._find(f"{self._task}_{SPLITS[split]}_qrels.txt")
        if file is not None:
            yield from judgements(file, self.report)
        for entry in self._entries(split):
            query = str(entry.value["qid"])
            positives = id_list(entry, "pos_cand_list", self.report)
            if file is None:
                yield from (Judgement(entry.place, query, name, 1) for name in positives)
            for name in id_list(entry, "neg_cand_list", self.report):
                if positives and name not in positives:
                    yield Judgement(entry.place, query, name, 0)

    def corpus_files(self, corpus: str) -> list[Path]:  # noqa: ARG002
        """List the pool of candidates."""
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
        """Where files are looked for: the folder given, or those above a pool that was given."""
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
            raise FileNotFoundError(f"{folder} holds no pool of candidates (NAME{POOL})")
        if len(pools) > 1:
            raise ValueError(f"{folder} holds several tasks: give the path of one, such as {pools[0]}")
        return pools[0]
