"""The dev metric during training: queries rank the dev corpus; each process embeds, and keeps, its share of it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ciea_hf.evaluation.evaluator import judged_queries
from ciea_hf.evaluation.metrics import metrics_by_kind, ranking_metrics
from ciea_hf.retrieval.index import id_ranks, inner_products, top_k_with_ties
from ciea_hf.training.distributed import gather_objects, process_rank, world_size

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from torch import nn

    from ciea_hf.data.dataset import RetrievalDataset
    from ciea_hf.training.data.batch import InputGroup
    from ciea_hf.training.data.collator import Collator
    from ciea_hf.training.data.reader import CorpusReader

    Best = tuple[NDArray[np.float32], NDArray[np.int64]]
    """Scores and corpus rows of the best documents of each query, best first, (queries, DEPTH) or fewer."""

logger = logging.getLogger(__name__)

DEPTH = 10
CUTOFFS = (1, 10)


class DevEvaluator:
    """Ranks a dev set with the model in training.

    Args:
        dataset: Queries and judgements.
        reader: Of its corpus, in the part that training reads.
        collator: Tokenises; documents are embedded in passes of its choice.
        batch_size: Inputs of a forward pass.
        limit: Rank so many documents at most: the relevant ones, and a sample of the others.
        seed: Of the sample.
        workers: Processes that decode images and tokenise.
    """

    def __init__(
        self,
        dataset: RetrievalDataset,
        reader: CorpusReader,
        collator: Collator,
        batch_size: int = 128,
        limit: int | None = None,
        seed: int = 0,
        workers: int = 0,
    ) -> None:
        self.dataset = dataset
        self.reader = reader
        self.collator = collator
        self.batch_size = batch_size
        self.workers = workers
        self.queries = judged_queries(dataset)
        self.rows = self._chosen_rows(limit, seed)
        self.broken: set[str] = set()
        self._ranks = id_ranks(reader.ids)

    def __call__(self, embedder: nn.Module) -> dict[str, float]:
        """Rank and score; every process has to call this.

        Args:
            embedder: The :class:`Embedder` as Accelerate has wrapped it; every process has the same weights.

        Returns:
            MRR@10, NDCG@10 and Recall@1/10 over all queries, and MRR@10 by kind of positive (``"mrr@10/image"``); the
            same in every process.
        """
        training = embedder.training
        embedder.train(False)
        scores, rows = self._search(embedder, self._embed_queries(embedder))
        embedder.train(training)
        run = {
            query: {self.reader.ids[row]: score for row, score in zip(places, values, strict=True)}
            for query, places, values in zip(self.queries, rows.tolist(), scores.tolist(), strict=True)
        }
        metrics = ranking_metrics(run, self.dataset.qrels, CUTOFFS)
        kinds = metrics_by_kind(run, self.dataset.qrels, self.dataset.query_kinds(), CUTOFFS)
        by_kind = {f"mrr@10/{kind}": values["mrr@10"] for kind, values in kinds.items()} if len(kinds) > 1 else {}
        return {name: metrics[name] for name in ("mrr@10", "ndcg@10", "recall@1", "recall@10")} | by_kind

    def _chosen_rows(self, limit: int | None, seed: int) -> list[int]:
        usable = [row for row in range(len(self.reader)) if self.reader.usable(row)]
        if limit is None or limit >= len(usable):
            return usable
        judged = {document for judgements in self.dataset.qrels.values() for document in judgements}
        relevant = [row for row in usable if self.reader.ids[row] in judged]
        others = [row for row in usable if self.reader.ids[row] not in judged]
        sample = np.random.default_rng(seed).permutation(len(others))[: max(limit - len(relevant), 0)]
        return sorted(relevant + [others[i] for i in sample.tolist()])

    def _embed_queries(self, embedder: nn.Module) -> Tensor:
        texts = list(self.queries.values())
        blocks = []
        for start in range(0, len(texts), self.batch_size):
            groups, places = self.collator.group_queries(texts[start : start + self.batch_size])
            blocks.append(embed(embedder, groups, places))
        return torch.cat(blocks)

    def _search(self, embedder: nn.Module, queries: Tensor) -> Best:
        """Best scores and corpus rows of each query; equal scores go to the higher id, as in the final evaluation."""
        best = (np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64))
        for rows, embeddings in self._document_blocks(embedder):
            scores, columns = top_k_with_ties(
                inner_products(queries, embeddings), self._ranks[rows].to(queries.device), DEPTH
            )
            best = self._merge([best, (scores.cpu().numpy(), rows.numpy()[columns.cpu().numpy()])])
        return self._merge(gather_objects(best))

    def _merge(self, parts: Sequence[Best]) -> Best:
        scores, rows = (np.concatenate(arrays, axis=1) for arrays in zip(*parts, strict=True))
        order = np.lexsort((self._ranks.numpy()[rows], scores), axis=1)[:, ::-1][:, :DEPTH]
        return np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)

    def _document_blocks(self, embedder: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
        """Rows and normalised embeddings of this process's share, block by block."""
        share = self.rows[process_rank() :: world_size()]
        count = -(-len(self.rows) // world_size() // self.batch_size)
        blocks = DocumentBlocks(share, self.batch_size, self.reader, self.collator, count)
        # with a generator of its own, so that evaluating leaves the run's random state alone
        loader = DataLoader(blocks, batch_size=None, num_workers=self.workers, generator=torch.Generator())
        for rows, groups, broken in loader:
            for identifier in broken.keys() - self.broken:
                logger.warning("dev document %r is left out of the ranking: %s", identifier, broken[identifier])
                self.broken.add(identifier)
            yield rows, embed(embedder, groups, range(len(rows)))


class DocumentBlocks(Dataset[tuple[Tensor, list["InputGroup"], dict[str, str]]]):
    """Documents as the passes that embed them: the corpus rows in the order of the passes, the passes, what is broken.

    Args:
        rows: Of the documents.
        block_size: Documents of a block.
        reader: Of the corpus.
        collator: Tokenises.
        count: How many blocks there are, the last ones empty if need be: every process embeds equally many.
    """

    def __init__(
        self, rows: Sequence[int], block_size: int, reader: CorpusReader, collator: Collator, count: int
    ) -> None:
        self.blocks = [rows[number * block_size : (number + 1) * block_size] for number in range(count)]
        self.reader = reader
        self.collator = collator

    def __len__(self) -> int:
        return len(self.blocks)

    def __getitem__(self, number: int) -> tuple[Tensor, list[InputGroup], dict[str, str]]:
        """Read a block; a document whose image is broken cannot be found."""
        documents, broken = [], {}
        for row in self.blocks[number]:
            try:
                documents.append(self.reader.read(row))
            except (ValueError, FileNotFoundError) as error:
                broken[self.reader.ids[row]] = str(error)
        groups, places, _ = self.collator.group_documents(documents)
        return torch.tensor([documents[place].row for place in places], dtype=torch.long), groups, broken


def embed(embedder: nn.Module, groups: Sequence[InputGroup], places: Sequence[int]) -> Tensor:
    """Embed passes and bring the rows into the order of their inputs.

    Args:
        embedder: In evaluation mode.
        groups: The passes.
        places: The input that each row of them holds, as the collator gives it.

    Returns:
        (inputs, D), normalised, fp32.
    """
    with torch.no_grad():
        rows: Tensor = embedder(groups)[0]
    order = torch.empty(len(places), dtype=torch.long)
    order[torch.tensor(places, dtype=torch.long)] = torch.arange(len(places))
    return F.normalize(rows[order].float(), dim=-1)
