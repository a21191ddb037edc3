"""Files and folders that appear completely or not at all: modes, links, devices, kills, readers and writers at once."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from ciea_hf.files import _exchange, _host, atomic_folder, atomic_write, write_json

if TYPE_CHECKING:
    from pathlib import Path

KILLED = """
import os, signal, sys
from ciea_hf.files import atomic_folder, atomic_write
with {function}(sys.argv[1]) as path:
    (path / "part" if {function} is atomic_folder else path).write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def write(path: Path, text: str = "new") -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(text)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_modes_are_kept_and_new_files_get_that_of_the_umask(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("old")
    (tmp_path / "old").chmod(0o600)
    before = os.umask(0o027)
    try:
        write(tmp_path / "old")
        write(tmp_path / "fresh")
        with atomic_folder(tmp_path / "folder") as folder:
            (folder / "file").touch()
    finally:
        os.umask(before)
    assert (mode(tmp_path / "old"), (tmp_path / "old").read_text()) == (0o600, "new")
    assert mode(tmp_path / "fresh") == 0o640
    assert mode(tmp_path / "folder") == 0o750


def test_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "file").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "real" / "file")
    (tmp_path / "folder-link").symlink_to(tmp_path / "real")
    write(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "file").read_text() == "new"
    with atomic_folder(tmp_path / "folder-link") as folder:
        (folder / "other").touch()
    assert (tmp_path / "folder-link").is_symlink()
    assert os.listdir(tmp_path / "real") == ["other"]  # noqa: PTH208


def test_devices_and_pipes_are_written_into(tmp_path: Path) -> None:
    before = os.stat("/dev/null")  # noqa: PTH116
    write(type(tmp_path)("/dev/null"))
    assert os.stat("/dev/null").st_ino == before.st_ino  # noqa: PTH116
    os.mkfifo(tmp_path / "pipe")
    found: list[str] = []
    reader = threading.Thread(target=lambda: found.append((tmp_path / "pipe").read_text()))
    reader.start()
    write(tmp_path / "pipe", "through the pipe")
    reader.join(10)
    assert found == ["through the pipe"]
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_an_error_leaves_the_old_content_and_nothing_else(tmp_path: Path) -> None:
    write(tmp_path / "file", "old")
    with atomic_folder(tmp_path / "folder") as folder:
        (folder / "a").touch()

    def fail_file() -> None:
        with atomic_write(tmp_path / "file") as temporary:
            temporary.write_text("half")
            raise RuntimeError

    def fail_folder() -> None:
        with atomic_folder(tmp_path / "folder") as temporary:
            (temporary / "b").touch()
            raise RuntimeError

    for fail in (fail_file, fail_folder):
        with pytest.raises(RuntimeError):
            fail()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "file", "folder"]
    assert (tmp_path / "file").read_text() == "old"


@pytest.mark.parametrize(("number", "fails"), [(errno.ENOSPC, True), (errno.EIO, True), (errno.EINVAL, False)])
def test_a_disk_that_fails_to_flush_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, fails: bool
) -> None:
    write(tmp_path / "file", "old")

    def fsync(_handle: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fsync)
    if fails:
        with pytest.raises(OSError, match=os.strerror(number)):
            write(tmp_path / "file")
    else:
        write(tmp_path / "file")
    assert (tmp_path / "file").read_text() == ("old" if fails else "new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("function", ["atomic_write", "atomic_folder"])
def test_what_a_killed_process_leaves_is_removed_by_the_next(tmp_path: Path, function: str) -> None:
    target = tmp_path / "target"
    subprocess.run([sys.executable, "-c", KILLED.format(function=function), str(target)], check=False)
    assert len(list(tmp_path.iterdir())) == 1
    assert not target.exists()
    (tmp_path / f".target.{_host()}-{os.getpid()}.01234567.tmp").touch()  # of a process that still runs
    (tmp_path / ".target.x.tmp").touch()  # not ours
    if function == "atomic_write":
        write(target)
    else:
        with atomic_folder(target) as folder:
            (folder / "whole").touch()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [".target.x.tmp", f".target.{_host()}-{os.getpid()}.01234567.tmp", "target"]
    )


def test_a_folder_that_was_moved_away_comes_back(tmp_path: Path) -> None:
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    old = tmp_path / f".target.{_host()}-{int(dead.stdout)}.01234567.old"
    old.mkdir()
    (old / "content").touch()
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "target"):
        raise RuntimeError
    assert (tmp_path / "target" / "content").exists()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs renameat2")
def test_readers_always_find_a_whole_folder_while_several_write(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (tmp_path / "other").mkdir()
    if not _exchange(target, tmp_path / "other"):
        pytest.skip("this file system cannot exchange two folders")
    (target / "file").write_text("0")
    stop = threading.Event()
    missing: list[str] = []
    reads = 0

    def read() -> None:
        nonlocal reads
        while not stop.is_set():
            reads += 1
            if not target.is_dir():
                missing.append("folder")

    def replace(number: int) -> None:
        for _ in range(40):
            with atomic_folder(target) as folder:
                (folder / "file").write_text(str(number))

    reader = threading.Thread(target=read)
    reader.start()
    writers = [threading.Thread(target=replace, args=(number,)) for number in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    stop.set()
    reader.join()
    assert reads > 100
    assert not missing
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "target"]
    assert (target / "file").read_text() in "012"


@pytest.mark.parametrize("exchange", [True, False])
def test_a_folder_is_replaced_with_and_without_an_exchange(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool
) -> None:
    if not exchange:
        monkeypatch.setattr("ciea_hf.files._exchange", lambda *_: False)
    for name in ("a", "b"):
        with atomic_folder(tmp_path / "target") as folder:
            (folder / name).touch()
    assert [path.name for path in (tmp_path / "target").iterdir()] == ["b"]
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_a_file_is_no_folder_and_a_folder_no_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with (
        pytest.raises(NotADirectoryError, match="file is a file; a folder is to be written"),
        atomic_folder(tmp_path / "file"),
    ):
        pass
    with pytest.raises(IsADirectoryError, match="folder is a folder; a file is to be written"):
        write_json(tmp_path / "folder", {})
