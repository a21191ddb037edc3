"""What a push sends: a model's files, checked, with their card."""

from __future__ import annotations

import json
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ciea_hf.hub.checks import check_folder
from ciea_hf.model_cards.card import CARD_FILE, is_generated, is_hub_id, render_model_card
from ciea_hf.utils import atomic_folder

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping

    from ciea_hf.modeling import CIEAModel

CONFIG_FILE = "config.json"
ORIGIN = "_name_or_path"
IGNORED = ("__pycache__", "*.pyc", "*.tmp", "*.lock", "*.log")  # beside everything whose name begins with a dot


@dataclass(frozen=True)
class StagedFiles:
    """Files to be published.

    Attributes:
        contents: Path in the repository to the local file, or to the content itself.
        from_memory: Whether they come from a model in memory, which has no record of its run.
    """

    contents: Mapping[str, Path | bytes]
    from_memory: bool

    @property
    def card(self) -> str:
        """The card's text."""
        content = self.contents[CARD_FILE]
        return content.decode() if isinstance(content, bytes) else content.read_text(encoding="utf-8")

    @property
    def has_generated_card(self) -> bool:
        """Whether the card was made by this package."""
        return is_generated(self.card)


@contextmanager
def staged(
    model_or_folder: CIEAModel | str | os.PathLike[str], repo_id: str | None, save_options: Mapping[str, Any]
) -> Iterator[StagedFiles]:
    """Collect and check what is to be published; a model in memory is saved to a temporary folder.

    Args:
        model_or_folder: A model with its processor, or a folder that `save_pretrained` wrote.
        repo_id: Where it goes, for the card's examples.
        save_options: Arguments of `save_pretrained`, for a model.

    Yields:
        The files.

    Raises:
        FileNotFoundError: If there is no such folder.
        TypeError: If `save_options` are given for a folder.
        ValueError: If the folder is not a whole CIEA model, or holds pickles.
    """
    if hasattr(model_or_folder, "save_pretrained"):
        with tempfile.TemporaryDirectory(prefix="ciea-push-") as folder:
            model_or_folder.save_pretrained(folder, **save_options)
            yield _collect(Path(folder), repo_id, from_memory=True)
        return
    if save_options:
        raise TypeError(f"{', '.join(save_options)}: only for a model; a folder is published as it was saved")
    yield _collect(Path(model_or_folder), repo_id, from_memory=False)


def write_staged(files: StagedFiles, folder: Path) -> None:
    """Write what would be published into a new folder, which appears whole or not at all.

    Raises:
        FileExistsError: If there is something at `folder` already.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"`dry_run`: {str(folder)!r} is not empty; name a new folder")
    with atomic_folder(folder) as target:
        for name, content in files.contents.items():
            path = target / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                path.write_bytes(content)
            else:
                shutil.copyfile(content, path)


def _collect(folder: Path, repo_id: str | None, from_memory: bool) -> StagedFiles:
    check_folder(folder)
    contents: dict[str, Path | bytes] = {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not _is_ignored(path.relative_to(folder))
    }
    contents[CONFIG_FILE] = _without_local_names(folder / CONFIG_FILE)
    card = contents.get(CARD_FILE)
    if not isinstance(card, Path) or is_generated(card.read_text(encoding="utf-8")):
        contents[CARD_FILE] = render_model_card(folder, repo_id=repo_id).encode()
    return StagedFiles(contents, from_memory)


def _without_local_names(path: Path) -> Path | bytes:
    """The configuration without the folders that its towers came from; names on the Hub stay."""
    config = json.loads(path.read_text(encoding="utf-8"))
    parts = [config, *(part for part in config.values() if isinstance(part, dict))]
    local = [part for part in parts if part.get(ORIGIN) and not is_hub_id(part[ORIGIN])]
    if not local:
        return path
    for part in local:
        del part[ORIGIN]
    return (json.dumps(config, indent=2, sort_keys=True) + "\n").encode()  # as transformers writes it


def _is_ignored(path: Path) -> bool:
    return any(part.startswith(".") or any(Path(part).match(pattern) for pattern in IGNORED) for part in path.parts)
