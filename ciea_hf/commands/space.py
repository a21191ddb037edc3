"""Write a Hugging Face Space: the page of `ciea demo-app` with its model and index, ready to be uploaded.

Folders of models, indexes and data sets are copied into it, data sets with their images embedded. Hub ids stay as they
are, and the Space loads them when it starts.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ciea_hf._version import __version__
from ciea_hf.commands import common
from ciea_hf.commands.demo_app import add_system_arguments

if TYPE_CHECKING:
    import argparse

HELP = "write a Hugging Face Space with the page"
EXAMPLES = """
  ciea space my-space demo/ciea demo.index --title "OpenMoji scenes"
  ciea space my-space org/model org/index --corpus org/data          # model, index and images stay on the Hub
  hf upload --repo-type space org/my-space my-space                   # publish it
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="new folder")
    add_system_arguments(parser)
    parser.add_argument("--title", default="CIEA search", help="title of the Space (default: CIEA search)")
    parser.add_argument("--license", help="licence of the Space, as an identifier of the Hub such as apache-2.0")
    parser.add_argument(
        "--requirement",
        default=f"ciea-hf[app]=={__version__}",
        help="requirement that installs this package there, such as a git URL (default: ciea-hf[app] of this version)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the Space, and print its files."""
    from ciea_hf.app.space import SpaceOptions, write_space

    pairs = [(arguments.model, arguments.index), *([tuple(arguments.compare)] if arguments.compare else [])]
    options = SpaceOptions(arguments.title, arguments.requirement, arguments.license)
    for name in write_space(arguments.folder, pairs, arguments.corpus, options):
        common.write(f"{arguments.folder / name}")
    return 0
