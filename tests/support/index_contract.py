"""Documents, filters and an exact search in plain Python, against which every index is tested."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ciea_hf.retrieval import DocumentRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from ciea_hf.retrieval import Index, SearchResult

    Predicate = Callable[[dict[str, Any]], bool]

WIDTH = 32
SITES = ["wiki", "news", 'o\'brien "x" \\ %', "", "ümlaut"]


def documents(count: int, seed: int = 0, first: int = 0) -> tuple[NDArray[np.float32], list[DocumentRecord]]:
    """Unit vectors and records; some fields are missing from some documents."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(count, WIDTH)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    records = []
    for number in range(first, first + count):
        metadata: dict[str, Any] = {"site": SITES[number % 5], "price": number / 4, "used": number % 3 == 0}
        if number % 4:
            metadata["year"] = 2000 + number % 30
        kind = "image" if number % 2 else "text"
        records.append(DocumentRecord(f"d{number}", kind, None if number % 7 == 0 else f"text {number}", metadata))
    return rows, records


def queries(count: int = 5, seed: int = 1) -> NDArray[np.float32]:
    """Unit vectors."""
    return documents(count, seed)[0]


def value(record: DocumentRecord, field: str) -> Any:
    """A field of a document; `None` if it is missing."""
    own = {"id": record.id, "kind": record.kind, "modality": record.kind, "text": record.text}
    return own[field] if field in own else record.metadata.get(field)


FILTERS: list[tuple[dict[str, Any], Callable[[DocumentRecord], bool]]] = [
    ({"modality": "image"}, lambda d: d.kind == "image"),
    ({"kind": {"$ne": "image"}}, lambda d: d.kind == "text"),
    ({"year": 2010}, lambda d: value(d, "year") == 2010),
    ({"year": {"$gte": 2020}}, lambda d: (value(d, "year") or 0) >= 2020),
    ({"year": {"$gt": 2003, "$lt": 2006}}, lambda d: value(d, "year") in (2004, 2005)),
    ({"year": {"$ne": 2010}}, lambda d: value(d, "year") != 2010),
    ({"year": {"$nin": [2009, 2010]}}, lambda d: value(d, "year") not in (2009, 2010)),
    ({"year": {"$exists": False}}, lambda d: value(d, "year") is None),
    ({"price": {"$lte": 2.5}}, lambda d: value(d, "price") is not None and value(d, "price") <= 2.5),
    ({"used": True}, lambda d: value(d, "used") is True),
    ({"site": {"$in": ["wiki", "ümlaut"]}}, lambda d: value(d, "site") in ("wiki", "ümlaut")),
    ({"site": SITES[2]}, lambda d: value(d, "site") == SITES[2]),
    ({"site": ""}, lambda d: value(d, "site") == ""),
    ({"id": {"$in": ["d7", "d8", "absent"]}}, lambda d: d.id in ("d7", "d8")),
    ({"text": "text 11"}, lambda d: d.text == "text 11"),
    (
        {"modality": "image", "year": {"$gte": 2020}, "site": {"$in": ["wiki", "news"]}},
        lambda d: d.kind == "image" and (value(d, "year") or 0) >= 2020 and value(d, "site") in ("wiki", "news"),
    ),
    (
        {"$or": [{"year": {"$lt": 2002}}, {"$not": {"used": False}}]},
        lambda d: (value(d, "year") or 9999) < 2002 or value(d, "used") is not False,
    ),
    ({"year": "2010"}, lambda d: False),  # a text never equals a number
    ({"used": 1}, lambda d: False),
    ({"site": {"$in": []}}, lambda d: False),
]


def exact(
    vectors: NDArray[np.float32],
    records: Sequence[DocumentRecord],
    query: NDArray[np.float32],
    top_k: int,
    keep: Callable[[DocumentRecord], bool] = lambda d: True,
) -> list[tuple[str, float]]:
    """Ids and scores of the best documents, computed one by one."""
    scored = [
        (float(np.dot(vector.astype(np.float64), query.astype(np.float64))), record.id)
        for vector, record in zip(vectors, records, strict=True)
        if keep(record)
    ]
    return [(name, score) for score, name in sorted(scored, reverse=True)[:top_k]]


def assert_equal(result: SearchResult, expected: Sequence[Sequence[tuple[str, float]]]) -> None:
    """Compare a result with the exact one."""
    assert result.ids == [[name for name, _ in row] for row in expected]
    for scores, row in zip(result.scores, expected, strict=True):
        np.testing.assert_allclose(scores, [score for _, score in row], atol=2e-6)


def assert_exact(
    index: Index, vectors: NDArray[np.float32], records: Sequence[DocumentRecord], top_k: int = 10
) -> None:
    """Search without a filter and with all filters, and compare with the exact results."""
    asked = queries()
    assert_equal(index.search(asked, top_k), [exact(vectors, records, query, top_k) for query in asked])
    for condition, keep in FILTERS:
        expected = [exact(vectors, records, query, top_k, keep) for query in asked]
        assert_equal(index.search(asked, top_k, condition), expected)
