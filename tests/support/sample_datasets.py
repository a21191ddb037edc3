"""One small data set in every format of the field, with the quirks that the real files have.

Six images with captions, three texts; in training a query for an image (with negatives) and one for a text, in
development and testing a query for an image each, and one for a text in testing.
"""

from __future__ import annotations

import base64
import io
import json
import random
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

COLOURS = {
    "30000000": (250, 0, 0), "30000001": (0, 250, 0), "30000002": (0, 0, 250), "30000003": (250, 250, 0),
    "30000005": (0, 250, 250), "30000007": (9, 9, 9),
}  # fmt: skip
CAPTIONS = {
    "30000000": "a red square", "30000001": "a green square", "30000002": "ein blaues Quadrat — für alle",
    "30000003": "a yellow square", "30000005": "a cyan square", "30000007": "a black square",
}  # fmt: skip
TEXTS = {"d5bc8": "Red is a colour.", "d6aa1": "A square has four sides.", "d70ff": "Grass is green."}
QUESTIONS = {
    "train": {"q1": "which square is red", "q2": "what is red"},
    "dev": {"q3": "which square is blue"},
    "test": {"q4": "which square is yellow", "q5": "how many sides has a square"},
}
POSITIVES = {"q1": ["30000000"], "q2": ["d5bc8"], "q3": ["30000002"], "q4": ["30000003", "30000005"], "q5": ["d6aa1"]}
NEGATIVES = {"q1": ["30000001", "d70ff"]}  # the others have none
UNUSED = "30000009"  # in the index, not in the captions


def png(colour: tuple[int, int, int], size: tuple[int, int] = (24, 16)) -> bytes:
    """An image of one colour."""
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def jpeg(seed: int = 0) -> bytes:
    """An image with enough detail that half of its bytes hold half of the image."""
    buffer = io.BytesIO()
    Image.frombytes("RGB", (64, 64), random.Random(seed).randbytes(3 * 64 * 64)).save(buffer, "JPEG")
    return buffer.getvalue()


def is_image(name: str) -> bool:
    return name in CAPTIONS


def qrels_of(split: str, negatives: bool = True) -> dict[str, dict[str, int]]:
    """The judgements that a reader must find."""
    return {
        query: dict.fromkeys(POSITIVES[query], 1) | (dict.fromkeys(NEGATIVES.get(query, []), 0) if negatives else {})
        for query in QUESTIONS[split]
    }


def write_lines(file: Path, rows: Any, end: str = "\n", bom: bool = False) -> None:
    """Write JSON lines."""
    text = "".join(json.dumps(row, ensure_ascii=False) + end for row in rows)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes((b"\xef\xbb\xbf" if bom else b"") + text.encode())


def write_tsv(file: Path, images: dict[str, bytes]) -> dict[str, int]:
    """Write a TSV file of images; return the offsets of its lines."""
    offsets = {}
    with file.open("wb") as opened:
        for name, content in images.items():
            offsets[name] = opened.tell()
            opened.write(name.encode() + b"\t" + base64.b64encode(content) + b"\n")
    return offsets


def sample_images() -> dict[str, bytes]:
    """The image files, in another order than the captions; one of them is truncated, as some of WebQA's are."""
    found = {name: png(colour) for name, colour in reversed(COLOURS.items())}
    found["30000007"] = jpeg()[:-600]
    return found


def facts(query: str, known: dict[str, list[str]], image: bool) -> list[str]:
    return [name for name in known.get(query, []) if is_image(name) == image]


def webqa_row(query: str, text: str) -> dict[str, Any]:
    row: dict[str, Any] = {"qid": query, "Q": text, "A": ""}
    for kind, image in (("img", True), ("txt", False)):
        row[f"{kind}_posFacts"] = facts(query, POSITIVES, image)
        row[f"{kind}_negFacts"] = facts(query, NEGATIVES, image)
    return row


