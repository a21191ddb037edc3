"""Hard negatives: selection from rankings, writing and reading."""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ciea_hf.data.copies import with_copies
from ciea_hf.files import atomic_write
from ciea_hf.training.values import check_window
from ciea_hf.utils import import_optional

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ciea_hf.data.dataset import RetrievalDataset

KINDS = ("image", "text")
FILE = "negatives.parquet"
COLUMNS = ("query-id", "corpus-id", "kind", "rank")
REPORTED = (
    "queries", "relevant", "candidates", "kept", "dropped: outside the window", "dropped: score too high",
    "dropped: beyond the quota",
)  # fmt: skip


@dataclass(frozen=True)
class MiningOptions:
    """Options of the selection.

    Attributes:
        depth: Number of best documents considered per query, positives excluded.
        window: Range of ranks (start, end), from 0 and end-exclusive, from which negatives are drawn.
        images: Maximum number of negatives with an image per query.
        texts: Maximum number of negatives without an image per query.
        relative_margin: Drop documents scoring above the best positive's score times `1 - relative_margin`.
        max_score: Drop documents scoring above this.
        seed: Seed of the random draw within the window.

    Raises:
        ValueError: If a value is invalid.
    """

    depth: int = 100
    window: tuple[int, int] = (0, 100)
    images: int = 10
    texts: int = 10
    relative_margin: float | None = None
    max_score: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, minimum in (("depth", 1), ("images", 0), ("texts", 0)):
            if getattr(self, name) < minimum:
                raise ValueError(f"`{name}` must be at least {minimum}; got {getattr(self, name)}")
        check_window("window", self.window, "depth", self.depth)
        if not self.images and not self.texts:
            raise ValueError("`images` and `texts` are both 0: no negative would be kept")
        for name, bound in (("relative_margin", self.relative_margin), ("max_score", self.max_score)):
            if bound is not None and not math.isfinite(bound):
                raise ValueError(f"`{name}` must be a finite number; got {bound}")


@dataclass
class MinedNegatives:
    """Result of mining.

    Attributes:
        by_query: Query id to kind to document ids, best first.
        report: Number of candidates seen, kept, and dropped by reason.
    """

    by_query: dict[str, dict[str, list[str]]]
    report: dict[str, int] = field(default_factory=dict)


def choose_negatives(
    rankings: Iterable[tuple[str, Sequence[tuple[str, float]]]],
    dataset: RetrievalDataset,
    options: MiningOptions,
    positive_scores: Mapping[str, float] | None = None,
) -> MinedNegatives:
    """Choose negatives from rankings.

    Args:
        rankings: Pairs of a query id and its ranking: (document id, score), best first.
        dataset: Judgements and kinds of documents.
        options: Options of the selection.
        positive_scores: Query id to the score of its best positive, for `relative_margin`.

    Returns:
        The negatives and a report, in which `candidates` is the sum of `kept` and everything `dropped`. Documents
        relevant to the query, and their copies under other ids, are not candidates.
    """
    quotas = {"image": options.images, "text": options.texts}
    report: Counter[str] = Counter(dict.fromkeys(REPORTED, 0))
    found: dict[str, dict[str, list[str]]] = {}
    copies = dataset.copies
    for query, ranking in rankings:
        relevant = with_copies(dataset.relevant(query), copies)
        limit = _score_limit(options, (positive_scores or {}).get(query))
        others = [pair for pair in ranking if pair[0] not in relevant][: options.depth]
        within = others[slice(*options.window)]
        kept = [document for document, score in within if score <= limit]
        rng = random.Random(f"{options.seed}-{query}")
        found[query] = {kind: _draw(kept, kind, quotas[kind], dataset, rng) for kind in KINDS}
        chosen = sum(map(len, found[query].values()))
        report["queries"] += 1
        report["relevant"] += sum(document in relevant for document, _ in ranking)
        report["candidates"] += len(others)
        report["dropped: outside the window"] += len(others) - len(within)
        report["dropped: score too high"] += len(within) - len(kept)
        report["dropped: beyond the quota"] += len(kept) - chosen
        report["kept"] += chosen
        for kind in KINDS:
            report[f"queries short of {kind}s"] += len(found[query][kind]) < quotas[kind]
    return MinedNegatives(found, dict(report))


