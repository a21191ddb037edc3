"""Odd inputs and arguments of encode and its relatives, of the processor, and of SentenceTransformer.

What is accepted has embeddings that are finite and equal to those of the input alone; what is refused is named.
"""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image
from sentence_transformers import SentenceTransformer

from tests.fuzz.outcomes import TEXTS, VALUES, Tally, cases, outcome
from tests.support.helpers import PATCHES, WORDS, tiny_model, tiny_processor, toy_image

if TYPE_CHECKING:
    import random

    from ciea_hf import CIEAModel

NAMED = ("input ", "`", "'", "argument")  # what a clear message names: an input, or an argument or value
ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "batch_size": (1, 2, 7, 0, -1, 10**30, 0.5, True, "2", None),
    "precision": ("float32", "int8", "uint8", "binary", "ubinary", "half", 7),
    "convert_to_numpy": (True, False), "convert_to_tensor": (True, False), "normalize_embeddings": (True, False),
    "truncate_dim": (1, 8, 32, 33, 0, -1, 0.5, "8", None), "show_progress_bar": (False, None),
    "prompt": (None, "", "query: ", "\ud83d", 7), "prompt_name": (None, "query", "nothing", 7),
    "device": (None, "cpu", "nothing", "meta", "cuda:99", 7, ["cpu"]), "nothing": (1,), "task": ("x",),
}  # fmt: skip


@pytest.fixture(scope="module")
def model() -> CIEAModel:
    return tiny_model()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """Images in the forms in which people hold them, sound ones and others."""
    folder = tmp_path_factory.mktemp("images")
    toy_image(1).save(folder / "sound.png")
    (folder / "broken.png").write_bytes((folder / "sound.png").read_bytes()[:60])
    toy_image(2).save(folder / "sound.tif")
    toy_image(3).save(folder / "closed.png")
    with Image.open(folder / "closed.png") as closed:
        pass
    palette, grey = toy_image(4).convert("P"), toy_image(5).convert("L")
    sound = (folder / "sound.png").read_bytes()
    random_pixels = np.random.default_rng(0).integers(0, 256, (9, 9, 4), dtype=np.uint8)
    arrays: list[Any] = [random_pixels[..., :3], random_pixels, random_pixels[..., 0], random_pixels[..., :1]]
    arrays += [
        np.zeros((0, 0, 3), np.uint8),
        np.zeros((4, 4, 3)),
        np.full((4, 4, 3), np.nan),
        np.zeros(3),
        torch.zeros(3),
    ]
    files = [str(folder / name) for name in ("sound.png", "broken.png", "sound.tif", "gone.png", "")]
    shapes = [Image.new("RGB", (1, 1)), Image.new("RGB", (1, 300))]
    return [
        toy_image(1), palette, grey, palette.convert("RGBA"), closed, *shapes,
        *files, *map(Path, files), *arrays, sound, sound[:50], b"", io.BytesIO(sound), "/dev/zero", "/etc/passwd",
        "http://127.0.0.1:9/x.png",
    ]  # fmt: skip


def random_text(numbers: random.Random) -> Any:
    if numbers.random() < 0.3:
        return numbers.choice(TEXTS)
    words = numbers.choices(
        [*WORDS, "<im_patch>", "<im_start>", "</s>", "\u202e", "caf\u00e9", "\u732b", "\U0001f431"],
        k=numbers.randint(1, 40),
    )
    return " ".join(words)


def random_input(numbers: random.Random, images: list[Any]) -> Any:
    kind = numbers.random()
    if kind < 0.35:
        return random_text(numbers)
    if kind < 0.55:
        return numbers.choice(images)
    if kind < 0.9:
        content: dict[str, Any] = {"text": random_text(numbers), "image": numbers.choice([None, *images])}
        if numbers.random() < 0.2:
            content.pop(numbers.choice(("text", "image")))
        if numbers.random() < 0.1:
            content[numbers.choice(("caption", "id", ""))] = "x"
        return content
    return numbers.choice(VALUES)


def wrong_rows(found: Any, alone: list[Any]) -> str | None:
    """What is wrong with embeddings, beside those of each input alone; `None` if nothing is."""
    rows = np.asarray(torch.stack(found) if isinstance(found, list) and found else found)
    if rows.shape[0] != len(alone):
        return f"{len(alone)} inputs, embeddings of shape {rows.shape}"
    if not np.isfinite(rows.astype(np.float32)).all():
        return "embeddings that are not finite"
    if alone and not np.allclose(rows, np.stack(alone), atol=1e-4):
        return f"a difference of {np.abs(rows - np.stack(alone)).max()} from the inputs alone"
    return None


