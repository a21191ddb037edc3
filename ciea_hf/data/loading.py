"""Loading of retrieval data sets in all supported formats."""

from __future__ import annotations

import dataclasses
import importlib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakValueDictionary

from ciea_hf.data.dataset import SHARED_SPLIT
from ciea_hf.data.issues import IssueHandler, raise_on_error
from ciea_hf.data.readers import clueweb, edis, jsonl, lines, mbeir, parquet, webqa, webqa_original
from ciea_hf.data.readers.base import DatasetReader, build_dataset, no_split

if TYPE_CHECKING:
    from collections.abc import Callable

    import datasets

    from ciea_hf.data.dataset import RetrievalDataset


class Format(NamedTuple):
    """A format of retrieval data.

    Attributes:
        recognises: Function that tells whether a path has this format.
        open: Function from a path and an issue handler to a reader.
    """

    recognises: Callable[[str], bool]
    open: Callable[[str, IssueHandler], DatasetReader]


def _never(path: str) -> bool:  # noqa: ARG001
    return False


FORMATS: dict[str, Format] = {
    "webqa": Format(webqa.recognises, webqa.WebQA),
    "webqa-image": Format(_never, partial(webqa.WebQA, images_only=True)),
    "webqa-original": Format(webqa_original.recognises, webqa_original.OriginalWebQA),
    "webqa-original-image": Format(_never, partial(webqa_original.OriginalWebQA, images_only=True)),
    "edis": Format(edis.recognises, edis.Edis),
    "mbeir": Format(mbeir.recognises, mbeir.MBeir),
    "clueweb22-mm": Format(clueweb.recognises, clueweb.ClueWeb),
    "jsonl": Format(jsonl.recognises, jsonl.JsonlReader),
    "lines": Format(lines.recognises, lines.LinesReader),
    "parquet": Format(parquet.recognises, parquet.ParquetReader),
}
"""Formats by name (those of `ciea_hf.choices`), in the order in which they are tried; WebQA-Image only by name."""

BUILT_IN = {"demo": "ciea_hf.data.builders.openmoji.build"}
"""Data sets known by name, and the builder of each: a module with `benchmark_folder()` and `vocabulary()`."""

_ON_DISK = frozenset(FORMATS) - {"parquet"}  # parquet may be on the Hub
_FOLDERS = _ON_DISK - {"mbeir", "lines"}  # these may be a single file

_corpora: WeakValueDictionary[tuple[object, ...], datasets.Dataset] = WeakValueDictionary()


FILES = {
    "webqa": "all_imgs.json, imgs.tsv, imgs.lineidx.new",
    "webqa-original": "WebQA_train_val.json, imgs.tsv, imgs.lineidx",
    "edis": "EDIS_*.json",
    "mbeir": "*_cand_pool.jsonl",
    "clueweb22-mm": "image.parquet, text.parquet",
    "jsonl": "corpus.jsonl (or .jsonl.gz, .json), queries.jsonl, qrels/SPLIT.tsv",
    "lines": "JSON lines or parquet with (query, pos, neg), (query, positive_passages) or (anchor, positive, negative)",
    "parquet": "corpus/*.parquet, queries/*.parquet, qrels/*.parquet",
}
"""Files by which each format is recognised, for the error if none is."""


def open_reader(
    path_or_id: str | Path,
    format: str = "auto",  # noqa: A002
    report: IssueHandler = raise_on_error,
    image_root: str | Path | None = None,
) -> DatasetReader:
    """Open a data set for streaming.

    Args:
        path_or_id: Folder, file, or id of a data set on the Hugging Face Hub; or `"demo"`, the embedded benchmark.
        format: A key of `FORMATS`, or `"auto"` for the first one that recognises the path.
        report: Handler of issues; by default errors are raised.
        image_root: Folder of the images of JSON lines and parquet files; the data set's own if `None`. Images outside
            it are issues.

    Raises:
        FileNotFoundError: If the path does not exist.
        ValueError: If the format is unknown or not recognised.
    """
    path = _path_of(path_or_id)
    reader = _open(_format_of(path, format), path, report)
    reader.image_root = None if image_root is None else Path(image_root).resolve()
    return reader


def load_retrieval_dataset(
    path_or_id: str | Path,
    split: str | None = "test",
    format: str = "auto",  # noqa: A002
    image_root: str | Path | None = None,
) -> RetrievalDataset:
    """Load one split of a retrieval data set.

    Images stay on disk until they are decoded. Splits with a common corpus share it in memory.

    Args:
        path_or_id: Folder, file, or id of a data set on the Hugging Face Hub; or `"demo"`, the embedded benchmark.
        split: `"train"`, `"dev"`, `"test"` or another split of the data set; `None` for the corpus without queries,
            which may then be missing.
        format: A key of `FORMATS`, or `"auto"` for the first one that recognises the path.
        image_root: Folder of the images of JSON lines and parquet files; the data set's own if `None`.

    Raises:
        FileNotFoundError: If the path does not exist or a file is missing.
        ValueError: If the format is unknown or not recognised, the split does not exist, or the data are invalid; the
            message names file, line and id.
    """
    path = _path_of(path_or_id)
    chosen = _format_of(path, format)
    reader = open_reader(path, chosen, image_root=image_root)
    if split is not None and split not in reader.splits:
        raise no_split(reader, split)
    name = reader.corpus_name(SHARED_SPLIT if split is None else split)
    key = (chosen, path, name, reader.image_root, *map(_state, reader.corpus_files(name)))
    corpus = _corpora.get(key)
    dataset = build_dataset(reader, split, corpus)
    _corpora[key] = dataset.corpus
    if path_or_id in BUILT_IN:
        words = importlib.import_module(BUILT_IN[str(path_or_id)]).vocabulary()
        dataset = dataclasses.replace(dataset, vocabulary=tuple(words))
    return dataset


def _path_of(path_or_id: str | Path) -> str:
    """Return a path or id; a built-in data set is built on its first use."""
    if path_or_id in BUILT_IN:
        return str(importlib.import_module(BUILT_IN[str(path_or_id)]).benchmark_folder())
    return str(path_or_id)


def _open(form: str, path: str, report: IssueHandler) -> DatasetReader:
    """Open a path in a format, after checking that it exists."""
    if form in _ON_DISK and not Path(path).exists():
        raise FileNotFoundError(f"`path_or_id`: {path!r} not found")
    if form in _FOLDERS and Path(path).is_file():
        raise NotADirectoryError(f"`path_or_id`: {path!r} is a file; format {form!r} requires a folder")
    return FORMATS[form].open(path, report)


def _format_of(path: str, name: str) -> str:
    if name != "auto":
        if name not in FORMATS:
            raise ValueError(f"`format` must be 'auto' or one of {', '.join(FORMATS)}; got {name!r}")
        return name
    for candidate, form in FORMATS.items():
        if form.recognises(path):
            return candidate
    if not Path(path).exists():
        raise FileNotFoundError(f"`path_or_id`: {path!r} not found, and not a data set id such as 'owner/name'")
    known = "; ".join(f"{name}: {files}" for name, files in FILES.items())
    raise ValueError(
        f"`path_or_id`: the format of {path!r} is not recognised; set `format` to one of {', '.join(FORMATS)}, or "
        f"provide the files of one: {known}"
    )


def _state(file: Path) -> tuple[object, ...]:
    """Return values that change when a file changes."""
    status = file.stat()
    return str(file), status.st_size, status.st_mtime_ns