def save_negatives(negatives: MinedNegatives, path: str | Path) -> Path:
    """Write negatives as parquet with the columns `query-id`, `corpus-id`, `kind` and `rank`.

    Args:
        negatives: Mined negatives.
        path: Folder, or a file ending in `.parquet`.

    Returns:
        Path of the file.
    """
    pyarrow = import_optional("pyarrow", extra="train")
    parquet = import_optional("pyarrow.parquet", extra="train")
    target = Path(path) if str(path).endswith(".parquet") else Path(path) / FILE
    rows = [
        (query, document, kind, rank)
        for query, kinds in negatives.by_query.items()
        for kind, documents in kinds.items()
        for rank, document in enumerate(documents)
    ]
    columns = list(zip(*rows, strict=True)) or [()] * len(COLUMNS)
    types = (pyarrow.string(), pyarrow.string(), pyarrow.string(), pyarrow.int32())
    arrays = {name: pyarrow.array(column, kind) for name, column, kind in zip(COLUMNS, columns, types, strict=True)}
    with atomic_write(target) as temporary:
        parquet.write_table(pyarrow.table(arrays), temporary)
    return target


def load_negatives(path: str | Path, kinds: Mapping[str, str]) -> dict[str, dict[str, list[int]]]:
    """Read negatives.

    Args:
        path: File, or the folder that contains it.
        kinds: Kind of every document of the corpus that was mined, in the order of its rows.

    Returns:
        Query id to kind to corpus rows, best first.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file has another form, a document is not in the corpus, or the kind of a document is wrong.
    """
    target = Path(path) / FILE if Path(path).is_dir() else Path(path)
    if not target.is_file():
        raise FileNotFoundError(f"mined negatives not found at {target}: run stage `mine` first, or set `negatives`")
    rows = {identifier: row for row, identifier in enumerate(kinds)}
    found: dict[str, dict[str, list[int]]] = {}
    for entry in sorted(_read_entries(target), key=lambda entry: entry[3]):
        query, document, kind, _ = entry
        if document not in rows:
            raise ValueError(f"{target}: document {document!r} is not in the corpus")
        if kind != kinds[document]:
            choices = f"must be one of {', '.join(KINDS)}" if kind not in KINDS else f"is {kinds[document]!r}"
            raise ValueError(f"{target}: kind of document {document!r} {choices}; got {kind!r}")
        found.setdefault(query, {}).setdefault(kind, []).append(rows[document])
    return found


def _read_entries(path: Path) -> list[tuple[str, str, str, int]]:
    """Read the rows of a negatives file, after checking its columns and their types."""
    pyarrow = import_optional("pyarrow", extra="train")
    parquet = import_optional("pyarrow.parquet", extra="train")
    try:
        schema = parquet.read_schema(path)
        missing = [name for name in COLUMNS if name not in schema.names]
        table = parquet.read_table(path, columns=[name for name in COLUMNS if name not in missing])
    except (pyarrow.ArrowException, ValueError, OSError) as error:
        raise ValueError(f"{path} cannot be read as parquet: {' '.join(str(error).split())[:300]}") from error
    if missing:
        raise ValueError(
            f"{path}: the columns of mined negatives are {', '.join(COLUMNS)}; missing: {', '.join(missing)}; "
            f"found: {', '.join(schema.names)[:200]}"
        )
    return list(zip(*(_column(path, name, table[name]) for name in COLUMNS), strict=True))


def _column(path: Path, name: str, column: Any) -> list[Any]:
    """Return the values of a column, which are integers for the rank and strings for the others."""
    types = import_optional("pyarrow", extra="train").types
    kind = column.type.value_type if types.is_dictionary(column.type) else column.type
    if name == "rank":
        expected, is_right = "integer", types.is_integer(kind)
    else:
        expected = "string"
        is_right = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
    if not is_right:
        raise ValueError(f"{path}: column {name!r} must be of type {expected}; got {column.type}")
    if column.null_count:
        raise ValueError(f"{path}: column {name!r} has {column.null_count} empty values")
    values: list[Any] = column.to_pylist()
    return values


def _score_limit(options: MiningOptions, positive: float | None) -> float:
    limits = [float("inf") if options.max_score is None else options.max_score]
    if options.relative_margin is not None and positive is not None:
        limits.append(positive - abs(positive) * options.relative_margin)
    return min(limits)


def _draw(documents: Sequence[str], kind: str, quota: int, dataset: RetrievalDataset, rng: random.Random) -> list[str]:
    """Draw documents of one kind at random up to the quota, in the order of the ranking."""
    ranks = [i for i, document in enumerate(documents) if dataset.document_kinds[document] == kind]
    return [documents[i] for i in sorted(rng.sample(ranks, min(quota, len(ranks))))]
