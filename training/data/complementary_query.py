"""Reduced queries: what is left of a query without the words of its image's caption (section 3.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from transformers import PreTrainedTokenizerBase

Reduction = Literal["delete", "mask"]
MOST_CAPTIONS = 100_000  # whose tokens are kept


def reduce_tokens(
    tokens: Sequence[int], in_captions: Collection[int], kept: Collection[int], mask: int | None = None
) -> list[int] | None:
    """Take tokens out of a query.

    Args:
        tokens: Token ids of the query.
        in_captions: Token ids to take out.
        kept: Token ids that stay in any case and are not content: special tokens, a prompt.
        mask: Put in the place of each token taken out; deleted if None.

    Returns:
        The reduced query, or None if no content is left.
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
    """Makes reduced queries with a tokenizer.

    Args:
        tokenizer: Of the language model.
        reduction: ``"delete"`` the shared tokens (the released code) or ``"mask"`` them (the paper).
        prompt: Stands before each query and is never reduced.

    Raises:
        ValueError: If tokens are to be masked and the tokenizer has nothing to mask with.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, reduction: Reduction = "delete", prompt: str = "") -> None:
        self._mask = mask_token_id(tokenizer) if reduction == "mask" else None
        self._kept = frozenset([*tokenizer.all_special_ids, *tokenizer(prompt, add_special_tokens=False)["input_ids"]])

        self._tokenizer = tokenizer
        self._known: dict[str, frozenset[int]] = {}

    def __call__(self, tokens: Sequence[int], captions: Iterable[str]) -> list[int] | None:
        """Take out of a query every token that occurs in any of the captions, special tokens aside.

        Args:
            tokens: Token ids of the query.
            captions: Captions of all its positive images.

        Returns:
            The reduced query, or None if nothing is left.
        """
        shared = frozenset().union(*(self._tokens_of(caption) for caption in captions))
        return reduce_tokens(tokens, shared, self._kept, self._mask)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is known: workers that are spawned find it out themselves."""
        return {**self.__dict__, "_known": {}}

    def _tokens_of(self, caption: str) -> frozenset[int]:
        """Tokens of a caption and of its words, which byte-level tokenizers write otherwise behind a space."""
        if caption not in self._known:
            if len(self._known) >= MOST_CAPTIONS:
                self._known.clear()
            forms = self._tokenizer([caption, f" {caption}", *caption.split()], add_special_tokens=False)["input_ids"]
            self._known[caption] = frozenset(token for form in forms for token in form)
        return self._known[caption]


def mask_token_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return what a tokenizer masks with: its mask token, T5's first sentinel, or its unknown token.

    Raises:
        ValueError: If it has none of these.
    """
    if tokenizer.mask_token_id is not None:
        return int(tokenizer.mask_token_id)
    sentinel = tokenizer.get_vocab().get("<extra_id_0>", tokenizer.unk_token_id)
    if sentinel is None:
        raise ValueError("`query_reduction='mask'` needs a tokenizer with a mask, sentinel or unknown token")
    return int(sentinel)
