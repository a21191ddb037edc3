"""`encode`, `encode_query`, `encode_document` and `similarity` on the model itself."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from sentence_transformers.util import quantize_embeddings
from torch.nn import functional as F

from ciea_hf.modeling.images_ciea import load_image
from tests.support.helpers import TEXT_FAMILIES, mixed_batch, mixed_inputs, tiny_model, toy_image

if TYPE_CHECKING:
    from pathlib import Path

    from ciea_hf import CIEAModel

families = pytest.mark.parametrize("text", TEXT_FAMILIES)
PROMPTS = {"query": "query : ", "document": "a photo of "}
close: dict[str, Any] = {"atol": 1e-5, "rtol": 0.0}


@pytest.fixture(scope="module")
def model() -> CIEAModel:
    return tiny_model(prompts=PROMPTS)


@families
@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_order_is_kept_and_batches_do_not_matter(text: str, batch_size: int) -> None:
    model = tiny_model(text)
    embeddings = model.encode(mixed_inputs(), batch_size=batch_size)
    assert embeddings.shape == (7, 32)
    assert embeddings.dtype == np.float32
    with torch.no_grad():
        np.testing.assert_allclose(embeddings, model(**mixed_batch(model)).embeddings, **close)
    one_by_one = np.stack([model.encode(value) for value in mixed_inputs()])
    np.testing.assert_allclose(embeddings, one_by_one, **close)


def test_inputs_of_one_kind_and_like_length_share_a_batch(model: CIEAModel, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = []
    original = model.processor.tokenize

    def spy(text: Any, has_image: Any, **kwargs: Any) -> Any:
        batches.append((list(text), list(has_image)))
        return original(text, has_image, **kwargs)

    monkeypatch.setattr(model.processor, "tokenize", spy)
    model.encode(["a", *mixed_inputs(), "a cat with a dog"], batch_size=2)
    assert batches == [
        (["the small house with a tree", "bread"], [True, True]),
        ([None, None], [True, True]),
        (["where is the big blue boat next to the green tower", "apple and bread on the car"], [False, False]),
        (["a cat with a dog", "a red cat"], [False, False]),
        (["a"], [False]),
    ]


def test_containers(model: CIEAModel, tmp_path: Path) -> None:
    texts = ["a red cat", "bread", "the small house"]
    expected = model.encode(texts)
    for inputs in (tuple(texts), np.array(texts), np.array(texts, dtype=object)):
        np.testing.assert_allclose(model.encode(inputs), expected, atol=1e-5)
    table = datasets.Dataset.from_dict({"text": texts})
    np.testing.assert_allclose(model.encode(table["text"]), expected, atol=1e-5)
    path = tmp_path / "cat.png"
    toy_image().save(path)
    for single in (toy_image(), path, str(path), np.asarray(toy_image()), torch.tensor(np.asarray(toy_image()))):
        embedding = model.encode(single)
        assert embedding.shape == (32,)
        np.testing.assert_allclose(embedding, model.encode([{"text": None, "image": toy_image()}])[0], **close)
    assert model.encode("a red cat").shape == model.encode({"text": "a cat", "image": toy_image()}).shape == (32,)
    assert model.encode(["a red cat"]).shape == (1, 32)


def test_tensors_and_lists(model: CIEAModel) -> None:
    expected = model.encode(mixed_inputs())
    tensor = model.encode(mixed_inputs(), convert_to_tensor=True)
    assert isinstance(tensor, torch.Tensor)
    assert tensor.dtype == torch.float32
    np.testing.assert_allclose(tensor, expected, atol=1e-5)
    rows = model.encode(mixed_inputs(), convert_to_numpy=False)
    assert isinstance(rows, list)
    assert all(isinstance(row, torch.Tensor) and row.shape == (32,) for row in rows)
    np.testing.assert_allclose(torch.stack(rows), expected, atol=1e-5)
    assert model.encode("bread", convert_to_tensor=True).shape == (32,)
    single: Any = model.encode("bread", convert_to_numpy=False)
    assert single.shape == (32,)


def test_prompts(model: CIEAModel) -> None:
    plain = model.encode(["query : a red cat", "a photo of a red cat", "a red cat"])
    queries = [
        model.encode_query("a red cat"),
        model.encode("a red cat", prompt_name="query"),
        model.encode("a red cat", prompt="query : "),
        model.encode("a red cat", prompt_name="document", prompt="query : "),  # the prompt itself goes first
        model.encode_document("a red cat", prompt_name="query"),
    ]
    for embedding in queries:
        np.testing.assert_allclose(embedding, plain[0], **close)
    np.testing.assert_allclose(model.encode_document("a red cat"), plain[1], **close)
    np.testing.assert_allclose(model.encode("a red cat"), plain[2], **close)
    assert abs(plain[0] - plain[2]).max() > 1e-3
    captioned = {"text": "a red cat", "image": toy_image(1)}
    np.testing.assert_allclose(
        model.encode_query(captioned), model.encode({**captioned, "text": "query : a red cat"}), **close
    )
    # an image alone takes no prompt
    np.testing.assert_allclose(model.encode_query(toy_image(1)), model.encode(toy_image(1)), **close)
    with pytest.raises(ValueError, match=r"one of the configured prompts \('query', 'document'\); got 'title'"):
        model.encode("a cat", prompt_name="title")


@pytest.mark.parametrize("name", ["document", "passage", "corpus"])
def test_documents_take_the_first_prompt_there_is(name: str) -> None:
    model = tiny_model(prompts={"corpus": "the", name: "a photo of "})
    np.testing.assert_allclose(model.encode_document("a red cat"), model.encode("a photo of a red cat"), **close)
    np.testing.assert_allclose(model.encode_query("a red cat"), model.encode("a red cat"), **close)


def test_normalised_and_truncated(model: CIEAModel) -> None:
    plain = model.encode(mixed_inputs())
    unit = model.encode(mixed_inputs(), normalize_embeddings=True)
    np.testing.assert_allclose(unit, plain / np.linalg.norm(plain, axis=1, keepdims=True), **close)
    np.testing.assert_allclose(model.encode(mixed_inputs(), truncate_dim=5), plain[:, :5], atol=1e-5)
    short = model.encode(mixed_inputs(), truncate_dim=5, normalize_embeddings=True)
    np.testing.assert_allclose(np.linalg.norm(short, axis=1), np.ones(7), **close)


@pytest.mark.parametrize("precision", ["float32", "int8", "uint8", "binary", "ubinary"])
def test_precisions_are_sentence_transformers_own(model: CIEAModel, precision: Any) -> None:
    plain = model.encode(mixed_inputs())
    embeddings = model.encode(mixed_inputs(), precision=precision)
    expected: Any = quantize_embeddings(plain, precision=precision)
    assert embeddings.dtype == expected.dtype
    np.testing.assert_allclose(embeddings, expected, atol=1e-5)
    tensor = model.encode(mixed_inputs(), precision=precision, convert_to_tensor=True)
    np.testing.assert_allclose(tensor, expected, atol=1e-5)


def test_precision_needs_sentence_transformers(model: CIEAModel, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("sentence_transformers")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [])
    with pytest.raises(ImportError, match=r"`precision='int8'` requires sentence-transformers: pip install"):
        model.encode("a cat", precision="int8")


def test_progress_bar(model: CIEAModel, capsys: pytest.CaptureFixture[str]) -> None:
    model.encode(mixed_inputs(), show_progress_bar=False)
    model.encode(mixed_inputs())  # by default only at log level INFO
    assert capsys.readouterr().err == ""
    model.encode(mixed_inputs(), show_progress_bar=True, batch_size=2)
    shown = capsys.readouterr().err
    assert "Encoding" in shown
    assert "7/7" in shown


def test_the_state_of_the_model_is_left_as_it_was() -> None:
    model = tiny_model(extractor_dropout=0.9)
    expected = model.encode(mixed_inputs())
    model.train()
    np.testing.assert_allclose(model.encode(mixed_inputs()), expected, atol=1e-5)  # without dropout
    assert model.training
    assert model.text_model.training
    with pytest.raises(ValueError, match="cannot be decoded"):
        model.encode({"image": b"broken"})
    assert model.training
    model.eval()
    model.encode("a cat")
    assert not model.training
    assert all(weight.grad is None and weight.requires_grad for weight in model.parameters())


@families
def test_half_precision_gives_float32(text: str) -> None:
    model = tiny_model(text)
    expected = model.encode(mixed_inputs())
    embeddings = model.bfloat16().encode(mixed_inputs())
    assert embeddings.dtype == np.float32
    assert F.cosine_similarity(torch.tensor(embeddings), torch.tensor(expected)).min() > 0.999


def test_device(model: CIEAModel) -> None:
    moved = model.encode(mixed_inputs(), device="cpu", convert_to_tensor=True)
    assert moved.device.type == model.device.type == "cpu"


def test_similarity(model: CIEAModel) -> None:
    queries, documents = model.encode(["a cat", "bread"]), model.encode(mixed_inputs())
    expected = np.array([[q @ d / (math.sqrt(q @ q) * math.sqrt(d @ d)) for d in documents] for q in queries])
    for left, right in (
        (queries, documents),
        (torch.tensor(queries), torch.tensor(documents)),
        (list(queries), list(torch.tensor(documents))),
        (torch.tensor(queries, dtype=torch.float64), documents),
    ):
        scores = model.similarity(left, right)
        assert scores.dtype == torch.float32
        np.testing.assert_allclose(scores, expected, **close)
    np.testing.assert_allclose(model.similarity(queries[0], documents[3]), expected[:1, 3:4], **close)
    pairwise = model.similarity_pairwise(queries, documents[:2])
    np.testing.assert_allclose(pairwise, expected[[0, 1], [0, 1]], **close)


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ("", ValueError, "the text is empty"),
        ({"text": None, "image": None}, ValueError, "an input needs a text or an image; got neither"),
        ({"text": "a cat", "image": "nowhere.png"}, FileNotFoundError, "image file 'nowhere.png' not found"),
        ({"image": b"broken"}, ValueError, "image cannot be decoded"),
        ({"text": "a cat", "image": "{broken}"}, ValueError, r"image '.*broken\.png' cannot be decoded"),
        ({"image": [toy_image(), toy_image()]}, ValueError, "one image per input; got 2"),
        ({"image": "https://example.org/cat.png"}, ValueError, "is a URL"),
        (7, TypeError, "an input must be a str, .* got int"),
        (["a cat"], TypeError, "an input must be a str, .* got list"),
    ],
)
def test_errors_name_the_position(
    model: CIEAModel, value: Any, error: type[Exception], message: str, tmp_path: Path
) -> None:
    if isinstance(value, dict) and value.get("image") == "{broken}":
        value = {**value, "image": tmp_path / "broken.png"}
        value["image"].write_bytes(b"broken")
    with pytest.raises(error, match=f"^input 8: .*{message}"):
        model.encode([*mixed_inputs(), "bread", value], batch_size=1)
    with pytest.raises(error, match=f"^input 0: .*{message}"):
        model.encode_document([value])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"precision": "int4"}, "`precision` must be one of float32, int8, uint8, binary, ubinary; got 'int4'"),
        ({"batch_size": 0}, "`batch_size` must be positive; got 0"),
        ({"truncate_dim": 33}, "`truncate_dim` must be between 1 and 32; got 33"),
        ({"truncate_dim": 0}, "`truncate_dim` must be between 1 and 32; got 0"),
    ],
)
def test_arguments_out_of_their_choices(model: CIEAModel, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model.encode("a cat", **settings)


def test_nothing_to_embed_and_unknown_arguments(model: CIEAModel) -> None:
    empty: tuple[Any, ...] = ([], (), np.array([], dtype=object))
    for nothing in empty:
        assert model.encode(nothing, normalize_embeddings=True, truncate_dim=8).shape == (0, 8)
        for precision in ("int8", "uint8", "binary", "ubinary"):
            some, none = (model.encode(inputs, precision=precision) for inputs in (["a cat", "bread"], nothing))
            assert (none.dtype, none.shape) == (some.dtype, (0, some.shape[1]))
    with pytest.raises(
        TypeError, match=r"`device` must be one device; got \['cpu', 'cpu'\] \(SentenceTransformer supports several"
    ):
        model.encode("a cat", device=["cpu", "cpu"])  # type: ignore[call-overload]
    encoders: tuple[Any, ...] = (model.encode_query, model.encode_document)
    for encode in encoders:
        with pytest.raises(TypeError, match=r"unknown argument\(s\) task; valid arguments: inputs, .*batch_size"):
            encode("a cat", task="query")
        np.testing.assert_array_equal(encode(["a cat"], None, "red ", 2), model.encode(["a cat"], prompt="red "))
        with pytest.raises(TypeError, match=r"unknown argument\(s\) batchsize; valid arguments: inputs, .*batch_size"):
            encode("a cat", batchsize=3)
    with pytest.raises(TypeError, match="batchsize"):
        model.encode("a cat", batchsize=3)  # type: ignore[call-overload]


def test_each_image_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(5)]
    for number, path in enumerate(paths):
        toy_image(number).save(path)
    model = tiny_model()
    expected = model.encode([toy_image(number) for number in range(5)])
    decoded: list[Any] = []

    def counted(source: Any, *args: Any, **kwargs: Any) -> Image.Image:
        decoded.append(source)
        return original(source, *args, **kwargs)

    original = Image.open
    monkeypatch.setattr(Image, "open", counted)
    loaded: list[Any] = []

    def loading(image: Any) -> Image.Image:
        loaded.append(image)
        return load_image(image)

    monkeypatch.setattr("ciea_hf.modeling.batches_ciea.load_image", loading)
    np.testing.assert_array_equal(model.encode(paths), expected)
    assert len(decoded) == len(loaded) == 5
