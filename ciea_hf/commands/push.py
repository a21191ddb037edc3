"""Publish a model's folder on the Hugging Face Hub, whole and in one commit.

  ciea push runs/ciea/best org/name --private
  ciea push runs/ciea/best org/name --create-pr --message "Trained on twice the data"
  ciea push runs/ciea/best org/name --dry-run look-at-this    # everything that would be sent, and the card

Files that are there already are not sent again. After a failure its files are as they were, and the same command goes
on where it stopped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ciea_hf.commands.common import write

if TYPE_CHECKING:
    import argparse

    from ciea_hf.hub import PushResult

HELP = "publish a model on the Hub"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("folder", metavar="FOLDER", help="folder that `save_pretrained` or a training run wrote")
    parser.add_argument("repo_id", metavar="REPO_ID", help="repository on the Hub, owner/name; made if there is none")
    add_push_arguments(parser)
    parser.add_argument("--dry-run", metavar="DIR", help="write what would be sent into a new folder, and send nothing")


def add_push_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what every command that publishes has in common."""
    parser.add_argument("--private", action="store_true", default=None, help="make a new repository private")
    parser.add_argument("--revision", help="branch, made if there is none (default: main)")
    parser.add_argument("--create-pr", action="store_true", help="open a pull request instead")
    parser.add_argument("--message", help="first line of the commit")
    parser.add_argument("--token", help="access token (default: HF_TOKEN, or that of `hf auth login`)")


def run(arguments: argparse.Namespace) -> int:
    """Publish, and say what was sent."""
    from ciea_hf.hub import push

    write_push_result(push(arguments.folder, arguments.repo_id, dry_run=arguments.dry_run, **push_options(arguments)))
    return 0


def push_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Collect the options of :func:`add_push_arguments`."""
    return {
        "private": arguments.private,
        "revision": arguments.revision,
        "create_pr": arguments.create_pr,
        "commit_message": arguments.message,
        "token": arguments.token,
    }


def write_push_result(result: PushResult) -> None:
    """Print what was done, one line for each file, and the address last."""
    done = "sent" if result.commit else "written"
    for names, what in ((result.sent, done), (result.deleted, "deleted"), (result.unchanged, "unchanged")):
        for name in names:
            write(f"{what:9}  {name}")
    if not result.sent and not result.deleted:
        write("Nothing to do: the repository holds all of it.")
    write(result.url)
