"""Tokenizers of the kinds that language models ship with, trained on a handful of sentences."""

from __future__ import annotations

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast, T5Tokenizer

SENTENCES = [
    "a red cat with the small dog", "the big blue boat next to the green tower", "caption: drawing of bread, apple",
    "who is in the picture? 3 hammers",
] * 3  # fmt: skip


def unigram() -> PreTrainedTokenizerBase:
    """SentencePiece's Unigram with its word marks, in T5's own class."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=120, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    return T5Tokenizer(vocab=[(piece, -float(index)) for piece, index in vocabulary], extra_ids=5, model_max_length=64)


def byte_level(family: str, add_prefix_space: bool = False) -> PreTrainedTokenizerBase:
    """BPE over bytes as in BART and GPT-2."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<s>", "<pad>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    if family == "gpt2":
        return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", model_max_length=64)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=add_prefix_space)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", bos_token="<s>", model_max_length=64
    )


def word_piece() -> PreTrainedTokenizerBase:
    """BERT's lower-casing WordPiece."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=120, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]"], show_progress=False
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=64,
    )


TRAINED = {
    "t5": unigram,
    "bart": lambda: byte_level("bart"),
    "bart with prefix space": lambda: byte_level("bart", add_prefix_space=True),
    "gpt2": lambda: byte_level("gpt2"),
    "bert": word_piece,
}
