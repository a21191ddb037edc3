"""Templates of captions, text documents and queries of the embedded benchmark.

Some templates are reserved for the test split. They consist of words that also occur in the others, so that they test
the wording and not the vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np


class Templates(NamedTuple):
    """Templates with the field `{names}`: those of all splits, and those of the test split only."""

    common: tuple[str, ...]
    test_only: tuple[str, ...]

    def choose(self, split: str, rng: np.random.Generator) -> str:
        """Choose a template of a split."""
        allowed = self.common + self.test_only if split == "test" else self.common
        return allowed[int(rng.integers(len(allowed)))]


CAPTIONS = Templates(
    common=(
        "{names}",
        "a picture of {names}",
        "in this scene you see {names}",
        "here stand {names}",
        "{names} on a coloured page",
    ),
    test_only=("a scene of {names}", "here you see {names} in this picture"),
)

IMAGE_QUERIES = Templates(
    common=(
        "find the picture that shows {names}",
        "which scene holds {names}",
        "show me {names} together",
        "where do you see {names}",
        "a scene with {names} in it",
    ),
    test_only=("which picture shows {names}", "find me a scene that holds {names} together"),
)

TEXT_DOCUMENTS = Templates(
    common=(
        "an old story tells of {names} and how they met",
        "the museum keeps a letter about {names}",
        "a note from the village explains why {names} belong together",
        "this chapter of the book is about {names}",
    ),
    test_only=("an old letter from the museum tells of {names}", "a chapter of the story is about {names}"),
)

TEXT_QUERIES = Templates(
    common=(
        "which story or letter mentions {names}",
        "what is written about {names}",
        "read me the text that tells of {names}",
    ),
    test_only=("which text tells of {names}", "read me what is written about {names}"),
)


def join_names(names: Sequence[str]) -> str:
    """Join names in prose: `the fox, the kite and the owl`."""
    listed = [f"the {name}" for name in names]
    if len(listed) < 2:
        return "".join(listed)
    return f"{', '.join(listed[:-1])} and {listed[-1]}"


def write_text(templates: Templates, names: Sequence[str], split: str, rng: np.random.Generator) -> str:
    """Write a text about `names`, with template and order chosen by `rng`."""
    shuffled = [names[i] for i in rng.permutation(len(names))]
    return templates.choose(split, rng).format(names=join_names(shuffled))
