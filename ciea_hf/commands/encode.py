"""Embed texts, images, or images with captions, and write the matrix.

An input is an image, a folder of images, a .txt file (one text per line), a .jsonl file (one object per line with
"text", "image" (a path relative to the file) or both, and optionally "id"), or - for texts on standard input.

A .npy file holds the matrix (inputs, D) in the order of the inputs. A .safetensors file holds it as "embeddings", with
the ids as a JSON list in its metadata.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ciea_hf import loading
from ciea_hf.commands import common
from ciea_hf.commands.inputs import Item, read_items

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    import numpy as np

    from ciea_hf.retrieval.encoding import Encoder

HELP = "embed texts and images into a file"
EXAMPLES = """
  ciea encode runs/ciea photos/ --output photos.safetensors
  ciea encode runs/ciea documents.jsonl --output documents.npy
  ciea encode runs/ciea --text "a cat" --text "a dog" --as query --output queries.npy
"""
OUTPUTS = (".npy", ".safetensors")


class _QueryEncoder:
    """Embeds documents as queries."""

    def __init__(self, model: Encoder) -> None:
        self.encode_query = self.encode_document = model.encode_query
        self.preprocess_image = getattr(model, "preprocess_image", None)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("model", metavar="MODEL", help=common.MODEL_HELP)
    parser.add_argument("inputs", metavar="INPUT", nargs="*", help="image, folder, .txt or .jsonl file, or -")
    parser.set_defaults(rest="inputs")
    parser.add_argument("--text", action="append", default=[], metavar="TEXT", help="text to embed; repeatable")
    parser.add_argument(
        "--as", dest="role", choices=("document", "query"), default="document", help="kind of input (default: document)"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help=f"{' or '.join(OUTPUTS)} file")
    parser.add_argument("--truncate-dim", type=common.positive, metavar="D", help="keep the first D dimensions")
    parser.add_argument("--normalize", action="store_true", help="scale embeddings to unit length")
    common.add_workers_argument(parser)
    common.add_broken_image_argument(parser)
    common.add_model_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Embed and write."""
    if arguments.output.suffix not in OUTPUTS:
        raise ValueError(f"--output must end in {' or '.join(OUTPUTS)}; got {arguments.output}")
    if arguments.on_broken_image == "skip" and arguments.output.suffix == ".npy":
        raise ValueError("--on-broken-image skip requires a .safetensors --output, whose ids name the remaining inputs")
    common.check_output("--output", arguments.output)
    items = [item for name in arguments.inputs for item in read_items(name)]
    items += [Item(f"text-{number}", text) for number, text in enumerate(arguments.text)]
    if not items:
        raise ValueError("nothing to encode: give an INPUT or --text")
    repeated = [name for name, count in Counter(item.id for item in items).items() if count > 1]
    if repeated:
        raise ValueError(f"the id {repeated[0]!r} occurs twice in {', '.join(arguments.inputs)}")
    model = loading.load_encoder(arguments.model, arguments.device)
    embeddings, kept = _embed(model, items, arguments)
    _save(embeddings, [items[row].id for row in kept], arguments.output)
    common.write(f"{len(kept)} x {embeddings.shape[1]}: {arguments.output}")
    return 0


def _embed(
    model: Encoder, items: Sequence[Item], arguments: argparse.Namespace
) -> tuple[np.ndarray[Any, Any], list[int]]:
    """Return the embeddings and the rows of the items that have one."""
    import numpy as np

    from ciea_hf.data import RetrievalDataset, corpus_from_columns, queries_from_columns
    from ciea_hf.retrieval import DocumentView, EncodingOptions
    from ciea_hf.retrieval.encoding import encode_documents

    images = [item.image and {"bytes": None, "path": item.image} for item in items]
    corpus = corpus_from_columns([item.id for item in items], [item.text for item in items], images)
    dataset = RetrievalDataset(corpus, queries_from_columns([], []), {}, name="inputs", split="inputs")
    view = DocumentView(dataset, on_broken_image=arguments.on_broken_image)
    options = EncodingOptions(
        batch_size=arguments.batch_size,
        num_workers=arguments.workers,
        show_progress_bar=sys.stderr.isatty(),
        normalize=False,
    )
    encoder = _QueryEncoder(model) if arguments.role == "query" else model
    embeddings, missing = encode_documents(encoder, view, 0, len(view), options)
    width = embeddings.shape[1]
    if arguments.truncate_dim is not None and arguments.truncate_dim > width:
        raise ValueError(f"--truncate-dim must be at most {width}, the width of the embeddings")
    kept = sorted(set(range(len(items))) - set(missing))
    rows = embeddings[kept, : arguments.truncate_dim]
    if arguments.normalize:
        rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(rows.dtype).tiny)
    return rows, kept


def _save(embeddings: np.ndarray[Any, Any], names: list[str], path: Path) -> None:
    from ciea_hf.files import atomic_write

    with atomic_write(path) as temporary:
        if path.suffix == ".npy":
            import numpy as np

            with temporary.open("wb") as file:
                np.save(file, embeddings)
        else:
            from safetensors.numpy import save_file

            save_file({"embeddings": embeddings}, temporary, metadata={"ids": json.dumps(names, ensure_ascii=False)})
