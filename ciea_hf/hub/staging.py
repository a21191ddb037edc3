"""Collects and checks the files of an upload, and adds the model card."""

from __future__ import annotations

import json
import logging
import re
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ciea_hf.files import atomic_folder
from ciea_hf.hub.checks import SENTENCE_TRANSFORMERS_FILES, check_folder
from ciea_hf.model_cards.card import CARD_FILE, is_generated, is_hub_id, render_model_card
from ciea_hf.model_cards.run_files import CONFIGURATION_FILES, RESULTS_FILE, RUN_FILE

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping

    from ciea_hf.modeling import CIEAModel

logger = logging.getLogger(__name__)

CONFIG_FILE = "config.json"
ORIGIN = "_name_or_path"
IGNORED = ("__pycache__", "*.pyc", "*.tmp", "*.lock", "*.log")  # hidden files are ignored too

BELONGING = (
    "*.safetensors", "*.safetensors.index.json", "*.py", "*.model", "vocab.txt", "merges.txt", "*.jinja", "README.md",
    "LICENSE*", "NOTICE*", "CITATION*", "*.png", *CONFIGURATION_FILES, RUN_FILE, RESULTS_FILE, "result.json",
    "config.json", "generation_config.json", "*processor_config.json", "tokenizer*.json", "vocab.json",
    "added_tokens.json", "special_tokens_map.json", "chat_template.json", *SENTENCE_TRANSFORMERS_FILES,
)  # fmt: skip
"""Names of files that loading or the model card reads. Others may hold keys, data or notes, and are not uploaded."""


@dataclass(frozen=True)
class StagedFiles:
    """Files of an upload.

    Attributes:
        contents: Local file, or content, by path in the repository.
        from_memory: Whether the files come from a model in memory, which has no record of its training run.
    """

    contents: Mapping[str, Path | bytes]
    from_memory: bool

    @property
    def card(self) -> str:
        """Text of the model card."""
        content = self.contents[CARD_FILE]
        return content.decode() if isinstance(content, bytes) else content.read_text(encoding="utf-8")

    @property
    def has_generated_card(self) -> bool:
        """Whether this package generated the model card."""
        return is_generated(self.card)


@contextmanager
def staged(
    model_or_folder: CIEAModel | str | os.PathLike[str], repo_id: str | None, save_options: Mapping[str, Any]
) -> Iterator[StagedFiles]:
    """Collect and check the files of an upload; a model in memory is saved to a temporary folder.

    Args:
        model_or_folder: Model with its processor, or folder written by `save_pretrained`.
        repo_id: Repository named in the examples of the model card.
        save_options: Arguments of `save_pretrained`, for a model only.

    Yields:
        The files of the upload.

    Raises:
        FileNotFoundError: If the folder does not exist.
        TypeError: If `save_options` are given for a folder.
        ValueError: If the folder is not a complete CIEA model, or contains pickles.
    """
    if hasattr(model_or_folder, "save_pretrained"):
        with tempfile.TemporaryDirectory(prefix="ciea-push-") as folder:
            model_or_folder.save_pretrained(folder, **save_options)
            yield _collect(Path(folder), repo_id, from_memory=True)
        return
    if save_options:
        raise TypeError(f"{', '.join(save_options)}: supported for a model only; a folder is uploaded unchanged")
    yield _collect(Path(model_or_folder), repo_id, from_memory=False)


def write_staged(files: StagedFiles, folder: Path) -> None:
    """Write the files of an upload atomically into a new folder.

    Args:
        files: Files of the upload.
        folder: Folder to create; it may exist if it is empty.

    Raises:
        FileExistsError: If `folder` is not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"`dry_run`: {str(folder)!r} is not empty; choose a new folder")
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
    contents: dict[str, Path | bytes] = {}
    foreign = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if _is_ignored(name) or not path.is_file():
            continue
        if not path.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"{path} is a link to {path.resolve()}, which is outside the folder")
        if _belongs(name):
            contents[name.as_posix()] = path
        else:
            foreign.append(name.as_posix())
    if foreign:
        logger.warning("not uploaded, because they do not belong to a model: %s", ", ".join(foreign))
    contents[CONFIG_FILE] = _without_local_paths(folder / CONFIG_FILE)
    card = contents.get(CARD_FILE)
    if not isinstance(card, Path) or is_generated(card.read_text(encoding="utf-8")):
        contents[CARD_FILE] = render_model_card(folder, repo_id=repo_id).encode()
    return StagedFiles(contents, from_memory)


def _without_local_paths(path: Path) -> Path | bytes:
    """Return the configuration without local paths of the towers; Hub ids stay."""
    config = json.loads(path.read_text(encoding="utf-8"))
    sections = [config, *(section for section in config.values() if isinstance(section, dict))]
    local = [section for section in sections if section.get(ORIGIN) and not is_hub_id(section[ORIGIN])]
    if not local:
        return path
    for section in local:
        del section[ORIGIN]
    return (json.dumps(config, indent=2, sort_keys=True) + "\n").encode()  # same format as transformers


def _belongs(path: Path) -> bool:
    """Return whether a file belongs to a model: one that loading or the model card reads."""
    if len(path.parts) > 1 and not re.fullmatch(r"\d+_\w+", path.parts[0]):  # further modules of sentence-transformers
        return False
    return any(path.match(pattern) for pattern in BELONGING)


def _is_ignored(path: Path) -> bool:
    return any(part.startswith(".") or any(Path(part).match(pattern) for pattern in IGNORED) for part in path.parts)
