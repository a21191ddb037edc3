"""Text towers of the demo: a small T5, BART, BERT or GPT-2 with random weights, and a word-level tokenizer."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import torch
from tokenizers import Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import WordLevel
from tokenizers.processors import TemplateProcessing
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedTokenizerFast

from ciea_hf.data import column_values
from ciea_hf.files import atomic_folder

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from ciea_hf.data import RetrievalDataset

PAD, EOS, UNK = "<pad>", "</s>", "<unk>"  # ids 0, 1 and 2, as in T5
CAPTION_PREFIX = " caption:"  # between an image and its caption
CLS = "<cls>"  # precedes a text, for towers pooled at the first token
MAX_LENGTH = 128  # tokens
POSITIONS = 256  # size of a position table: an image's placeholders and its caption

# Miniatures of the paper's four language models: two layers (per side), width 128, four heads.
INITIAL_STD = 0.05  # of weights; the default of .02 is for widths of 768 and more, and such a tower hardly learns
FAMILIES: dict[str, dict[str, int | float]] = {
    "t5": {"d_model": 128, "d_kv": 32, "d_ff": 256, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 4},
    "bart": {
        "d_model": 128, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
        "decoder_attention_heads": 4, "encoder_ffn_dim": 256, "decoder_ffn_dim": 256,
        "max_position_embeddings": POSITIONS, "decoder_start_token_id": 0, "bos_token_id": 0, "init_std": INITIAL_STD,
    },
    "bert": {
        "hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 256,
        "max_position_embeddings": POSITIONS, "initializer_range": INITIAL_STD,
    },
    "gpt2": {
        "n_embd": 128, "n_layer": 2, "n_head": 4, "n_positions": POSITIONS, "bos_token_id": 1,
        "initializer_range": INITIAL_STD,
    },
}  # fmt: skip


def training_texts(dataset: RetrievalDataset) -> list[str]:
    """Return all texts of a split (captions, text documents, queries) and the data set's vocabulary."""
    texts = column_values(dataset.corpus, "text") + column_values(dataset.queries, "text")
    return [*(text for text in texts if text), *dataset.vocabulary]


def build_tokenizer(texts: Iterable[str], first_token: bool = False) -> PreTrainedTokenizerFast:
    """Build a lower-casing word-level tokenizer that appends `</s>`; its vocabulary is in alphabetical order.

    Args:
        texts: Texts whose words and runs of punctuation form the vocabulary.
        first_token: Whether to prepend `<cls>`.
    """
    normalizer = normalizers.Lowercase()
    splitter = pre_tokenizers.Whitespace()
    words: Counter[str] = Counter()
    for text in texts:
        words.update(word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    specials = [PAD, EOS, UNK, *([CLS] if first_token else [])]
    vocabulary = {word: i for i, word in enumerate([*specials, *sorted(words)])}
    start = f"{CLS} " if first_token else ""
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token=UNK))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = splitter
    tokenizer.post_processor = TemplateProcessing(
        single=f"{start}$A {EOS}",
        pair=f"{start}$A {EOS} $B {EOS}",
        special_tokens=[(token, vocabulary[token]) for token in (EOS, CLS) if token in vocabulary],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNK,
        model_max_length=MAX_LENGTH,
        padding_side="right",
        **({"cls_token": CLS} if first_token else {}),
    )


def text_config(family: str, vocab_size: int) -> PretrainedConfig:
    """Return the configuration of a tower.

    Args:
        family: One of `FAMILIES`.
        vocab_size: Number of rows of the token table.

    Raises:
        ValueError: If the family is unknown.
    """
    if family not in FAMILIES:
        raise ValueError(f"`family` must be one of {', '.join(FAMILIES)}; got {family!r}")
    ids = {"pad_token_id": 0, "eos_token_id": 1}
    return AutoConfig.for_model(family, **{**ids, "vocab_size": vocab_size, **FAMILIES[family]})


def build_text_tower(folder: str | Path, texts: Iterable[str], seed: int = 0, family: str = "t5") -> None:
    """Write an untrained text tower for a new CIEA model, which `AutoModel` and `AutoTokenizer` can load.

    The vocabulary consists of the words of `texts` and of the caption prefix.

    Args:
        folder: Output folder; an existing one is replaced.
        texts: Training texts; see [`training_texts`].
        seed: Random seed of the weights. The global random state is unchanged.
        family: One of `FAMILIES`: `"t5"`, `"bart"`, `"bert"` or `"gpt2"`.

    Raises:
        ValueError: If the family is unknown.
    """
    tokenizer = build_tokenizer([*texts, CAPTION_PREFIX], first_token=family == "bert")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModel.from_config(text_config(family, len(tokenizer)))
    with atomic_folder(folder) as target:
        model.save_pretrained(target)
        tokenizer.save_pretrained(target)
