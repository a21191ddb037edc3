"""The corpus and its queries embedded as training reads them: the same part, tokens and cached features."""

from __future__ import annotations

import hashlib
import logging
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from ciea_hf.retrieval.fingerprint import model_fingerprint
from ciea_hf.training.loss.embedder import Embedder
from ciea_hf.training.run.dev_evaluator import embed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from ciea_hf.data import RetrievalDataset
    from ciea_hf.modeling.modeling_ciea import CIEAModel
    from ciea_hf.training.data.collator import Collator
    from ciea_hf.training.data.mining import ViewMaker
    from ciea_hf.training.data.reader import CorpusReader, DocumentInput

logger = logging.getLogger(__name__)


class TrainingEncoder:
    """A model behind ``encode_query`` and ``encode_document``, as :mod:`ciea_hf.retrieval` asks for them.

    Args:
        model: The model, on its device.
        collator: Tokenises as in training.
    """

    def __init__(self, model: CIEAModel, collator: Collator) -> None:
        self.model = model
        self.collator = collator
        self.device = model.device
        self._embedder = Embedder(model).train(False)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the weights and of how texts are cut."""
        settings = f"{model_fingerprint(self.model)} {self.collator.max_length} {sorted(self.collator.prompts.items())}"
        return hashlib.sha256(settings.encode()).hexdigest()[:32]

    def encode_query(self, inputs: Sequence[str], batch_size: int = 64, **_: Any) -> Tensor:
        """Embed queries, normalised."""
        parts = (inputs[start : start + batch_size] for start in range(0, len(inputs), batch_size))
        return torch.cat([embed(self._embedder, *self.collator.group_queries(part)) for part in parts])

    def encode_document(self, inputs: Sequence[DocumentInput], batch_size: int = 64, **_: Any) -> Tensor:
        """Embed documents, normalised."""
        found = []
        for start in range(0, len(inputs), batch_size):
            groups, places, _images = self.collator.group_documents(inputs[start : start + batch_size])
            found.append(embed(self._embedder, groups, places))
        return torch.cat(found)


class ReaderView:
    """A stretch of a corpus as :class:`TrainingEncoder` takes it, in place of a ``DocumentView``.

    Args:
        reader: Of the corpus.
        start: First row.
        stop: Row behind the last one.
        corpus_fingerprint: Of these documents.
        on_broken_image: ``"skip"`` leaves a document without an embedding, ``"fail"`` raises.
    """

    def __init__(
        self, reader: CorpusReader, start: int, stop: int, corpus_fingerprint: str, on_broken_image: str = "skip"
    ) -> None:
        self.reader = reader
        self.start = start
        self.stop = stop
        self.corpus_fingerprint = corpus_fingerprint
        self.on_broken_image = on_broken_image

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def fingerprint(self) -> str:
        """Hash of the documents and of the part that is read."""
        return hashlib.sha256(f"{self.corpus_fingerprint} read as {self.reader.part}".encode()).hexdigest()[:32]

    def batch(self, start: int, stop: int) -> list[DocumentInput | None]:
        """Read documents; None where an image cannot be decoded."""
        return [self._read(self.start + row) for row in range(start, stop)]

    def _read(self, row: int) -> DocumentInput | None:
        try:
            return self.reader.read(row)
        except (ValueError, FileNotFoundError) as error:
            identifier = self.reader.ids[row]
            if self.on_broken_image == "fail":
                raise type(error)(f"document {identifier!r}: {error}") from error
            logger.warning("document %r is not embedded: %s", identifier, error)
            return None


def views_of(reader: CorpusReader, on_broken_image: str = "skip") -> ViewMaker:
    """Views of a corpus, stretch by stretch, as mining asks for them."""

    def view(part: RetrievalDataset, start: int, stop: int) -> ReaderView:
        return ReaderView(reader, start, stop, part.corpus_fingerprint, on_broken_image)

    return view
