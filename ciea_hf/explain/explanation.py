"""Why an image is found: maps over its patches that tell where a score comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import torch
from torch.nn import functional as F

from ciea_hf.choices import EXPLANATION_METHODS
from ciea_hf.explain.attribution import integrated_gradients, occlusion, spread
from ciea_hf.explain.document import ImageDocument
from ciea_hf.explain.faithfulness import Faithfulness, highest, measure_faithfulness
from ciea_hf.modeling.errors_ciea import place
from ciea_hf.modeling.evaluation_mode_ciea import evaluating, input_device
from ciea_hf.modeling.inputs_ciea import is_batch
from ciea_hf.retrieval.encoding import encode_inputs

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from PIL import Image

    from ciea_hf.modeling.images_ciea import PreprocessedImage
    from ciea_hf.modeling.modeling_ciea import CIEAModel

    OneImage = str | bytes | os.PathLike[str] | Image.Image | NDArray[Any] | torch.Tensor | PreprocessedImage

STEPS = 16  # of integrated gradients
DEFAULT_METHOD = "integrated_gradients"
LABELS = {
    "integrated_gradients": "contribution to the score (integrated gradients)",
    "occlusion": "score lost when 2 x 2 patches are hidden",
    "weights": "complement weight: low where the caption describes the patch",
    "gates": "gate: 1 lets the patch through, 0 hides it",
}


@dataclass(frozen=True)
class Explanation:
    """A map over the patches of an image, and what it explains.

    Attributes:
        map: Values of the patches, (rows, columns). Attributions, in units of the score, may be negative; weights and
            gates are between 0 and 1.
        method: Method of the map.
        image: The image as the vision tower sees it.
        caption: Caption of the image, or `None`.
        query: The query, or `None` for what the image adds to its caption.
        score: The score that the map explains: the cosine of query and document; without a query, the cosine of the
            document and what the image adds to its caption.
        faithfulness: The score lost when the patches of the highest values are removed.
    """

    map: NDArray[np.float32]
    method: str
    image: Image.Image
    caption: str | None
    query: Any
    score: float
    faithfulness: Faithfulness

    @property
    def scale(self) -> tuple[float, float]:
        """Range of the values: (0, 1) for weights and gates, otherwise symmetric around 0."""
        if self.method in ("weights", "gates"):
            return 0.0, 1.0
        largest = float(np.abs(self.map).max())
        return -largest, largest

    @property
    def label(self) -> str:
        """What a value of the map means, for a colour bar."""
        return LABELS[self.method]

    @property
    def marked(self) -> list[tuple[int, int]]:
        """Rows and columns of the patches of the highest values, which [`Faithfulness`] removes."""
        order = highest(torch.from_numpy(self.map.ravel()), self.faithfulness.removed)
        return [divmod(position, self.map.shape[1]) for position in order.tolist()]


@overload
def explain(
    model: CIEAModel,
    image: list[Any] | tuple[Any, ...],
    caption: Sequence[str | None] | None = ...,
    query: Any = ...,
    method: str = ...,
    steps: int = ...,
    smooth: bool = ...,
    batch_size: int = ...,
) -> list[Explanation]: ...


@overload
def explain(
    model: CIEAModel,
    image: OneImage,
    caption: str | None = ...,
    query: Any = ...,
    method: str = ...,
    steps: int = ...,
    smooth: bool = ...,
    batch_size: int = ...,
) -> Explanation: ...


def explain(
    model: CIEAModel,
    image: Any,
    caption: Any = None,
    query: Any = None,
    method: str = DEFAULT_METHOD,
    steps: int = STEPS,
    smooth: bool = True,
    batch_size: int = 64,
) -> Explanation | list[Explanation]:
    """Compute how much each patch of an image contributes to the score of its document.

    Args:
        model: A CIEA model, with or without an extractor; evaluated without dropout.
        image: One image, or a list of images, in any form that `encode_document` takes.
        caption: Caption of the image, or one per image, `None` where there is none.
        query: Query that the document is scored with: a text, an image (a PIL image, or a path of type `Path`), or a
            dict of `"text"` and `"image"`; one for all images, or a list of one per image. If `None`, the map shows
            what the image adds to its caption.
        method: `"integrated_gradients"`, whose values sum to the score lost when all patches become equal to their
            mean, up to the error of the integration; `"occlusion"`, the mean score lost when a window of 2 x 2 patches
            around the patch is painted in the image's mean colour; `"weights"`, the complement weights (paper, section
            3.2), and `"gates"`, which the model's extractor reads and which do not depend on the query.
        steps: Number of points at which integrated gradients are computed.
        smooth: Whether integrated gradients are spread over neighbouring patches; their sum stays the same.
        batch_size: Maximum number of versions of a document per forward pass.

    Returns:
        An explanation, or a list of them for a list of images.

    Raises:
        ValueError: If an argument is invalid, the numbers of images, captions and queries differ, there is neither
            query nor caption, the model has no such weights, or its patches do not form a grid.
        TypeError: If the model is not a CIEA model, or an input has an unsupported type.

    Examples:
        >>> why = explain(model, "scene.png", "the necktie and the watermelon", "the ghost")  # doctest: +SKIP
        >>> why.map.shape, why.score, why.faithfulness.lost  # doctest: +SKIP
        ((7, 7), 0.82, 0.31)
    """
    _check(model, method, steps, batch_size)
    images, captions, queries = _inputs(image, caption, query)
    explanations = []
    with evaluating(model), torch.inference_mode(mode=False):  # gradients need tensors outside the caller's mode
        targets = _targets(model, captions, queries, batch_size)
        for position, (item, text, asked) in enumerate(zip(images, captions, queries, strict=True)):
            with place(f"image {position}"):
                document = ImageDocument(model, item, text, batch_size)
                explanations.append(_explain(document, text, asked, targets[position], method, steps, smooth))
    return explanations if is_batch(image) else explanations[0]


def _check(model: Any, method: str, steps: int, batch_size: int) -> None:
    config = getattr(model, "config", None)
    if getattr(config, "model_type", None) != "ciea":
        raise TypeError(f"`model` must be a CIEA model; got {type(model).__name__}")
    if method not in EXPLANATION_METHODS:
        raise ValueError(f"`method` must be one of {', '.join(EXPLANATION_METHODS)}; got {method!r}")
    for name, value in (("steps", steps), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"`{name}` must be at least 1; got {value}")
    if method not in ("weights", "gates"):
        return
    if not model.config.use_extractor:
        raise ValueError(f"`method={method!r}` needs an extractor; the model has `use_extractor=False`")
    weights = model.config.extractor_weights
    if weights == "uniform" or (method == "gates" and weights != "gate"):
        raise ValueError(f"`method={method!r}`: the model has no {method}: its `extractor_weights` is {weights!r}")


def _inputs(image: Any, caption: Any, query: Any) -> tuple[list[Any], list[str | None], list[Any]]:
    """Return images, captions and queries as lists of equal length."""
    if not is_batch(image):
        if is_batch(caption) or is_batch(query):
            raise ValueError("one image takes one caption and one query; got a list")
        image, caption, query = [image], [caption], [query]
    images = list(image)
    if not images:
        raise ValueError("`image` must not be an empty list")
    captions = [None] * len(images) if caption is None else caption
    queries = list(query) if is_batch(query) else [query] * len(images)
    if isinstance(captions, str) or not len(images) == len(captions) == len(queries):
        found = "captions in one text" if isinstance(captions, str) else f"{len(captions)} caption(s)"
        raise ValueError(
            "each image needs one caption, and one query unless there is one for all; got "
            f"{len(images)} image(s), {found} and {len(queries)} queries"
        )
    texts: list[str | None] = []
    for position, (text, asked) in enumerate(zip(captions, queries, strict=True)):
        if text is not None and not isinstance(text, str):
            raise TypeError(f"image {position}: a caption must be a str or None; got {type(text).__name__}")
        texts.append(text if text and text.strip() else None)
        if texts[-1] is None and asked is None:
            raise ValueError(f"image {position}: without a `query` the image needs a `caption` that it adds to")
    return images, texts, queries


def _targets(
    model: CIEAModel, captions: Sequence[str | None], queries: Sequence[Any], batch_size: int
) -> list[torch.Tensor]:
    """Embed the queries, or the captions of images without a query: one unit row (D,) for each image."""
    inputs = {True: list(queries), False: list(captions)}
    rows: list[torch.Tensor] = [torch.empty(0)] * len(queries)
    for has_query, encode in ((True, model.encode_query), (False, model.encode_document)):
        positions = [i for i, query in enumerate(queries) if (query is not None) == has_query]
        if positions:
            chosen = [inputs[has_query][i] for i in positions]
            found = torch.from_numpy(encode_inputs(encode, chosen, batch_size, mixed=True))
            for position, row in zip(positions, found.to(input_device(model)), strict=True):
                rows[position] = row
    return rows


def _explain(
    document: ImageDocument,
    caption: str | None,
    query: Any,
    target: torch.Tensor,
    method: str,
    steps: int,
    smooth: bool,
) -> Explanation:
    whole = document.embed_hidden(document.nothing_hidden())[0]
    if query is None:  # the direction of what the image adds: the part of the document orthogonal to its caption
        target = F.normalize(whole - (whole @ target) * target, dim=0)

    def score_hidden(hidden: torch.Tensor) -> torch.Tensor:
        return document.embed_hidden(hidden) @ target

    if method == "integrated_gradients":
        values = _gradients(document, target, steps)
        values = spread(values, document.grid) if smooth else values
    elif method == "occlusion":
        values = occlusion(score_hidden, document.grid)
    else:
        values = document.weights(gates=method == "gates")
    values = values.float().cpu()
    return Explanation(
        map=values.reshape(document.grid).numpy(),
        method=method,
        image=document.as_seen(),
        caption=caption,
        query=query,
        score=float(whole @ target),
        faithfulness=measure_faithfulness(values, score_hidden),
    )


def _gradients(document: ImageDocument, target: torch.Tensor, steps: int) -> torch.Tensor:
    features = document.features(document.nothing_hidden())[0]
    baseline = features.mean(dim=0, keepdim=True).expand_as(features)
    return integrated_gradients(
        lambda inputs: document.embed(inputs) @ target, features, baseline, steps, document.batch_size
    )
