"""Download a model from the Hugging Face Hub, and check that it is complete and contains no pickles."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ciea_hf.commands.common import write

if TYPE_CHECKING:
    import argparse

HELP = "download and check a model from the Hub"
EXAMPLES = """
  ciea pull org/name                                       # into the Hugging Face cache; prints the folder
  ciea pull org/name --revision 0123abc --output models/ciea
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("repo_id", metavar="REPO_ID", help="repository on the Hub, owner/name")
    parser.add_argument("--revision", help="branch, tag or commit (default: main)")
    parser.add_argument("--output", metavar="FOLDER", help="folder for the files (default: the Hugging Face cache)")
    parser.add_argument("--token", help="access token (default: HF_TOKEN, or the token of `hf auth login`)")
    parser.add_argument("--offline", action="store_true", help="use the cache only")


def run(arguments: argparse.Namespace) -> int:
    """Download, check, and print the folder."""
    from ciea_hf.hub import pull

    folder = pull(
        arguments.repo_id,
        revision=arguments.revision,
        folder=arguments.output,
        token=arguments.token,
        local_files_only=arguments.offline,
    )
    write(str(folder))
    return 0