def test_inputs_are_embedded_or_named(model: CIEAModel, images: list[Any]) -> None:
    tally = Tally()
    for seed, numbers in cases(25):
        inputs = [random_input(numbers, images) for _ in range(numbers.randint(1, 3))]
        encode: Any = numbers.choice((model.encode, model.encode_query, model.encode_document))
        found, detail = outcome(partial(encode, inputs, batch_size=2))
        if found == "clear" and not detail.startswith("input "):
            found = "unclear"
        if found == "accepted":
            wrong = wrong_rows(detail, [encode(item) for item in inputs])
            found, detail = ("accepted", "") if wrong is None else ("unclear", wrong)
        tally.add(found, f"seed {seed}: {str(inputs)[:300]}: {detail}")
    tally.check()


def test_arguments_are_used_or_named(model: CIEAModel) -> None:
    tally = Tally()
    inputs = ["a red cat", {"text": "the house", "image": toy_image(1)}, toy_image(2)]
    call: Any = model.encode
    sizes = {"int8": 32, "uint8": 32, "binary": 4, "ubinary": 4}
    for seed, numbers in cases(40):
        names = numbers.sample(list(ARGUMENTS), numbers.randint(1, 3))
        chosen = {name: numbers.choice(ARGUMENTS[name]) for name in names}
        given = numbers.choice((inputs, inputs[:1], [], "a cat", inputs[1]))
        found, detail = outcome(partial(call, given, **chosen))
        if found == "clear" and not any(f"`{name}`" in detail or name in detail for name in (*names, "input 0")):
            found = "unclear"
        if found == "accepted" and given is inputs:
            rows = np.asarray(torch.stack(detail) if isinstance(detail, list) else detail)
            width = chosen.get("truncate_dim") or 32
            width = -(-width // 8) if sizes.get(chosen.get("precision", "")) == 4 else width
            if rows.shape != (3, width) or not np.isfinite(rows.astype(np.float32)).all():
                found, detail = "unclear", f"shape {rows.shape} in the place of (3, {width}), or not finite"
        tally.add(found, f"seed {seed}: {chosen} {str(given)[:60]}: {detail}")
    tally.check()


def test_the_processor_makes_batches_or_names_what_is_wrong(images: list[Any]) -> None:
    processor = tiny_processor()
    call: Any = processor
    options: dict[str, tuple[Any, ...]] = {
        "max_length": (None, 1, 2, 8, 64, 10**9, 0, -1, "8", 0.5),
        "padding": (None, True, False, "longest", "max_length", "x"),
        "return_tensors": ("pt", "np", None, "x"), "size": ({"shortest_edge": 32}, {"shortest_edge": 0}, 32, "x"),
        "do_resize": (True, False), "do_rescale": (True, False), "images_kwargs": ({}, {"do_normalize": False}, 7),
        "text_kwargs": ({}, {"max_length": 8}, {"nothing": 1}), "device": ("cpu", "x"), "nothing": (1,),
    }  # fmt: skip
    tally = Tally()
    for seed, numbers in cases(40):
        count = numbers.randint(1, 3)
        text: Any = [random_text(numbers) for _ in range(count)]
        shown: Any = [numbers.choice([None, toy_image(1), *images]) for _ in range(count)]
        text = numbers.choice((text, text, text, None, text[0], numbers.choice(VALUES)))
        shown = numbers.choice((shown, shown, None, None, shown[0], [[image] for image in shown]))
        chosen = {name: numbers.choice(options[name]) for name in numbers.sample(list(options), numbers.randint(0, 2))}
        found, detail = outcome(partial(call, shown, text, **chosen))
        if found == "clear" and not any(
            name in detail for name in ("input ", *chosen, "`text`", "`images`", "takes", "x is")
        ):
            found = "unclear"
        if found == "accepted":
            rows = [list(row) for row in detail["input_ids"]]
            placeholders = sum(int(token) == processor.image_token_id for row in rows for token in row)
            written = sum(str(item).count("<im_patch>") for item in (text if isinstance(text, list) else [text]))
            expected = PATCHES * len(detail.get("pixel_values", ()))
            if not written and placeholders != expected:
                found, detail = "unclear", f"{placeholders} placeholders for {expected} patches"
        tally.add(found, f"seed {seed}: {str(text)[:200]} {str(shown)[:200]} {chosen}: {detail}")
    tally.check()


EMPTY = ("the text is empty", "got neither")  # errors of texts that sentence-transformers embeds


def test_sentence_transformers_embeds_the_same_or_names_what_is_wrong(
    model: CIEAModel, images: list[Any], tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path)
    theirs = SentenceTransformer(str(tmp_path))
    tally = Tally()
    for seed, numbers in cases(20):
        inputs = [random_input(numbers, images) for _ in range(numbers.randint(1, 3))]
        found, detail = outcome(partial(theirs.encode, inputs, batch_size=2))
        if found == "accepted":
            mine, expected = outcome(partial(model.encode, inputs))
            if mine == "accepted" and not np.allclose(detail, expected, atol=1e-4):
                found, detail = "unclear", f"differs from encode by {np.abs(detail - expected).max()}"
            elif mine != "accepted" and not any(empty in expected for empty in EMPTY):
                found, detail = "unclear", f"encode refuses it: {expected}"
        tally.add(found, f"seed {seed}: {str(inputs)[:300]}: {detail}")
    tally.check()
