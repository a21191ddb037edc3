"""Fetch a model from the Hugging Face Hub, and check that it is whole and holds no pickles.

ciea pull org/name                                   # into Hugging Face's cache; prints the folder
ciea pull org/name --revision 0123abc --to models/ciea
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ciea_hf.commands.common import write

if TYPE_CHECKING:
    import argparse

HELP = "fetch a model from the Hub, and check it"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("repo_id", metavar="REPO_ID", help="repository on the Hub, owner/name")
    parser.add_argument("--revision", help="branch, tag or commit (default: main)")
    parser.add_argument("--to", metavar="DIR", help="folder for the files (default: Hugging Face's cache)")
    parser.add_argument("--token", help="access token (default: HF_TOKEN, or that of `hf auth login`)")
    parser.add_argument("--offline", action="store_true", help="look in the cache only")


def run(arguments: argparse.Namespace) -> int:
    """Fetch, check, and print the folder."""
    from ciea_hf.hub import pull

    folder = pull(
        arguments.repo_id,
        revision=arguments.revision,
        folder=arguments.to,
        token=arguments.token,
        local_files_only=arguments.offline,
    )
    write(str(folder))
    return 0
