"""Draw why an image is found: how much each of its patches contributes to the score of a query.

Without a query, the map shows what the image adds to its caption. Weights and gates are read from the model, and do not
depend on the query.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ciea_hf import loading
from ciea_hf.choices import EXPLANATION_METHODS
from ciea_hf.commands import common

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from ciea_hf.explain import Explanation
    from ciea_hf.retrieval import DocumentView, Hit

HELP = "draw why an image is found"
EXAMPLES = """
  ciea explain runs/ciea --image scene.png --caption "the necktie" --query "where is the ghost" --output why.png
  ciea explain runs/ciea --image scene.png --caption "the necktie" --query-image ghost.png --output why.png
  ciea explain runs/ciea --image scene.png --caption "the necktie" --output adds.png     # what the image adds
  ciea search runs/ciea demo "the cat and the train" --explain why/                      # all image hits of a search
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("model", metavar="MODEL", help="folder or Hub id of a CIEA model")
    parser.add_argument("--image", type=Path, required=True, metavar="FILE", help="image of the document")
    parser.add_argument("--caption", metavar="TEXT", help="caption of the image; required without a query")
    parser.add_argument("--query", metavar="TEXT", help="text of the query")
    parser.add_argument("--query-image", type=Path, metavar="FILE", help="image of the query, alone or with --query")
    parser.add_argument(
        "--method",
        choices=EXPLANATION_METHODS,
        default="integrated_gradients",
        help="method of the map (default: integrated_gradients)",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="PNG", help="image file for the map")
    common.add_model_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Explain, print the scores and draw the map."""
    common.check_output("--output", arguments.output)
    for option, path in (("--image", arguments.image), ("--query-image", arguments.query_image)):
        if path is not None and not path.is_file():
            raise FileNotFoundError(f"{option} {path} not found")
    query: Any = arguments.query
    if arguments.query_image is not None:
        query = {"text": arguments.query, "image": arguments.query_image}
    if query is None and not (arguments.caption or "").strip():
        raise ValueError("give a --query, a --query-image, or a --caption that the image adds to")
    check_drawing()
    model: Any = loading.load_encoder(arguments.model, arguments.device)
    from ciea_hf.explain import explain, save_explanations

    found = explain(model, arguments.image, arguments.caption, query, arguments.method, batch_size=arguments.batch_size)
    save_explanations(found, arguments.output)
    common.write(f"{_summary(found)}\n{arguments.output}")
    return 0


def check_drawing() -> None:
    """Check that figures can be drawn, before anything is computed.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    from ciea_hf.utils import import_optional

    import_optional("matplotlib", extra="explain")


def check_folder(folder: Path, content: str) -> None:
    """Check the folder of [`explain_hits`] before the search.

    Args:
        folder: The folder.
        content: Content of the documents.

    Raises:
        ValueError: If the documents are embedded without their images.
        OSError: If the folder cannot be written.
        ImportError: If matplotlib is not installed.
    """
    if content == "caption":
        raise ValueError("--explain needs images: --content must be full or image; got caption")
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"--explain must be a folder; {folder} is a file")
    common.check_output("--explain", folder / "why.png")
    check_drawing()


def explain_hits(
    model: Any, queries: Sequence[Any], found: Sequence[Sequence[Hit]], view: DocumentView, folder: Path
) -> list[Path]:
    """Draw one map for each image among the hits of a search.

    Args:
        model: Model of the search.
        queries: Queries, as they were embedded.
        found: Hits of each query.
        view: Documents, as they were embedded.
        folder: Folder for the files `QUERY-RANK-ID.png`, both numbers counted from 1.

    Returns:
        The files.
    """
    from ciea_hf.explain import explain, save_explanations

    rows = {document: row for row, document in enumerate(view.ids)}
    files = []
    folder.mkdir(parents=True, exist_ok=True)
    for number, (query, hits) in enumerate(zip(queries, found, strict=True), start=1):
        for hit in hits:
            document = view.read(rows[hit.id]) if hit.kind == "image" else None
            if document is None or document.image is None:
                continue
            name = re.sub(r"[^\w.-]+", "_", hit.id)[:80]
            files.append(folder / f"{number:02d}-{hit.rank:02d}-{name}.png")
            save_explanations(explain(model, document.image, document.text, query), files[-1])
    return files


def _summary(found: Explanation) -> str:
    lost = found.faithfulness
    return (
        f"score {found.score:.4f}\n"
        f"lost without the {lost.removed} marked patches {lost.lost:.4f}, without {lost.removed} random ones "
        f"{lost.lost_at_random:.4f}, without all {lost.lost_in_total:.4f}"
    )
