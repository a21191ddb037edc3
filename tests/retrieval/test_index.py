from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from ciea_hf.retrieval.index import FlatIndex, inner_products, top_k_with_ties

if TYPE_CHECKING:
    from pathlib import Path

    from ciea_hf.retrieval.index import SearchResult


def integer_vectors(seed: int, rows: int, width: int = 4) -> torch.Tensor:
    """Vectors with small integer entries: products are exact and ties are frequent."""
    return torch.randint(-2, 3, (rows, width), generator=torch.Generator().manual_seed(seed)).float()


def oracle(queries: torch.Tensor, documents: torch.Tensor, ids: list[str], k: int) -> list[list[tuple[str, float]]]:
    rows = []
    for query in queries:
        scores = {name: float(query @ document) for name, document in zip(ids, documents, strict=True)}
        rows.append(sorted(scores.items(), key=lambda item: (item[1], item[0]), reverse=True)[:k])
    return rows


def found(index: FlatIndex, result: SearchResult) -> list[list[tuple[str, float]]]:
    return [
        [(index.ids[p], s) for s, p in zip(scores.tolist(), positions.tolist(), strict=True)]
        for scores, positions in zip(*result, strict=True)
    ]


@pytest.mark.parametrize("cuts", [[], [7], [1, 30, 31]])
@pytest.mark.parametrize("block_size", [5, 1000])
@pytest.mark.parametrize("top_k", [1, 6, 100])
def test_search_equals_a_full_sort_with_ties(cuts: list[int], block_size: int, top_k: int) -> None:
    documents, queries = integer_vectors(0, 60), integer_vectors(1, 11)
    ids = [f"d{i * 7919 % 1000}" for i in range(60)]
    shards = [shard.numpy() for shard in documents.tensor_split(cuts)]
    index = FlatIndex(shards, ids, block_size=block_size, query_block_size=4)
    expected = oracle(queries, documents, ids, top_k)
    assert found(index, index.search(queries, top_k)) == expected
    if top_k == 6:
        scores = queries @ documents.T
        assert ((scores >= scores.topk(6).values[:, -1:]).sum(1) > 6).any(), "the case must hold ties at the cut-off"


def test_half_precision_memory_map_is_scored_in_fp32(tmp_path: Path) -> None:
    documents = np.random.default_rng(0).normal(size=(20, 8)).astype(np.float16)
    np.save(tmp_path / "d.npy", documents)
    queries = np.random.default_rng(1).normal(size=(3, 8)).astype(np.float32)
    index = FlatIndex(np.load(tmp_path / "d.npy", mmap_mode="r"), [str(i) for i in range(20)])
    scores, positions = index.search(queries, 20)
    exact = queries @ documents.astype(np.float32).T
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, np.take_along_axis(exact, positions, axis=1), atol=1e-6)


def test_top_k_keeps_the_higher_rank_at_the_cutoff() -> None:
    scores = torch.tensor([[1.0, 1.0, 1.0, 2.0]])
    values, columns = top_k_with_ties(scores, torch.tensor([0, 2, 1, 3]), 2)
    assert set(columns[0].tolist()) == {3, 1}
    assert values[0].tolist() == [2.0, 1.0]


def test_empty_index_finds_nothing() -> None:
    scores, positions = FlatIndex([], []).search(torch.ones(2, 3), 5)
    assert scores.shape == positions.shape == (2, 0)


def test_bad_arguments_are_named() -> None:
    index = FlatIndex(torch.eye(3), ["a", "b", "c"])
    with pytest.raises(ValueError, match="equally many; got 3 and 2"):
        FlatIndex(torch.eye(3), ["a", "b"])
    with pytest.raises(ValueError, match="`ids` must be unique; 'a'"):
        FlatIndex(torch.eye(2), ["a", "a"])
    with pytest.raises(ValueError, match="must have one width"):
        FlatIndex([torch.eye(2), torch.eye(3)], list("abcde"))
    with pytest.raises(ValueError, match="`top_k` must be at least 1"):
        index.search(torch.eye(3), 0)
    with pytest.raises(ValueError, match=r"\(queries, 3\)"):
        index.search(torch.eye(4), 1)


@pytest.mark.parametrize("documents", [1, 5, 6, 7, 63, 64, 65, 130])
def test_equal_documents_score_alike_at_every_position(documents: int) -> None:
    rng = torch.Generator().manual_seed(0)
    queries, one = torch.randn(3, 100, generator=rng), torch.randn(1, 100, generator=rng)
    scores = inner_products(queries, one.repeat(documents, 1))
    assert scores.shape == (3, documents)
    assert torch.equal(scores, scores[:, :1].expand_as(scores))
    torch.testing.assert_close(scores[:, :1], queries @ one.T)
