"""Check of a data set: reads all of it once and reports all issues."""

from __future__ import annotations

import hashlib
import warnings
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image
from tqdm.auto import tqdm

from ciea_hf.data.check_result import CheckedSplit, CheckResult, IssueCollector
from ciea_hf.data.dataset import SHARED_SPLIT
from ciea_hf.data.images import UNAVAILABLE, EncodedImage, TsvLine, decode_image, image_bytes
from ciea_hf.data.readers.base import chosen_splits, qrels_of, unique_documents, unique_queries
from ciea_hf.utils import prefetch_map

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ciea_hf.data.issues import Location
    from ciea_hf.data.readers.base import DatasetReader
    from ciea_hf.data.readers.fields import Query


class _Job(NamedTuple):
    location: Location
    id: str
    image: EncodedImage | TsvLine


class _Outcome(NamedTuple):
    job: _Job
    kind: str | None
    message: str
    digest: bytes


class Checker:
    """Reads all of a data set once and collects its issues.

    Args:
        reader: Reader of the data set; if its handler is an [`IssueCollector`], that one is used.
        workers: Number of threads that decode images in addition to the reading thread.
        progress: Whether to show progress bars.
    """

    def __init__(self, reader: DatasetReader, workers: int = 2, progress: bool = False) -> None:
        self.reader = reader
        self.workers = workers
        self.progress = progress
        self.issues = reader.report if isinstance(reader.report, IssueCollector) else IssueCollector(Path(reader.path))
        reader.report = self.issues
        self.result = CheckResult(self.issues)
        self._known: dict[str, set[str]] = {}
        self._first: dict[str, dict[str, str]] = {}  # per corpus: repeated image -> first image

    def run(self, splits: Iterable[str] | None = None) -> CheckResult:
        """Check splits (all if `None`) and their corpora, or a corpus without queries.

        Raises:
            ValueError: If a split does not exist.
        """
        alone = splits is None and not self.reader.splits
        chosen = [] if alone else chosen_splits(self.reader, splits)
        for corpus in dict.fromkeys(map(self.reader.corpus_name, [SHARED_SPLIT] if alone else chosen)):
            self._check_corpus(corpus)
        for split in chosen:
            self._check_split(split)
        for number, split in enumerate(chosen):
            self._check_leaks(split, chosen[number + 1 :])
            self._check_shared_positives(split, chosen[number + 1 :])
        return self.result

    def _check_corpus(self, corpus: str) -> None:
        unusable = self.result.unusable.setdefault(corpus, set())
        jobs = self._read_documents(corpus, unusable)
        if self.reader.images is not None:
            jobs = self._read_lines({job.id for job in jobs}, unusable)
        first: dict[bytes, str] = {}
        same = self._first.setdefault(corpus, {})
        for job, kind, message, digest in prefetch_map(_examined, jobs, self.workers):
            if kind is not None:
                self.issues(kind, job.location, job.id, message)
                unusable.add(job.id)
                continue
            unusable.discard(job.id)  # the indexed line of an image comes last and decides
            if first.setdefault(digest, job.id) != job.id:
                self.issues("same-image", job.location, job.id, f"identical to image {first[digest]!r}")
                same[job.id] = first[digest]

    def _read_documents(self, corpus: str, unusable: set[str]) -> Iterator[_Job]:
        """Read the documents and yield their images."""
        known = self._known.setdefault(corpus, set())
        kinds: Counter[str] = Counter()
        texts: dict[int, str] = {}
        bar = tqdm(unique_documents(self.reader, corpus), desc=corpus, unit="doc", disable=not self.progress)
        for document in bar:
            known.add(document.id)
            kinds["texts" if document.image is None else "images"] += 1
            if document.image is None and document.text:
                same = texts.setdefault(hash(document.text), document.id)
                if same != document.id:
                    self.issues("same-text", document.location, document.id, f"equal to text {same!r}")
            if document.image is UNAVAILABLE or (document.image is None and not document.text):
                unusable.add(document.id)
            if document.image is not None and (document.image is not UNAVAILABLE or self.reader.images is not None):
                yield _Job(document.location, document.id, document.image)
        self.result.counts |= {f"{corpus}: {kind}": count for kind, count in sorted(kinds.items())}

    def _read_lines(self, captioned: set[str], unusable: set[str]) -> Iterator[_Job]:
        """Read a TSV file of images, compare it with its index, and yield the images that captions refer to."""
        images = self.reader.images
        if images is None:
            return
        hit: set[str] = set()
        elsewhere: dict[str, TsvLine] = {}  # lines of images that the index misses
        size = images.file.stat().st_size
        with tqdm(total=size, desc=images.file.name, unit="B", unit_scale=True, disable=not self.progress) as bar:
            for line in images.lines():
                bar.update(line.offset - bar.n)
                indexed = self.reader.indexed(line.id)
                if indexed is not None and indexed[0] == line.offset:
                    hit.add(line.id)
                elif line.id in elsewhere or line.id in hit:
                    self.issues(
                        "line-not-indexed", line.location, line.id, "another line of an image that already exists"
                    )
                    continue
                else:
                    elsewhere[line.id] = line._replace(payload=b"")
                if line.id in captioned:
                    yield _Job(line.location, line.id, line)
        self._compare_index(hit, elsewhere, captioned, unusable)

    def _compare_index(
        self, hit: set[str], elsewhere: dict[str, TsvLine], captioned: set[str], unusable: set[str]
    ) -> None:
        """Report errors of the index, and record where the images actually are."""
        for name, (offset, location) in self.reader.index.items():
            line = elsewhere.pop(name, None)
            if name in hit:
                if line is not None:
                    self.issues("line-not-indexed", line.location, name, "the image has another line")
            elif line is None:
                self.issues(
                    "offset",
                    location,
                    name,
                    f"offset {offset} does not point at a line of the image, and the file has none",
                )
                unusable.add(name)
            else:
                message = f"offset {offset} does not point at the image's line, which begins at {line.offset}"
                self.issues("offset", location, name, f"{message} (line {line.location.number})")
                self.result.offsets[name] = line.offset
        for name in (*self.reader.index, *sorted(hit - self.reader.index.keys())):
            found = self.reader.indexed(name)
            if name not in captioned and found is not None:
                self.issues("unused-image", found[1], name, "no caption refers to the image")
        for name, line in elsewhere.items():
            self.issues("line-not-indexed", line.location, name, "the image is missing from the index")
            self.result.offsets[name] = line.offset

    def _check_split(self, split: str) -> None:
        corpus = self.reader.corpus_name(split)
        unusable = self.result.unusable[corpus]
        queries = {query.id: query for query in unique_queries(self.reader, split)}
        judged = qrels_of(self.reader, split, queries, self._known[corpus].__contains__)
        sound = {}
        for name, query in queries.items():
            row = judged.get(name, {})
            if not any(score > 0 for score in row.values()):
                self.issues("no-positive", query.location, name, "the query has no relevant document")
            sound[name] = {document: score for document, score in row.items() if document not in unusable}
        self.result.splits[split] = CheckedSplit(corpus, queries, {query: row for query, row in sound.items() if row})
        self.result.counts[f"{split}: queries"] = len(queries)
        self.result.counts[f"{split}: judgements"] = sum(map(len, judged.values()))

    def _check_leaks(self, split: str, later: list[str]) -> None:
        """Report queries and query ids that a later split uses again."""
        twins: dict[str, tuple[str, Query]] = {}
        namesakes: dict[str, tuple[str, Query]] = {}
        for other in later:
            for query in self.result.splits[other].queries.values():
                twins.setdefault(_plain(query.text), (other, query))
                namesakes.setdefault(query.id, (other, query))
        leaked = self.result.leaked.setdefault(split, set())
        for query in self.result.splits[split].queries.values():
            twin, namesake = twins.get(_plain(query.text)), namesakes.get(query.id)
            if twin:
                self.issues("leak", query.location, query.id, f"also occurs in {twin[0]}: {_named(twin[1])}")
                leaked.add(query.id)
            elif namesake:
                message = f"{namesake[0]} uses the id for another text: {_named(namesake[1])}"
                self.issues("reused-query-id", query.location, query.id, message)

    def _check_shared_positives(self, split: str, later: list[str]) -> None:
        """Report documents that, or whose image, are also relevant in a later split of the same corpus."""
        content = self.result.splits[split]
        first = self._first[content.corpus]
        positives: dict[str, tuple[str, str]] = {}
        for other in later:
            if self.result.splits[other].corpus == content.corpus:
                for names in self.result.splits[other].positives.values():
                    positives |= {first.get(document, document): (other, document) for document in names}
        for name, names in content.positives.items():
            for document in names:
                other, twin = positives.get(first.get(document, document), ("", ""))
                if other:
                    same = "it" if twin == document else f"the same image ({twin!r})"
                    message = f"{document!r} is relevant to the query, and {same} to one of {other}"
                    self.issues("shared-positive", content.queries[name].location, name, message)


def _named(query: Query) -> str:
    return f"{query.id!r} ({query.location._replace(file=Path(query.location.file).name)})"


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _examined(job: _Job) -> _Outcome:
    """Decode an image in a thread."""
    try:
        content = job.image.image() if isinstance(job.image, TsvLine) else image_bytes(job.image)
    except FileNotFoundError as error:
        message = f"file {error.filename} not found" if error.filename else str(error)
        return _Outcome(job, "missing-image", message, b"")
    except (OSError, ValueError) as error:
        return _Outcome(job, "unreadable-image", str(error).removeprefix(f"{job.location}: "), b"")
    digest = hashlib.blake2b(content, digest_size=16).digest()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            decode_image(content)
    except ValueError as error:
        large = any(words in str(error) for words in ("MAX_IMAGE_PIXELS", "decompression bomb"))
        kind = "large-image" if large else "unreadable-image"
        return _Outcome(job, kind, str(error), digest)
    return _Outcome(job, None, "", digest)
