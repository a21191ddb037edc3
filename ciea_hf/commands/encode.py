"""Embed texts, pictures, or pictures with captions, and write the matrix.

An input is a picture, a folder of pictures, a .txt file (one text a line), a .jsonl file (one object a line with
"text", "image" (a path, relative to the file) or both, and "id" if it has one), or - for texts on standard input.

  ciea encode runs/ciea photos/ --output photos.safetensors
  ciea encode runs/ciea documents.jsonl --output documents.npy
  ciea encode runs/ciea --text "a cat" --text "a dog" --as query --output queries.npy

A .npy file holds the matrix (inputs, D) alone, in the order of the inputs; a .safetensors file holds it under
"embeddings" with the ids, as a JSON list, in its metadata.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ciea_hf import loading
from ciea_hf.commands import common

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    import numpy as np

HELP = "embed texts and pictures into a file"
PICTURES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tiff", ".webp")
OUTPUTS = (".npy", ".safetensors")


class Item(NamedTuple):
    """One input and what to call it."""

    id: str
    content: Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("model", metavar="MODEL", help=common.MODEL_HELP)
    parser.add_argument("inputs", metavar="INPUT", nargs="*", help="picture, folder, .txt, .jsonl, or -")
    parser.set_defaults(rest="inputs")
    parser.add_argument("--text", action="append", default=[], metavar="TEXT", help="a text itself; may be repeated")
    parser.add_argument(
        "--as", dest="role", choices=("document", "query"), default="document", help="(default: document)"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help=f"ends in {' or '.join(OUTPUTS)}")
    parser.add_argument("--truncate-dim", type=common.positive, metavar="D", help="keep the first D dimensions")
    parser.add_argument("--normalize", action="store_true", help="scale embeddings to length 1")
    common.add_model_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Embed and write."""
    if arguments.output.suffix not in OUTPUTS:
        raise ValueError(f"--output must end in {' or '.join(OUTPUTS)}; got {arguments.output}")
    common.check_output("--output", arguments.output)
    items = [item for name in arguments.inputs for item in read_items(name)]
    items += [Item(f"text-{number}", _as_text(text)) for number, text in enumerate(arguments.text)]
    if not items:
        raise ValueError("there is nothing to encode: give an INPUT or --text")
    model = loading.load_encoder(arguments.model, arguments.device)
    encode = model.encode_query if arguments.role == "query" else model.encode_document
    try:
        embeddings = encode(
            [item.content for item in items],
            batch_size=arguments.batch_size,
            normalize_embeddings=arguments.normalize,
            truncate_dim=arguments.truncate_dim,
            show_progress_bar=sys.stderr.isatty(),
        )
    except (ValueError, TypeError) as error:
        raise type(error)(f"{error} (inputs count from 0, {items[0].id!r} is the first)") from error
    _save(embeddings, [item.id for item in items], arguments.output)
    common.write(f"{len(items)} x {embeddings.shape[1]}: {arguments.output}")
    return 0


def read_items(name: str) -> Iterator[Item]:
    """Read the inputs of one argument.

    Raises:
        FileNotFoundError: If there is nothing at this path.
        ValueError: If the kind of file is unknown or a line is broken; the message names file and line.
    """
    path = Path(name)
    if name == "-":
        yield from _texts(sys.stdin, "stdin")
    elif path.is_dir():
        yield from (Item(str(file), str(file)) for file in sorted(path.rglob("*")) if file.suffix.lower() in PICTURES)
    elif not path.exists():
        raise FileNotFoundError(f"there is nothing at {name}; give a text with --text")
    elif path.suffix.lower() in PICTURES:
        yield Item(name, name)
    elif path.suffix.lower() == ".txt":
        yield from _texts(_lines(path), path.name)
    elif path.suffix.lower() == ".jsonl":
        yield from (_object(line, path, number) for number, line in enumerate(_lines(path), start=1) if line.strip())
    else:
        raise ValueError(f"{name} is of no known kind: a picture ({', '.join(PICTURES)}), .txt, .jsonl or a folder")


def _lines(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(f"{path}:{number}: the line is not UTF-8: {error}") from None


def _as_text(text: str) -> str:
    from ciea_hf.retrieval.encoding import as_text

    return as_text(text)


def _texts(lines: Any, name: str) -> Iterator[Item]:
    stripped = ((number, line.strip()) for number, line in enumerate(lines, start=1))
    yield from (Item(f"{name}:{number}", _as_text(line)) for number, line in stripped if line)


def _object(line: str, path: Path, number: int) -> Item:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{number}: no JSON: {error}") from None
    if not isinstance(row, dict) or not (row.get("text") or row.get("image")):
        raise ValueError(f'{path}:{number}: needs an object with "text" or "image"')
    for key in ("text", "image"):
        if row.get(key) is not None and not isinstance(row[key], str):
            raise ValueError(f"{path}:{number}: {key!r} must be a text; got {row[key]!r}")
    image = str(path.parent / row["image"]) if row.get("image") else None
    if image is not None and not Path(image).is_file():
        raise FileNotFoundError(f"{path}:{number}: there is no picture at {image}")
    text = _as_text(row["text"]) if row.get("text") else None
    content = {"text": text, "image": image} if text and image else text or image
    return Item(str(row.get("id", f"{path.name}:{number}")), content)


def _save(embeddings: np.ndarray[Any, Any], names: list[str], path: Path) -> None:
    from ciea_hf.utils import atomic_write

    with atomic_write(path) as temporary:
        if path.suffix == ".npy":
            import numpy as np

            with temporary.open("wb") as file:
                np.save(file, embeddings)
        else:
            from safetensors.numpy import save_file

            save_file({"embeddings": embeddings}, temporary, metadata={"ids": json.dumps(names, ensure_ascii=False)})
