"""Images of a TSV file: read by offset, where they are, from any thread and process."""

from __future__ import annotations

import base64
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader, Dataset

from ciea_hf.data import load_retrieval_dataset
from ciea_hf.data.images import TsvImages, image_bytes, image_source, read_tsv_image
from tests.support import sample_datasets
from tests.support.sample_datasets import CAPTIONS, COLOURS, TEXTS, write_tsv

SOUND = [name for name in CAPTIONS if name != "30000007"]


class Pixels(Dataset):
    def __init__(self, corpus: Any) -> None:
        self.corpus = corpus

    def __len__(self) -> int:
        return len(SOUND)

    def __getitem__(self, row: int) -> list[int]:
        return list(self.corpus[len(TEXTS) + row]["image"].getpixel((0, 0)))


@pytest.fixture
def corpus(tmp_path: Path) -> Any:
    return load_retrieval_dataset(sample_datasets.webqa(tmp_path / "data"), "train").corpus


def test_any_line_is_read_by_its_offset(tmp_path: Path) -> None:
    contents = {"a": b"1", "b/c ü": b"22" * 300_000, "d": b""}
    offsets = write_tsv(tmp_path / "imgs.tsv", contents)
    images = TsvImages(tmp_path / "imgs.tsv", offsets.values())
    assert {name: image_bytes(images.encoded(name, offset)) for name, offset in offsets.items()} == contents
    few = TsvImages(tmp_path / "imgs.tsv", [0])  # an index that knows only the first line
    assert image_bytes(few.encoded("b/c ü", offsets["b/c ü"])) == contents["b/c ü"]


def test_the_folder_may_be_called_anything(tmp_path: Path) -> None:
    folder = sample_datasets.webqa(tmp_path / "50% #1? a::b [x] *")
    corpus = load_retrieval_dataset(folder, "train").corpus
    assert corpus[len(TEXTS)]["image"].getpixel((0, 0)) == COLOURS["30000000"]


def test_the_last_line_needs_no_end_and_windows_ends_do_not_matter(tmp_path: Path) -> None:
    lines = [f"{name}\t{base64.b64encode(content).decode()}" for name, content in (("a", b"one"), ("b", b"two"))]
    (tmp_path / "imgs.tsv").write_bytes("\r\n".join(lines).encode())
    images = TsvImages(tmp_path / "imgs.tsv", [0, len(lines[0]) + 2])
    assert image_bytes(images.encoded("a", 0)) == b"one"
    assert image_bytes(images.encoded("b", len(lines[0]) + 2)) == b"two"
    assert [(line.offset, line.id, line.image()) for line in images.lines()] == [(0, "a", b"one"), (8, "b", b"two")]


def test_a_file_of_terabytes_costs_nothing(tmp_path: Path) -> None:
    far = 3 << 40
    with (tmp_path / "imgs.tsv").open("wb") as file:  # a sparse file: holes, and one line
        file.seek(far)
        file.write(b"\nx\t" + base64.b64encode(b"far away") + b"\n")
    images = TsvImages(tmp_path / "imgs.tsv", [0, far + 1])
    assert image_bytes(images.encoded("x", far + 1)) == b"far away"


def test_loading_reads_no_image(tmp_path: Path) -> None:
    folder = sample_datasets.webqa(tmp_path / "data")
    size = (folder / "imgs.tsv").stat().st_size
    (folder / "imgs.tsv").write_bytes(b"#" * size)
    data = load_retrieval_dataset(folder, "train")
    assert data.document_kinds["30000000"] == "image"
    assert data.corpus.data.nbytes < 2000
    with pytest.raises(ValueError, match=r"imgs\.tsv: no line of image '30000000' at byte \d+"):
        data.corpus[len(TEXTS)]


def test_forked_workers_read_for_themselves(corpus: Any) -> None:
    assert corpus[len(TEXTS)]["image"].size == (24, 16)  # read here first
    loader = DataLoader(Pixels(corpus), batch_size=None, num_workers=2, multiprocessing_context="fork")
    assert list(loader) == [list(COLOURS[name]) for name in SOUND]


def test_a_fresh_process_reads_a_corpus_that_it_is_sent(corpus: Any, tmp_path: Path) -> None:
    code = (
        "import pickle, sys; corpus = pickle.load(sys.stdin.buffer); "
        "print([corpus[row]['image'].getpixel((0, 0)) for row in map(int, sys.argv[1:])])"
    )
    rows = [str(len(TEXTS) + row) for row in range(len(SOUND))]
    command = [sys.executable, "-c", code, *rows]
    found = subprocess.run(command, input=pickle.dumps(corpus), capture_output=True, check=True, cwd=tmp_path).stdout
    assert eval(found) == [COLOURS[name] for name in SOUND]  # noqa: S307


def test_threads_read_for_themselves(corpus: Any) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(Pixels(corpus).__getitem__, list(range(len(SOUND))) * 20))
    assert found == [list(COLOURS[name]) for name in SOUND] * 20


def test_the_fingerprint_stays_when_the_folder_moves_and_changes_with_an_image(tmp_path: Path) -> None:
    folder = sample_datasets.webqa(tmp_path / "a")
    before = load_retrieval_dataset(folder, "train").fingerprint
    assert load_retrieval_dataset(sample_datasets.webqa(tmp_path / "b"), "train").fingerprint == before
    content = (folder / "imgs.tsv").read_bytes()
    other = base64.b64encode(sample_datasets.png((251, 0, 0)))  # as long as the original
    changed = content.replace(base64.b64encode(sample_datasets.png(COLOURS["30000000"])), other)
    assert len(changed) == len(content) != content.count(other)
    (folder / "imgs.tsv").write_bytes(changed)
    assert load_retrieval_dataset(folder, "train").fingerprint != before


def test_parts_of_datasets_work(corpus: Any) -> None:
    some = corpus.shuffle(seed=1).filter(lambda modality: modality != "text", input_columns="modality").select([0, 2])
    assert {row["id"] for row in some.remove_columns("image")} <= set(CAPTIONS)
    assert all(row["image"].getpixel((0, 0)) == COLOURS[row["id"]] for row in some if row["id"] in SOUND)


def test_errors_name_file_location_and_id(tmp_path: Path) -> None:
    (tmp_path / "imgs.tsv").write_bytes(b"a\t!!!!\nb\tAAA\n")
    images = TsvImages(tmp_path / "imgs.tsv", [0, 7])
    with pytest.raises(ValueError, match=r"imgs\.tsv, byte 0: image 'a' is not base64"):
        image_source(images.encoded("a", 0))
    with pytest.raises(ValueError, match=r"imgs\.tsv, byte 7: image 'b' is not base64"):
        image_source(images.encoded("b", 7))
    for offset in (3, 4000):
        with pytest.raises(ValueError, match="no line of image 'a'"):
            image_source(images.encoded("a", offset))
    with pytest.raises(ValueError, match="is not a valid URL of a line"):
        read_tsv_image("tsv-image://imgs.tsv")
    with pytest.raises(ValueError, match="neither bytes nor path"):
        image_source({"bytes": None, "path": None})
    encoded = images.encoded("a", 0)
    Path(tmp_path / "imgs.tsv").unlink()
    with pytest.raises(FileNotFoundError, match=r"imgs\.tsv"):
        image_source(encoded)
