"""Search a data set, or an index folder that `ciea index` has written, with one or more queries.

A query is a text, an image, or both. The embeddings of a data set are kept in the cache (CIEA_HF_CACHE), so that the
next search starts at once.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ciea_hf import loading
from ciea_hf.choices import INDEXES
from ciea_hf.commands import common, explain
from ciea_hf.commands.inputs import read_items
from ciea_hf.reporting import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ciea_hf.data import RetrievalDataset
    from ciea_hf.retrieval import DocumentView, Encoder, Hit, Retriever

HELP = "search a data set or an index"
EXAMPLES = """
  ciea search runs/ciea demo "a cat and a train" "tea in a red cup" --top-k 5 --contact-sheet results.png
  ciea search runs/ciea demo "in winter" --image bench.jpg              # an image and a text as one query
  ciea search runs/ciea big.index --queries queries.jsonl --output hits.jsonl
  ciea search runs/ciea big.index "a bridge" --where modality=image --where "year>=2020"
  ciea search runs/ciea demo --query-id q17                             # queries of the data set, by id
"""


class Query(NamedTuple):
    """A query: its name in outputs, what is embedded, and its text."""

    name: str
    content: Any
    text: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("model", metavar="MODEL", help=common.MODEL_HELP)
    parser.add_argument("dataset", metavar="DATASET", help=f"{common.DATASET_HELP}; or an index: folder or URL")
    parser.add_argument("text", metavar="QUERY", nargs="*", help="text of a query")
    parser.set_defaults(rest="text")
    parser.add_argument("--image", type=Path, metavar="FILE", help="image of a query, alone or with each QUERY")
    parser.add_argument("--queries", metavar="FILE", help="queries: .txt (a text per line), .jsonl (text, image), or -")
    parser.add_argument(
        "--query-id", action="append", default=[], metavar="ID", help="query of the data set, by id; repeatable"
    )
    parser.add_argument("--top-k", type=common.positive, default=5, help="hits per query (default: 5)")
    parser.add_argument("--filter", type=_json_object, metavar="JSON", help="conditions, such as '{\"year\": 2020}'")
    parser.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="condition, also with != > >= < <=; repeatable",
    )
    parser.add_argument("--hybrid", action="store_true", help="fuse with BM25 over texts and captions")
    parser.add_argument(
        "--index-type", dest="index", choices=INDEXES, default="auto", help="kind of index (default: auto)"
    )
    parser.add_argument("--contact-sheet", type=Path, metavar="PNG", help="image file that shows the hits")
    parser.add_argument(
        "--explain", type=Path, metavar="FOLDER", help="folder for a map of each image found: why it is"
    )
    parser.add_argument("--output", type=Path, metavar="JSONL", help="file for the hits, one JSON object per line")
    parser.add_argument("--no-cache", action="store_true", help="do not keep the embeddings")
    common.add_dataset_arguments(parser)
    common.add_content_argument(parser)
    common.add_model_arguments(parser)
    common.add_encoding_arguments(parser)
    common.add_broken_image_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    """Search, print the hits and write the files."""
    from ciea_hf.retrieval.filters import parse_filter, parse_where
    from ciea_hf.retrieval.folder import is_encoded_corpus
    from ciea_hf.retrieval.location import is_url

    common.check_output("--output", arguments.output)
    common.check_output("--contact-sheet", arguments.contact_sheet)
    conditions = [condition for condition in (arguments.filter, parse_where(arguments.where)) if condition]
    chosen = {"$and": conditions} if conditions else None
    parse_filter(chosen)
    if arguments.explain is not None:
        explain.check_folder(arguments.explain, arguments.content)
    queries = _queries(arguments)
    if not queries and not arguments.query_id:
        raise ValueError("give at least one QUERY, --image, --queries or --query-id")
    indexed = is_encoded_corpus(arguments.dataset)
    if not indexed and is_url(arguments.dataset):
        raise FileNotFoundError(f"{arguments.dataset} is not an index")
    if indexed:
        _reject_index_options(arguments)
    texts_alone = indexed and not arguments.explain and all(isinstance(query.content, str) for query in queries)
    model = loading.load_encoder(arguments.model, arguments.device, ("text",) if texts_alone else loading.KINDS)
    retriever, view = _open(model, arguments, indexed)
    dataset = None if view is None else view.dataset
    queries += _queries_of(dataset, arguments.query_id)
    contents = [query.content for query in queries]
    found = retriever.search(contents, arguments.top_k, arguments.batch_size, chosen)
    relevant = [_relevant(dataset, query.text) for query in queries]
    for query, hits, known in zip(queries, found, relevant, strict=True):
        common.write("\n" + _table(query.name, hits, known))
    if arguments.output:
        _write_hits(arguments.output, queries, found)
    if arguments.contact_sheet:
        _draw([query.name for query in queries], found, relevant, dataset, arguments.contact_sheet)
    if arguments.explain and view is not None:
        files = explain.explain_hits(model, contents, found, view, arguments.explain)
        common.write(f"\n{len(files)} maps: {arguments.explain}")
    return 0


def _open(model: Encoder, arguments: argparse.Namespace, indexed: bool) -> tuple[Retriever, DocumentView | None]:
    """Return the retriever, and the documents if they are needed."""
    from ciea_hf.retrieval import DocumentView, Retriever, encode_corpus, load_corpus
    from ciea_hf.retrieval.bm25 import KeywordIndex
    from ciea_hf.retrieval.indexes.syncing import open_index
    from ciea_hf.retrieval.location import local_path

    view = None
    device = getattr(model, "device", None)
    if indexed:
        folder: Path | None = local_path(arguments.dataset)
        corpus = load_corpus(arguments.dataset, model)
        index = open_index(arguments.dataset, None, arguments.index, device)  # the model has just been compared
        if arguments.contact_sheet or arguments.query_id or arguments.explain:
            view = loading.indexed_view(corpus)
    else:
        dataset = loading.load_dataset(arguments.dataset, arguments.split, arguments.format, corpus_is_enough=True)
        view = DocumentView(dataset, arguments.content, on_broken_image=arguments.on_broken_image)
        folder = None if arguments.no_cache else _cache_folder(model, view, arguments)
        corpus = encode_corpus(model, dataset, folder, view, common.encoding_options(arguments))
        index = corpus.index(arguments.index, device)
    keywords = KeywordIndex(corpus, folder) if arguments.hybrid else None
    return Retriever(model, index, keywords), view


def _queries(arguments: argparse.Namespace) -> list[Query]:
    if "-" in arguments.text:
        raise ValueError("QUERY must be a text; got '-': `--queries -` reads queries from standard input")
    image = arguments.image
    if image is not None and not image.is_file():
        raise FileNotFoundError(f"--image {image} {'is not a file' if image.exists() else 'not found'}")
    if image is None:
        found = [Query(text, text, text) for text in arguments.text]
    elif arguments.text:
        found = [Query(f"{text} ({image})", {"text": text, "image": image}, text) for text in arguments.text]
    else:
        found = [Query(str(image), image, "")]
    for item in read_items(arguments.queries) if arguments.queries else []:
        path = None if item.image is None else Path(item.image)
        name = item.text or item.image or ""
        if item.text is None:
            found.append(Query(name, path, ""))
        elif path is None:
            found.append(Query(name, item.text, item.text))
        else:
            found.append(Query(f"{name} ({path})", {"text": item.text, "image": path}, item.text))
    return found


def _json_object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise argparse.ArgumentTypeError(f"must be JSON: {error}") from error
    if not isinstance(found, dict):
        raise argparse.ArgumentTypeError(f"must be a JSON object of conditions by field; got {text!r}")
    return found


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


def _cache_folder(model: Encoder, view: DocumentView, arguments: argparse.Namespace) -> Path:
    from ciea_hf.retrieval import model_fingerprint
    from ciea_hf.utils import cache_dir, short_hash

    options = common.encoding_options(arguments)
    settings = [options.precision, options.truncate_dim, options.shard_size, view.on_broken_image]
    name = f"{model_fingerprint(model)[:16]}-{view.fingerprint[:16]}-{short_hash(json.dumps(settings), 8)}"
    return cache_dir() / "indexes" / name


def _queries_of(dataset: RetrievalDataset | None, identifiers: Sequence[str]) -> list[Query]:
    if dataset is None or not identifiers:
        return []
    texts = dataset.query_texts
    unknown = [name for name in identifiers if name not in texts]
    if unknown:
        raise ValueError(
            f"{dataset.name} ({dataset.split}) has no query {unknown[0]!r}; the first is {next(iter(texts), None)!r}"
        )
    return [Query(texts[name], texts[name], texts[name]) for name in identifiers]


def _relevant(dataset: RetrievalDataset | None, query: str) -> set[str]:
    """Return the ids of the documents relevant to a query, if the data set contains its text."""
    if dataset is None or not query:
        return set()
    same = [name for name, text in dataset.query_texts.items() if text == query]
    return {document for name in same for document, score in dataset.qrels.get(name, {}).items() if score > 0}


def _table(query: str, hits: Sequence[Hit], relevant: set[str]) -> str:
    width = max([len(hit.id) for hit in hits], default=0)
    lines = [query]
    for hit in hits:
        mark = "*" if hit.id in relevant else " "
        text = " ".join((hit.text or "").split())
        name = printable(hit.id, keep="")
        lines.append(f"{mark}{hit.rank:3d}  {hit.score:.4f}  {hit.kind:5}  {name:{width}}  {text}".rstrip())
    return "\n".join(lines if hits else [*lines, "    no hits"])


def _write_hits(path: Path, queries: Sequence[Query], found: Sequence[Sequence[Hit]]) -> None:
    from ciea_hf.files import atomic_write

    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for query, hits in zip(queries, found, strict=True):
            for hit in hits:
                file.write(json.dumps({"query": query.name, **asdict(hit)}, ensure_ascii=False) + "\n")


def _draw(
    queries: Sequence[str],
    found: Sequence[Sequence[Hit]],
    relevant: Sequence[set[str]],
    dataset: Any,
    path: Path,
) -> None:
    from ciea_hf.files import atomic_write
    from ciea_hf.retrieval.gallery import GalleryRow, contact_sheet
    from ciea_hf.retrieval.images import image_lookup

    rows = [GalleryRow(*row) for row in zip(queries, found, relevant, strict=True)]
    sheet = contact_sheet(rows, image_lookup(dataset))
    with atomic_write(path) as temporary:
        sheet.save(temporary, format="PNG")
    common.write(f"\n{path}")
