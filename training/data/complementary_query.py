"""Complementary queries: queries without the words of their image's caption (section 3.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from transformers import PreTrainedTokenizerBase

Reduction = Literal["delete", "mask"]
CAPTION_CACHE_SIZE = 100_000


def reduce_tokens(
    tokens: Sequence[int], in_captions: Collection[int], kept: Collection[int], mask: int | None = None
) -> list[int] | None:
    """Remove tokens from a query.

    Args:
        tokens: Token ids of the query.
        in_captions: Token ids to remove.
        kept: Token ids that are never removed and do not count as content: special tokens, a prompt.
        mask: Token id that replaces removed tokens; they are deleted if `None`.

    Returns:
        The reduced query, or `None` if no content is left.
    """
    reduced: list[int] = []
    content = False
    for token in tokens:
        if token in kept or token not in in_captions:
            reduced.append(token)
            content = content or token not in kept
        elif mask is not None:
            reduced.append(mask)
    return reduced if content else None


class ComplementaryQueryBuilder:
    """Removes from a query the tokens that occur in the captions of its positive images.

    Args:
        tokenizer: Tokenizer of the language model.
        reduction: `"delete"` the shared tokens (the released code) or `"mask"` them (the paper).
        prompt: Prompt of the queries, which is never removed.

    Raises:
        ValueError: If `reduction` is `"mask"` and the tokenizer has no suitable token.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, reduction: Reduction = "delete", prompt: str = "") -> None:
        self._mask = mask_token_id(tokenizer) if reduction == "mask" else None
        self._kept = frozenset([*tokenizer.all_special_ids, *tokenizer(prompt, add_special_tokens=False)["input_ids"]])
        self._tokenizer = tokenizer
        self._cache: dict[str, frozenset[int]] = {}

    def __call__(self, tokens: Sequence[int], captions: Iterable[str]) -> list[int] | None:
        """Remove every token that occurs in any of the captions, except special tokens.

        Args:
            tokens: Token ids of the query.
            captions: Captions of all its positive images.

        Returns:
            The reduced query, or `None` if no content is left.
        """
        shared = frozenset().union(*(self._tokens_of(caption) for caption in captions))
        return reduce_tokens(tokens, shared, self._kept, self._mask)

    def __getstate__(self) -> dict[str, Any]:
        """Drop the cache; spawned workers build their own."""
        return {**self.__dict__, "_cache": {}}

    def _tokens_of(self, caption: str) -> frozenset[int]:
        """Return the tokens of a caption and of its words, which byte-level tokenizers encode by their context."""
        if caption not in self._cache:
            if len(self._cache) >= CAPTION_CACHE_SIZE:
                self._cache.clear()
            forms = self._tokenizer([caption, f" {caption}", *caption.split()], add_special_tokens=False)["input_ids"]
            self._cache[caption] = frozenset(token for form in forms for token in form)
        return self._cache[caption]


def mask_token_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the id that replaces removed tokens: the mask token, T5's first sentinel, or the unknown token.

    Raises:
        ValueError: If the tokenizer has no such token.
    """
    if tokenizer.mask_token_id is not None:
        return int(tokenizer.mask_token_id)
    sentinel = tokenizer.get_vocab().get("<extra_id_0>", tokenizer.unk_token_id)
    if sentinel is None:
        raise ValueError("`query_reduction='mask'` requires a tokenizer with a mask, sentinel or unknown token")
    return int(sentinel)
