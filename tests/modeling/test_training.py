"""What training asks of the model: attention kernels, checkpointed gradients, new tokens, adapters, compilation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from ciea_hf import CIEAModel
from tests.support.helpers import TEXT_FAMILIES, mixed_batch, mixed_inputs, tiny_model

families = pytest.mark.parametrize("text", TEXT_FAMILIES)
ATTENTION = {"t5": ["q", "v"], "bart": ["q_proj", "v_proj"], "bert": ["query", "value"], "gpt2": ["c_attn"]}


def gradients(model: CIEAModel) -> dict[str, torch.Tensor]:
    """Gradients of a function of everything the model returns, under a fixed seed."""
    model.zero_grad()
    torch.manual_seed(5)
    output = model(**mixed_batch(model), image_only_from="extracted")
    (output.embeddings.sin().sum() + output.image_embeddings.cos().sum()).backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


@families
@torch.no_grad()
def test_trained_tokens_merge_equal(text: str) -> None:
    """Also those that the encoder and the decoder share, as T5's start token."""
    model = tiny_model(text)
    batch = mixed_batch(model)
    table = {"t5": "shared", "bart": "shared", "bert": "word_embeddings", "gpt2": "wte"}[text]
    lora = LoraConfig(r=4, target_modules=ATTENTION[text], trainable_token_indices={table: [0, 3, 5]})
    adapted = get_peft_model(model, lora).eval()
    before = adapted(**batch).embeddings
    for name, weight in adapted.named_parameters():
        if "trainable_tokens" in name:
            weight.add_(torch.randn_like(weight))
    trained = adapted(**batch).embeddings
    assert (trained - before).abs().max() > 1e-3
    torch.testing.assert_close(adapted.merge_and_unload()(**batch).embeddings, trained, atol=1e-5, rtol=1e-5)


@families
@torch.no_grad()
def test_eager_attention_equals_sdpa(text: str, tmp_path: Any) -> None:
    tiny_model(text).save_pretrained(tmp_path)
    outputs = []
    for kernel in ("eager", "sdpa"):
        model = CIEAModel.from_pretrained(tmp_path, attn_implementation=kernel)
        assert model.text_model.config._attn_implementation == kernel
        assert model.vision_model.config._attn_implementation == kernel
        outputs.append(model(**mixed_batch(model), image_only_from="extracted"))
    for name in ("embeddings", "image_embeddings"):
        torch.testing.assert_close(outputs[0][name], outputs[1][name], atol=1e-5, rtol=0.0)


@families
@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_gives_the_same_gradients(text: str, reentrant: bool) -> None:
    model = tiny_model(text).train()  # with dropout: the same numbers are drawn again
    calls: list[str] = []
    for name, module in model.named_modules():
        if name.endswith((ATTENTION[text][0], "extractor.q_proj")) and "vision" not in name:
            module.register_forward_hook(lambda *_, name=name: calls.append(name))
    expected = gradients(model)
    once = sorted(calls)
    assert "extractor.q_proj" in once
    calls.clear()
    model.activation_checkpointing_enable({"use_reentrant": reentrant})
    assert model.is_activation_checkpointing
    actual = gradients(model)
    assert sorted(calls) == sorted(once + once)  # computed again in the backward pass
    assert actual.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(actual[name], gradient, atol=1e-5, rtol=1e-5)
    assert max(gradient.abs().max() for gradient in expected.values()) > 0.1
    model.activation_checkpointing_disable()
    assert not model.is_activation_checkpointing


def test_gradients_reach_every_part_but_what_pooling_leaves_out() -> None:
    reached = gradients(tiny_model("t5"))
    for part in ("vision_model.encoder", "projector", "extractor.q_proj", "extractor.fc2", "text_model.shared"):
        assert any(name.startswith(part) and gradient.abs().max() > 0 for name, gradient in reached.items()), part


@families
def test_more_tokens(text: str) -> None:
    model = tiny_model(text)
    before = model.encode(mixed_inputs())
    model.processor.tokenizer.add_tokens([f"new{index}" for index in range(40)])
    rows = len(model.processor.tokenizer)
    assert rows > 64
    model.resize_token_embeddings(rows)
    assert model.config.text_config.vocab_size == model.text_model.config.vocab_size == rows
    table = model.get_input_embeddings().weight
    assert table.shape == (rows, 32)
    if text in ("t5", "bart"):
        assert model.text_model.encoder.embed_tokens.weight is table
        assert model.text_model.decoder.embed_tokens.weight is table
    after = model.encode(mixed_inputs())
    torch.testing.assert_close(torch.tensor(after), torch.tensor(before))
    assert abs(model.encode("new39") - model.encode("new38")).max() > 0


@families
def test_resized_and_saved(text: str, tmp_path: Any) -> None:
    model = tiny_model(text)
    model.resize_token_embeddings(80)
    model.save_pretrained(tmp_path)
    loaded = CIEAModel.from_pretrained(tmp_path)
    assert loaded.config.text_config.vocab_size == 80
    tables: list[Any] = [loaded.get_input_embeddings(), model.get_input_embeddings()]
    assert torch.equal(tables[0].weight, tables[1].weight)


@families
def test_lora(text: str) -> None:
    model = tiny_model(text)
    batch = mixed_batch(model)
    with torch.no_grad():
        before = model(**batch).embeddings
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=ATTENTION[text], modules_to_save=["projector"]))
    trained = {name for name, weight in adapted.named_parameters() if weight.requires_grad}
    assert trained
    assert all("lora_" in name or "projector.modules_to_save" in name for name in trained)
    torch.testing.assert_close(adapted(**batch).embeddings, before)
    optimizer = torch.optim.SGD([weight for weight in adapted.parameters() if weight.requires_grad], lr=0.1)
    frozen = {name: weight.clone() for name, weight in adapted.named_parameters() if not weight.requires_grad}
    for _ in range(2):  # the second factor starts at 0 and opens the first one's gradient
        optimizer.zero_grad()
        adapted(**batch).embeddings.sin().sum().backward()
        optimizer.step()
    parameters = dict(adapted.named_parameters())
    assert all(torch.equal(parameters[name], weight) for name, weight in frozen.items())
    with torch.no_grad():
        trained_embeddings = adapted(**batch).embeddings
        assert (trained_embeddings - before).abs().max() > 1e-3
        merged = adapted.merge_and_unload()
        assert isinstance(merged, CIEAModel)
        torch.testing.assert_close(merged(**batch).embeddings, trained_embeddings, atol=1e-5, rtol=1e-5)
    assert merged.encode(mixed_inputs()).shape == (7, 32)


@families
@torch.no_grad()
def test_compiled_without_a_graph_break(text: str) -> None:
    torch._dynamo.reset()
    model = tiny_model(text)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager", dynamic=False)
    texts = model.processor(text=["a red cat", "where is the dog"])
    torch.testing.assert_close(compiled(**texts).embeddings, model(**texts).embeddings, atol=1e-5, rtol=0.0)
    mixed = {**mixed_batch(model), "image_only_from": "extracted", "output_patches": True}
    output, expected = compiled(**mixed), model(**mixed)
    assert len(expected) == 5
    for name in expected:
        torch.testing.assert_close(output[name], expected[name], atol=1e-5, rtol=0.0)
