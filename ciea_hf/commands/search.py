"""Search a data set, or a folder that `ciea index` has written, with one or more queries.

The embeddings of a data set are kept in the cache (CIEA_HF_CACHE), so that the next search starts at once.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ciea_hf import loading
from ciea_hf.choices import CONTENT
from ciea_hf.commands import common

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from PIL import Image

    from ciea_hf.data import RetrievalDataset
    from ciea_hf.retrieval import EncodedCorpus, Encoder, Hit

HELP = "search a data set or an index"
EXAMPLES = """
  ciea search runs/ciea demo "a cat and a train" "tea in a red cup" --top-k 5 --contact-sheet results.png
  ciea search runs/ciea demo --query-id q17 --output hits.json    # queries of the data set, by id
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("model", metavar="MODEL", help=common.MODEL_HELP)
    parser.add_argument(
        "dataset", metavar="DATASET", help=f"{common.DATASET_HELP}; or a folder written by `ciea index`"
    )
    parser.add_argument("queries", metavar="QUERY", nargs="*", help="text of a query")
    parser.set_defaults(rest="queries")
    parser.add_argument(
        "--query-id", action="append", default=[], metavar="ID", help="query of the data set, by id; repeatable"
    )
    parser.add_argument("--top-k", type=common.positive, default=5, help="hits per query (default: 5)")
    parser.add_argument("--contact-sheet", type=Path, metavar="PNG", help="image file that shows the hits")
    parser.add_argument("--output", type=Path, metavar="JSON", help="file for the hits")
    parser.add_argument("--no-cache", action="store_true", help="do not keep the embeddings")
    common.add_dataset_arguments(parser)
    common.add_content_argument(parser)
    common.add_model_arguments(parser)
    common.add_encoding_arguments(parser)
    common.add_broken_image_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    """Search, print the hits and write the files."""
    from ciea_hf.retrieval import Retriever, load_corpus
    from ciea_hf.retrieval.corpus import is_encoded_corpus
    from ciea_hf.utils import write_json

    common.check_output("--output", arguments.output)
    common.check_output("--contact-sheet", arguments.contact_sheet)
    if not arguments.queries and not arguments.query_id:
        raise ValueError("give at least one QUERY, or --query-id")
    indexed = is_encoded_corpus(arguments.dataset)
    if indexed:
        _reject_index_options(arguments)
    model = loading.load_encoder(arguments.model, arguments.device)
    if indexed:
        corpus = load_corpus(arguments.dataset, model)
        dataset = _indexed_dataset(corpus) if arguments.contact_sheet or arguments.query_id else None
    else:
        dataset = loading.load_dataset(arguments.dataset, arguments.split, arguments.format, corpus_is_enough=True)
        corpus = _encode(model, dataset, arguments)
    queries = arguments.queries + _texts_of(dataset, arguments.query_id)
    retriever = Retriever.from_corpus(model, corpus, device=getattr(model, "device", None))
    found = retriever.search(queries, arguments.top_k, arguments.batch_size)
    relevant = [_relevant(dataset, query) for query in queries]
    for query, hits, known in zip(queries, found, relevant, strict=True):
        _write_hits(query, hits, known)
    if arguments.output:
        results = zip(queries, found, strict=True)
        write_json(arguments.output, [{"query": query, "hits": list(map(asdict, hits))} for query, hits in results])
    if arguments.contact_sheet:
        _draw(queries, found, relevant, dataset, arguments.contact_sheet)
    return 0


def _reject_index_options(arguments: argparse.Namespace) -> None:
    """Reject options whose values were fixed when the index was built."""
    parser = argparse.ArgumentParser()
    for add in (common.add_dataset_arguments, common.add_content_argument, common.add_broken_image_argument):
        add(parser)
    common.add_encoding_arguments(parser)
    for name, value in vars(parser.parse_args([])).items():
        if name != "workers" and getattr(arguments, name) != value:
            option = f"--{name.replace('_', '-')}"
            raise ValueError(
                f"{option} cannot be set for {arguments.dataset}: it was fixed by `ciea index` when the index was built"
            )