def webqa(folder: Path) -> Path:
    """UniVL-DR's form: a byte order mark, Windows line ends, blank last lines, both forms of judgements."""
    write_lines(folder / "train.json", [webqa_row(*item) for item in QUESTIONS["train"].items()], end="\r\n")
    write_lines(folder / "dev.json", [webqa_row(*item) for item in QUESTIONS["dev"].items()])
    write_lines(folder / "test.json", [webqa_row(*item) for item in QUESTIONS["test"].items()], end="\n\n")
    write_lines(
        folder / "all_docs.json", [{"snippet_id": n, "fact": t, "url": "x"} for n, t in TEXTS.items()], bom=True
    )
    write_lines(folder / "all_imgs.json", [{"image_id": n, "caption": t, "title": "t"} for n, t in CAPTIONS.items()])
    with (folder / "all_imgs.json").open("a") as file:
        file.write("\n")
    offsets = write_tsv(folder / "imgs.tsv", sample_images() | {UNUSED: png((1, 2, 3))})
    (folder / "imgs.lineidx.new").write_text("".join(f"{n}\t{offset}\n" for n, offset in sorted(offsets.items())))
    judged = {split: [(q, d) for q in rows for d in POSITIVES[q]] for split, rows in QUESTIONS.items()}
    (folder / "dev_qrels.txt").write_text("".join(f"{q} 0 {d} 1\n" for q, d in judged["dev"]))
    (folder / "test_qrels.txt").write_text("".join(f"{q}\t{d}\t1\n" for q, d in judged["test"]))
    return folder


def webqa_original(folder: Path) -> Path:
    """The authors' form: ids are numbers, the index holds offsets alone, facts recur; every document is a fact."""

    def fact(name: str) -> dict[str, Any]:
        if is_image(name):
            return {"image_id": int(name), "title": "t", "caption": CAPTIONS[name], "imgUrl": "http://x"}
        return {"snippet_id": name, "fact": TEXTS[name], "url": "http://x"}

    questions: dict[str, Any] = {}
    for split, rows in {"train": QUESTIONS["train"], "val": QUESTIONS["dev"]}.items():
        for query, text in rows.items():
            row: dict[str, Any] = {"Q": text, "A": ["?"], "Guid": query, "Qcate": "text", "split": split, "topic": "t"}
            for kind, image in (("img", True), ("txt", False)):
                row[f"{kind}_posFacts"] = [fact(name) for name in facts(query, POSITIVES, image)]
                row[f"{kind}_negFacts"] = [fact(name) for name in facts(query, NEGATIVES, image)]
            questions[query] = row
    questions["q3"]["img_negFacts"] = [fact(name) for name in CAPTIONS if name != "30000002"]
    questions["q3"]["txt_negFacts"] = [fact("d6aa1")]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "WebQA_train_val.json").write_text(json.dumps(questions, indent=1), encoding="utf-8")
    images = sample_images()
    offsets = write_tsv(folder / "imgs.tsv", {f"3000000{n}": images.get(f"3000000{n}", b"?") for n in range(8)})
    (folder / "imgs.lineidx").write_text("".join(f"{offset}\n" for offset in offsets.values()))
    return folder


def edis(folder: Path, all_candidates: bool = True) -> Path:
    """EDIS: three grades, images under a folder of their own, no texts."""
    for name, content in sample_images().items():
        file = folder / "edis_image" / "guardian" / f"{name}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    rows = {name: {"image": f"guardian/{name}.jpg", "headline": text} for name, text in CAPTIONS.items()}
    for split, called in {"train": "train", "dev": "val", "test": "test"}.items():
        queries = [
            {
                "id": query,
                "query": text,
                "candidates": [
                    {"candidate_id": name, **row, "score": 3 if name in POSITIVES[query] else 1 + number % 2}
                    for number, (name, row) in enumerate(rows.items())
                ],
            }
            for query, text in QUESTIONS[split].items()
            if is_image(POSITIVES[query][0])
        ]
        (folder / f"EDIS_{called}.json").write_text(json.dumps(queries))
    if all_candidates:
        every = [{"id": name, **row} for name, row in rows.items()]
        (folder / "EDIS_candidates_1m.json").write_text(json.dumps(every, indent=2))
    return folder


def mbeir(folder: Path, task: str = "mbeir_webqa_task2") -> Path:
    """M-BEIR's folders: judgements with five columns, ids with a colon, images under the root."""
    for name, content in sample_images().items():
        file = folder / "mbeir_images" / "webqa_images" / f"{name}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    pool = [
        {"did": f"2:{n}", "txt": t, "img_path": None, "modality": "text", "src_content": None} for n, t in TEXTS.items()
    ]
    pool += [
        {"did": f"2:{n}", "txt": t, "img_path": f"mbeir_images/webqa_images/{n}.jpg", "modality": "image,text"}
        for n, t in CAPTIONS.items()
    ]
    write_lines(folder / "cand_pool" / "local" / f"{task}_cand_pool.jsonl", pool)
    for split, called in {"train": "train", "dev": "val", "test": "test"}.items():
        rows = [
            {
                "qid": f"2:{query}",
                "query_txt": text,
                "query_img_path": None,
                "query_modality": "text",
                "query_src_content": None,
                "pos_cand_list": [f"2:{name}" for name in POSITIVES[query]],
                "neg_cand_list": [f"2:{name}" for name in NEGATIVES.get(query, [])],
            }
            for query, text in QUESTIONS[split].items()
        ]
        write_lines(folder / "query" / called / f"{task}_{called}.jsonl", rows)
        judged = "".join(f"2:{q} 0 2:{d} 1 2\n" for q in QUESTIONS[split] for d in POSITIVES[q])
        (folder / "qrels" / called).mkdir(parents=True, exist_ok=True)
        (folder / "qrels" / called / f"{task}_{called}_qrels.txt").write_text(judged)
    return folder


