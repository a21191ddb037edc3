"""Publish a model folder on the Hugging Face Hub, in one commit.

Files that the repository already contains are not sent again. If a push fails, the repository is unchanged, and the
same command continues the upload.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ciea_hf.commands.common import write

if TYPE_CHECKING:
    import argparse

    from ciea_hf.hub import PushResult

HELP = "publish a model on the Hub"
EXAMPLES = """
  ciea push runs/ciea/best org/name --private
  ciea push runs/ciea/best org/name --create-pr --message "Trained on twice the data"
  ciea push runs/ciea/best org/name --dry-run --output preview    # write the files and the card to a folder
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("folder", metavar="FOLDER", help="model folder, from `save_pretrained` or a training run")
    parser.add_argument(
        "repo_id", metavar="REPO_ID", help="repository on the Hub, owner/name; created if it does not exist"
    )
    add_push_arguments(parser)
    parser.add_argument("--dry-run", action="store_true", help="write the files to --output instead of sending them")
    parser.add_argument("--output", metavar="FOLDER", help="new folder for --dry-run")


def add_push_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of all commands that publish."""
    parser.add_argument("--private", action="store_true", default=None, help="create the repository as private")
    parser.add_argument("--revision", help="branch, created if it does not exist (default: main)")
    parser.add_argument("--create-pr", action="store_true", help="open a pull request instead of a commit")
    parser.add_argument("--message", help="first line of the commit message")
    parser.add_argument("--token", help="access token (default: HF_TOKEN, or the token of `hf auth login`)")


def run(arguments: argparse.Namespace) -> int:
    """Publish, and print the files that were sent."""
    if arguments.dry_run != (arguments.output is not None):
        raise ValueError("--dry-run and --output FOLDER must be given together")
    from ciea_hf.hub import push

    write_push_result(push(arguments.folder, arguments.repo_id, dry_run=arguments.output, **push_options(arguments)))
    return 0


def push_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Collect the options of [`add_push_arguments`]."""
    return {
        "private": arguments.private,
        "revision": arguments.revision,
        "create_pr": arguments.create_pr,
        "commit_message": arguments.message,
        "token": arguments.token,
    }


def write_push_result(result: PushResult) -> None:
    """Print one line per file, and the URL last."""
    done = "sent" if result.commit else "written"
    for names, what in ((result.sent, done), (result.deleted, "deleted"), (result.unchanged, "unchanged")):
        for name in names:
            write(f"{what:9}  {name}")
    if not result.sent and not result.deleted:
        write("Nothing to do: the repository is up to date.")
    write(result.url)
