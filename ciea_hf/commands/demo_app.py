"""Search an index on a page in the browser, see why an image was found, and compare two models side by side.

The page searches with a text, an image, or both. Images that are dropped on it are decoded by this machine and kept for
a day. The page loads nothing from the network. On SIGTERM or Ctrl-C it ends.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ciea_hf.commands import common

if TYPE_CHECKING:
    import argparse

HELP = "search an index on a page in the browser"
EXAMPLES = """
  ciea demo-app demo/ciea demo.index
  ciea demo-app demo/ciea demo.index --compare demo/marvel marvel.index    # two models side by side
  ciea demo-app org/model org/index --corpus org/data                     # model, index and images on the Hub
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_system_arguments(parser)
    common.add_address_arguments(parser, port=7860)
    parser.add_argument("--device", help="device of the model, such as cpu or cuda:0 (default: the GPU, if available)")
    for option, default, text in (
        ("--max-image-mb", 16, "size of an uploaded image in MiB"),
        ("--max-image-pixels", 32_000_000, "pixels of an uploaded image"),
    ):
        parser.add_argument(option, type=common.positive, default=default, help=f"{text} (default: {default})")


def add_system_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that name models, indexes and images."""
    parser.add_argument("model", metavar="MODEL", help=common.MODEL_HELP)
    parser.add_argument("index", metavar="INDEX", help="folder or URL that `ciea index` has written, or a Hub id")
    parser.add_argument("--compare", nargs=2, metavar=("MODEL", "INDEX"), help="second model, with its own index")
    parser.add_argument(
        "--corpus", help="data set with the images, as a folder, a Hub id or 'demo' (default: that of the index)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Open the models and the indexes, and serve the page until SIGTERM or SIGINT."""
    from ciea_hf.app.systems import open_system, unique_names
    from ciea_hf.serve.listening import bind, is_loopback
    from ciea_hf.utils import import_optional

    import_optional("gradio", extra="app")
    from ciea_hf.app.launching import MEGABYTE, launch, wait_for_signal
    from ciea_hf.app.page import create_page

    pairs = [(arguments.model, arguments.index), *([arguments.compare] if arguments.compare else [])]
    with bind(arguments.host, arguments.port) as listener:  # an address in use is reported before a model is loaded
        port = listener.getsockname()[1]
        if not is_loopback(listener):
            sys.stderr.write(f"ciea: warning: {arguments.host} is open to other machines; the page has no password\n")
        systems = [open_system(model, index, arguments.corpus, arguments.device) for model, index in pairs]
    page = create_page(unique_names(systems, [model for model, _ in pairs]), arguments.max_image_pixels)
    url = launch(page, arguments.host, port, arguments.max_image_mb * MEGABYTE).rstrip("/")

    def announce() -> None:
        documents = len(systems[0].retriever.index)
        common.write(f"{url}  {' and '.join(model for model, _ in pairs)}, {documents} documents")
        sys.stdout.flush()

    wait_for_signal(page, announce)
    return 0