def _encode(model: Encoder, dataset: RetrievalDataset, arguments: argparse.Namespace) -> EncodedCorpus:
    from ciea_hf.retrieval import DocumentView, encode_corpus, model_fingerprint
    from ciea_hf.utils import cache_dir

    options = common.encoding_options(arguments)
    view = DocumentView(dataset, arguments.content, on_broken_image=arguments.on_broken_image)
    if arguments.no_cache:
        return encode_corpus(model, dataset, view=view, options=options)
    name = f"{model_fingerprint(model)[:16]}-{dataset.corpus_fingerprint[:16]}-{options.dtype}-{options.shard_size}"
    name += "" if view.content == "full" else f"-{view.content}"
    name += "" if view.on_broken_image == "fail" else f"-broken-{view.on_broken_image}"
    return encode_corpus(model, dataset, cache_dir() / "embeddings" / name, view, options)


def _indexed_dataset(corpus: EncodedCorpus) -> RetrievalDataset:
    from ciea_hf.retrieval import DocumentView

    source = corpus.source
    if "path" not in source:
        raise ValueError(
            "the index does not know the path of its data set, which --contact-sheet and --query-id require"
        )
    dataset = loading.load_dataset(source["path"], source["split"], source.get("format", "auto"), corpus_is_enough=True)
    if corpus.fingerprint not in (DocumentView(dataset, part).fingerprint for part in CONTENT):
        raise ValueError(f"{source['path']} has changed since it was indexed: run `ciea index` into another folder")
    return dataset


def _texts_of(dataset: RetrievalDataset | None, identifiers: Sequence[str]) -> list[str]:
    if dataset is None or not identifiers:
        return []
    texts = dataset.query_texts
    unknown = [name for name in identifiers if name not in texts]
    if unknown:
        raise ValueError(
            f"{dataset.name} ({dataset.split}) has no query {unknown[0]!r}; the first is {next(iter(texts), None)!r}"
        )
    return [texts[name] for name in identifiers]


def _relevant(dataset: RetrievalDataset | None, query: str) -> set[str]:
    """Return the ids of the documents relevant to a query, if the data set contains its text."""
    if dataset is None:
        return set()
    same = [name for name, text in dataset.query_texts.items() if text == query]
    return {document for name in same for document, score in dataset.qrels.get(name, {}).items() if score > 0}


def _write_hits(query: str, hits: Sequence[Hit], relevant: set[str]) -> None:
    common.write(f"\n{query}")
    for hit in hits:
        mark = "*" if hit.id in relevant else " "
        common.write(f"{mark}{hit.rank:3d}  {hit.score:.4f}  {hit.kind:5}  {hit.id}  {hit.text or ''}")


def _draw(
    queries: Sequence[str],
    found: Sequence[Sequence[Hit]],
    relevant: Sequence[set[str]],
    dataset: Any,
    path: Path,
) -> None:
    from ciea_hf.retrieval.gallery import GalleryRow, contact_sheet
    from ciea_hf.utils import atomic_write

    rows = [GalleryRow(*row) for row in zip(queries, found, relevant, strict=True)]
    sheet = contact_sheet(rows, _image_lookup(dataset))
    with atomic_write(path) as temporary:
        sheet.save(temporary, format="PNG")
    common.write(f"\n{path}")


def _image_lookup(dataset: RetrievalDataset) -> Callable[[str], Image.Image | None]:
    """Return a function that decodes the image of a document by id; None without one, or if it cannot be decoded."""
    from ciea_hf.retrieval import DocumentView

    view = DocumentView(dataset, "image", on_broken_image="skip")
    positions = {document: position for position, document in enumerate(view.ids)}

    def image_of(document: str) -> Image.Image | None:
        position = positions.get(document)
        if position is None or view.kinds[position] == "text":
            return None
        try:
            return view.image(position)
        except (ValueError, FileNotFoundError) as error:
            view.report_broken(position, error)
            return None

    return image_of