def clueweb(folder: Path) -> Path:
    """ClueWeb22-MM: one positive a row, images in a column of any name, tables whole or in shards."""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"text_id": list(TEXTS), "surround": list(TEXTS.values())}), folder / "text.parquet")
    images = pa.table(
        {"img_id": list(CAPTIONS), "caption": list(CAPTIONS.values()), "BUFFER": [sample_images()[n] for n in CAPTIONS]}
    )
    for number in range(2):
        pq.write_table(images.slice(number * 3, 3), folder / f"image-{number:05d}-of-00002.parquet")
    for split, rows in QUESTIONS.items():
        flat = [(q, t, name) for q, t in rows.items() for name in POSITIVES[q]]
        columns = {
            "qid": [q for q, _, _ in flat],
            "query": [t for _, t, _ in flat],
            "text_id": [None if is_image(name) else name for _, _, name in flat],
            "img_id": [name if is_image(name) else None for _, _, name in flat],
        }
        pq.write_table(pa.table(columns), folder / f"{split}.parquet")
    return folder


def json_form(folder: Path) -> Path:
    """Our own form as JSON lines; one file of queries for all splits."""
    rows: list[dict[str, Any]] = [{"id": name, "text": text} for name, text in TEXTS.items()]
    for name, text in CAPTIONS.items():
        file = folder / "images" / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(sample_images()[name])
        rows.append({"id": name, "text": text, "image": f"images/{name}.png"})
    write_lines(folder / "corpus.jsonl", rows)
    write_lines(
        folder / "queries.jsonl", [{"id": q, "text": t} for rows in QUESTIONS.values() for q, t in rows.items()]
    )
    (folder / "qrels").mkdir()
    for split in QUESTIONS:
        found = [(q, d, s) for q, judged in qrels_of(split).items() for d, s in judged.items()]
        header = "query-id\tcorpus-id\tscore\n"
        (folder / "qrels" / f"{split}.tsv").write_text(header + "".join(f"{q}\t{d}\t{s}\n" for q, d, s in found))
    return folder


def mteb(folder: Path) -> Path:
    """mteb's form: a corpus that says test and serves all, another name for the queries, texts of images with none."""
    image = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    names = [*TEXTS, *CAPTIONS]
    contents = [{"bytes": sample_images()[n], "path": f"{n}.jpg"} if is_image(n) else None for n in names]
    corpus = pa.table(
        {
            "id": names,
            "modality": ["image,text" if is_image(name) else "text" for name in names],
            "text": [(TEXTS | CAPTIONS)[name] for name in names],
            "image": pa.array(contents, type=image),
        }
    )
    for config in ("corpus", "query", "qrels"):
        (folder / config).mkdir(parents=True)
    pq.write_table(corpus, folder / "corpus" / "test-00000-of-00001.parquet")
    for split, rows in QUESTIONS.items():
        judged = [(q, d, s) for q, row in qrels_of(split).items() for d, s in row.items()]
        queries = {"id": list(rows), "modality": ["text"] * len(rows), "text": list(rows.values())}
        pq.write_table(pa.table(queries), folder / "query" / f"{split}-00000-of-00001.parquet")
        columns = dict(zip(("query-id", "corpus-id", "score"), map(list, zip(*judged, strict=True)), strict=True))
        pq.write_table(pa.table(columns), folder / "qrels" / f"{split}-00000-of-00001.parquet")
    return folder


SAMPLES: dict[str, Callable[[Path], Path]] = {
    "webqa": webqa,
    "webqa-original": webqa_original,
    "edis": edis,
    "mbeir": mbeir,
    "clueweb22-mm": clueweb,
    "jsonl": json_form,
    "parquet": mteb,
}
"""Writer of a sample data set by format."""
