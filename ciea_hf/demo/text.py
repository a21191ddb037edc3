"""The demo's text tower: a small T5 with random weights and a word-level tokenizer, made without a download."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import torch
from tokenizers import Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import WordLevel
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast, T5Config, T5Model

from ciea_hf.data import column_values
from ciea_hf.demo.art import choose_concepts
from ciea_hf.utils import atomic_folder

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from ciea_hf.data import RetrievalDataset

PAD, EOS, UNK = "<pad>", "</s>", "<unk>"  # ids 0, 1 and 2, as T5 has them
CAPTION_PREFIX = " caption:"  # stands between an image and its caption
MAX_LENGTH = 128  # tokens


def training_texts(dataset: RetrievalDataset) -> list[str]:
    """Return every text of a split: captions, text documents and queries."""
    texts = column_values(dataset.corpus, "text") + column_values(dataset.queries, "text")
    return [text for text in texts if text]


def build_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Make a word-level tokenizer, lower-casing, that appends ``</s>``; the words stand in alphabetical order.

    Args:
        texts: What the vocabulary is taken from, whole: every word and every run of punctuation gets an id.
    """
    normalizer = normalizers.Lowercase()
    splitter = pre_tokenizers.Whitespace()
    words: Counter[str] = Counter()
    for text in texts:
        words.update(word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    vocabulary = {word: i for i, word in enumerate([PAD, EOS, UNK, *sorted(words)])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token=UNK))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = splitter
    tokenizer.post_processor = TemplateProcessing(
        single=f"$A {EOS}", pair=f"$A {EOS} $B {EOS}", special_tokens=[(EOS, vocabulary[EOS])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNK,
        model_max_length=MAX_LENGTH,
        padding_side="right",
    )


def text_config(vocab_size: int) -> T5Config:
    """Return the tower's shape: two layers on each side, width 128, four heads."""
    return T5Config(
        vocab_size=vocab_size,
        d_model=128,
        d_kv=32,
        d_ff=256,
        num_layers=2,
        num_decoder_layers=2,
        num_heads=4,
        dropout_rate=0.1,
        pad_token_id=0,
        eos_token_id=1,
    )


def build_text_tower(folder: str | Path, texts: Iterable[str], seed: int = 0) -> None:
    """Write an untrained text tower that ``AutoModel`` and ``AutoTokenizer`` load: the text side of a new CIEA model.

    The vocabulary holds the words of ``texts``, of every concept of the benchmark and of the caption's prefix.

    Args:
        folder: Where to; an older folder is replaced.
        texts: The training texts; see :func:`training_texts`.
        seed: Of the weights. The global random state is left as it was.
    """
    tokenizer = build_tokenizer([*texts, *(concept.name for concept in choose_concepts()), CAPTION_PREFIX])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = T5Model(text_config(len(tokenizer)))
    with atomic_folder(folder) as target:
        model.save_pretrained(target)
        tokenizer.save_pretrained(target)
