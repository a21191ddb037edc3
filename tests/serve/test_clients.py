"""The unmodified clients of OpenAI, Voyage and Cohere get the embeddings that the model computes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cohere
import httpx
import numpy as np
import openai
import pytest
import voyageai
from voyageai.client import Client

from tests.support.helpers import toy_image
from tests.support.service import data_uri, running

if TYPE_CHECKING:
    from ciea_hf import CIEAModel

CAPTIONED = [{"text": "a red cat", "image": toy_image(1)}, {"text": "a red cat", "image": toy_image(2)}]


def expected(model: CIEAModel, inputs: list[Any], role: str | None = None, dimension: int | None = None) -> Any:
    encode: Any = {"query": model.encode_query, "document": model.encode_document, None: model.encode}[role]
    return encode(inputs, normalize_embeddings=True, truncate_dim=dimension)


def close(actual: Any, wanted: Any) -> bool:
    return bool(np.allclose(np.asarray(actual, dtype=np.float32), wanted, atol=1e-5))


@pytest.fixture
def openai_client(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


@pytest.fixture
def voyage_client(url: str) -> Any:
    return Client(api_key="none", base_url=f"{url}/v1", max_retries=0)


@pytest.fixture
def cohere_client(url: str) -> cohere.ClientV2:
    return cohere.ClientV2(api_key="none", base_url=url)


def test_openai_texts_in_order(openai_client: openai.OpenAI, served_model: CIEAModel) -> None:
    texts = ["a red cat", "the big blue house next to the green tower", "dog"]
    response = openai_client.embeddings.create(model="any", input=texts)
    assert close([entry.embedding for entry in response.data], expected(served_model, texts))
    assert [entry.index for entry in response.data] == [0, 1, 2]
    assert response.model == "tiny"
    assert response.usage.prompt_tokens == sum(len(served_model.processor.tokenizer(text).input_ids) for text in texts)


def test_openai_options(openai_client: openai.OpenAI, served_model: CIEAModel) -> None:
    response = openai_client.embeddings.create(
        model="any", input="dog", dimensions=8, encoding_format="float", extra_body={"input_type": "query"}
    )
    assert close(response.data[0].embedding, expected(served_model, ["dog"], "query", 8)[0])
    assert not close(response.data[0].embedding, expected(served_model, ["dog"], "document", 8)[0])
    assert [model.id for model in openai_client.models.list()] == ["tiny"]


def test_openai_images_and_captions(openai_client: openai.OpenAI, served_model: CIEAModel) -> None:
    inputs = [*CAPTIONED, toy_image(3), "dog"]
    sent = [
        {"text": "a red cat", "image": data_uri(toy_image(1))},
        {"text": "a red cat", "image": data_uri(toy_image(2)).partition(",")[2]},  # bare base64, as in Jina's service
        {"image": data_uri(toy_image(3))},
        {"text": "dog"},
    ]
    response = openai_client.embeddings.create(model="any", input=sent)  # type: ignore[arg-type]
    rows = np.array([entry.embedding for entry in response.data])
    assert close(rows, expected(served_model, inputs))
    assert not close(rows[0], rows[1])


@pytest.mark.parametrize("ids", [[1, 2, 3], [[1, 2], [3]]])
def test_openai_token_ids_are_a_clear_error(openai_client: openai.OpenAI, ids: Any) -> None:
    with pytest.raises(openai.BadRequestError, match="token ids are not supported; send the text") as caught:
        openai_client.embeddings.create(model="any", input=ids)
    assert caught.value.type == "invalid_request_error"


def test_voyage_text_and_image_in_one_vector(voyage_client: Any, served_model: CIEAModel) -> None:
    inputs = [[item["text"], item["image"]] for item in CAPTIONED] + [[toy_image(3)], ["a", "dog"]]
    for role in (None, "query", "document"):
        found = voyage_client.multimodal_embed(inputs, model="any", input_type=role)
        assert close(found.embeddings, expected(served_model, [*CAPTIONED, toy_image(3), "a dog"], role))
    assert found.image_pixels == 3 * 40 * 36
    assert found.total_tokens == found.text_tokens + 3 * served_model.config.image_seq_length


def test_voyage_options_and_texts(voyage_client: Any, served_model: CIEAModel) -> None:
    found = voyage_client.multimodal_embed([["dog"]], model="any", output_dimension=16, output_dtype="ubinary")
    assert found.embeddings == np.packbits(expected(served_model, ["dog"], None, 16) > 0, axis=1).tolist()
    found = voyage_client.embed(["dog", "cat"], model="voyage-any", input_type="query", output_dimension=8)
    assert close(found.embeddings, expected(served_model, ["dog", "cat"], "query", 8))


def test_voyage_errors(voyage_client: Any) -> None:
    with pytest.raises(voyageai.error.InvalidRequestError, match=r"inputs\[1\]: one image per input; got 2"):
        voyage_client.multimodal_embed([["dog"], [toy_image(1), toy_image(2)]], model="any")
    content = [{"type": "image_url", "image_url": "http://127.0.0.1/x.png"}]
    with pytest.raises(voyageai.error.InvalidRequestError, match="URLs are not fetched"):
        voyage_client.multimodal_embed([{"content": content}], model="any")
    with pytest.raises(voyageai.error.InvalidRequestError, match="tokens; the model's maximum is"):
        voyage_client.multimodal_embed([["dog " * 500]], model="any", truncation=False)


def test_cohere_texts_images_and_both(cohere_client: cohere.ClientV2, served_model: CIEAModel) -> None:
    found = cohere_client.embed(
        model="any", input_type="search_query", texts=["dog"], embedding_types=["float", "base64", "binary", "ubinary"]
    )
    row = expected(served_model, ["dog"], "query")
    bits = np.packbits(row > 0, axis=1)
    assert close(found.embeddings.float_, row)
    assert found.embeddings.ubinary == bits.tolist()
    assert found.embeddings.binary == (bits.astype(int) - 128).tolist()
    assert found.texts == ["dog"]
    images = [data_uri(toy_image(number), form) for number, form in ((1, "PNG"), (2, "WEBP"))]
    found = cohere_client.embed(model="any", input_type="image", images=images[:1], embedding_types=["float"])
    assert close(found.embeddings.float_, expected(served_model, [toy_image(1)], "document"))
    part: Any = {"content": [{"type": "text", "text": "a red cat"},
                             {"type": "image_url", "image_url": {"url": images[0]}}]}  # fmt: skip
    found = cohere_client.embed(model="any", input_type="search_document", inputs=[part], output_dimension=8)
    assert close(found.embeddings.float_, expected(served_model, CAPTIONED[:1], "document", 8))


def test_cohere_errors(cohere_client: cohere.ClientV2) -> None:
    with pytest.raises(cohere.BadRequestError, match="exactly one of texts, images and inputs"):
        cohere_client.embed(model="any", input_type="search_query", texts=["a"], images=["b"])
    with pytest.raises(cohere.BadRequestError, match=r"images\[0\]: the image is not valid base64"):
        cohere_client.embed(model="any", input_type="image", images=["data:image/png;base64,?"])


def test_clients_send_the_api_key(served_model: CIEAModel) -> None:
    with running(served_model, api_key="secret") as base:
        good = openai.OpenAI(base_url=f"{base}/v1", api_key="secret", max_retries=0)
        assert len(good.embeddings.create(model="any", input="dog").data) == 1
        with pytest.raises(openai.AuthenticationError):
            openai.OpenAI(base_url=f"{base}/v1", api_key="guess", max_retries=0).models.list()
        assert len(cohere.ClientV2(api_key="secret", base_url=base).embed(
            model="any", input_type="clustering", texts=["dog"]
        ).embeddings.float_ or []) == 1  # fmt: skip
        assert [httpx.get(f"{base}{path}").status_code for path in ("/health", "/ready", "/metrics", "/docs")] == [
            200, 200, 401, 401,
        ]  # fmt: skip
