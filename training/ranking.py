"""The dev metric during training: queries rank the dev corpus; each process embeds, and keeps, its share of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from ciea_hf.evaluation.evaluator import judged_queries
from ciea_hf.evaluation.metrics import metrics_by_kind, ranking_metrics
from ciea_hf.training.distributed import gather, gather_sizes, process_rank, world_size

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from ciea_hf.data.dataset import RetrievalDataset
    from ciea_hf.modeling.modeling_ciea import CIEAModel
    from ciea_hf.training.batch import InputGroup
    from ciea_hf.training.collator import Collator
    from ciea_hf.training.examples import CorpusReader

DEPTH = 10
CUTOFFS = (1, 10)


class DevRanking:
    """Ranks a dev set with the model in training.

    Args:
        dataset: Queries and judgements.
        reader: Of its corpus, in the part that training reads.
        collator: Tokenises.
        batch_size: Inputs of a forward pass.
        limit: Rank so many documents at most: the relevant ones, and a sample of the others.
        seed: Of the sample.
    """

    def __init__(
        self,
        dataset: RetrievalDataset,
        reader: CorpusReader,
        collator: Collator,
        batch_size: int = 128,
        limit: int | None = None,
        seed: int = 0,
    ) -> None:
        self.dataset = dataset
        self.reader = reader
        self.collator = collator
        self.batch_size = batch_size
        self.queries = judged_queries(dataset)
        self.rows = self._chosen_rows(limit, seed)

    def __call__(self, model: CIEAModel) -> dict[str, float]:
        """Rank and score.

        Args:
            model: Not wrapped; every process has the same.

        Returns:
            MRR@10, NDCG@10 and Recall@1/10 over all queries, and MRR@10 by kind of positive (``"mrr@10/image"``); the
            same in every process.
        """
        training = model.training
        model.train(False)
        with torch.no_grad():
            queries = self._embed_queries(model)
            scores, rows = self._search(model, queries)
        model.train(training)
        run = {
            query: {self.reader.ids[row]: score for row, score in zip(places, values, strict=True) if row >= 0}
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

    def _embed_queries(self, model: CIEAModel) -> Tensor:
        texts = list(self.queries.values())
        found = torch.empty(len(texts), model.config.hidden_size, device=model.device)
        for start in range(0, len(texts), self.batch_size):
            groups, places = self.collator.group_queries(texts[start : start + self.batch_size])
            positions = torch.tensor(places, device=model.device) + start
            found[positions] = torch.cat([_embed(model, group) for group in groups])
        return F.normalize(found, dim=-1)

    def _search(self, model: CIEAModel, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Best scores and corpus rows of each query, (Q, DEPTH); a row of -1 is none."""
        scores = torch.full((len(queries), DEPTH), -torch.inf, device=queries.device)
        rows = torch.full((len(queries), DEPTH), -1, device=queries.device)
        for block, embeddings in self._document_blocks(model):
            scores, rows = _best(
                torch.cat([scores, queries @ embeddings.T], dim=1),
                torch.cat([rows, block.expand(len(queries), -1)], dim=1),
            )
        if world_size() > 1:
            sizes = [size[0] for size in gather_sizes([len(queries)], queries.device)]
            scores = torch.cat(gather(scores, sizes).chunk(world_size()), dim=1)
            rows = torch.cat(gather(rows, sizes).chunk(world_size()), dim=1)
            scores, rows = _best(scores, rows)
        return scores, rows

    def _document_blocks(self, model: CIEAModel) -> Iterator[tuple[Tensor, Tensor]]:
        """Rows and normalised embeddings of this process's share, block by block."""
        share = self.rows[process_rank() :: world_size()]
        for start in range(0, len(share), self.batch_size):
            documents = []
            for row in share[start : start + self.batch_size]:
                try:
                    documents.append(self.reader.read(row))
                except (ValueError, FileNotFoundError):  # a broken image cannot be found
                    continue
            if documents:
                groups, places, _ = self.collator.group_documents(documents)
                rows = torch.tensor([documents[place].row for place in places], device=model.device)
                yield rows, F.normalize(torch.cat([_embed(model, group) for group in groups]), dim=-1)


def _embed(model: CIEAModel, group: InputGroup) -> Tensor:
    group = group.to(model.device)
    output = model(
        input_ids=group.input_ids,
        attention_mask=group.attention_mask,
        pixel_values=group.pixel_values,
        vision_features=group.vision_features,
        return_dict=True,
    )
    embeddings: Tensor = output.embeddings.float()
    return embeddings


def _best(scores: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    values, places = scores.topk(DEPTH, dim=1)
    return values, rows.gather(1, places)


def headline(metrics: dict[str, float], names: Sequence[str] = ("mrr@10",)) -> str:
    """Write metrics as the progress bar shows them."""
    return " ".join(f"{name} {metrics[name]:.4f}" for name in names)
