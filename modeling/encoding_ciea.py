"""`encode` and related methods of the model, with the signatures and semantics of sentence-transformers."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from logging import INFO
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
import torch
from torch.nn import functional as F
from transformers.utils import logging

from .inputs_ciea import ModelInput, load_image, parse_inputs

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import BatchFeature

    from .processing_ciea import CIEAProcessor

    Base = torch.nn.Module
else:
    Base = object

logger = logging.get_logger(__name__)

Precision = Literal["float32", "int8", "uint8", "binary", "ubinary"]
PRECISIONS = ("float32", "int8", "uint8", "binary", "ubinary")
TASK_PROMPTS = {"query": ("query",), "document": ("document", "passage", "corpus")}  # the first configured one is used
Embeddings = Any  # np.ndarray, torch.Tensor or list[torch.Tensor], depending on the arguments


class EncodingMixin(Base):
    """Embeds texts, images and images with captions, and compares embeddings."""

    if TYPE_CHECKING:
        config: Any
        device: torch.device
        processor: CIEAProcessor

    @overload
    def encode(
        self,
        inputs: Any,
        prompt_name: str | None = ...,
        prompt: str | None = ...,
        batch_size: int = ...,
        show_progress_bar: bool | None = ...,
        precision: Precision = ...,
        *,
        convert_to_numpy: bool = ...,
        convert_to_tensor: Literal[True],
        device: str | torch.device | None = ...,
        normalize_embeddings: bool = ...,
        truncate_dim: int | None = ...,
    ) -> torch.Tensor: ...

    @overload
    def encode(
        self,
        inputs: Any,
        prompt_name: str | None = ...,
        prompt: str | None = ...,
        batch_size: int = ...,
        show_progress_bar: bool | None = ...,
        precision: Precision = ...,
        *,
        convert_to_numpy: Literal[False],
        convert_to_tensor: Literal[False] = ...,
        device: str | torch.device | None = ...,
        normalize_embeddings: bool = ...,
        truncate_dim: int | None = ...,
    ) -> list[torch.Tensor]: ...

    @overload
    def encode(
        self,
        inputs: Any,
        prompt_name: str | None = ...,
        prompt: str | None = ...,
        batch_size: int = ...,
        show_progress_bar: bool | None = ...,
        precision: Precision = ...,
        convert_to_numpy: Literal[True] = ...,
        convert_to_tensor: Literal[False] = ...,
        device: str | torch.device | None = ...,
        normalize_embeddings: bool = ...,
        truncate_dim: int | None = ...,
    ) -> NDArray[Any]: ...

    @torch.inference_mode()
    def encode(
        self,
        inputs: Any,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        precision: Precision = "float32",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: str | torch.device | None = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
    ) -> Embeddings:
        """Embed texts, images and images with captions, in any mixture.

        Inputs of one kind and similar length share a batch; the result is in input order.

        Args:
            inputs: One input or a list of inputs: a str, a PIL image, an image path, or a dict
                `{"text": ..., "image": ...}`, either value of which may be `None`.
            prompt_name: Name of a prompt in `config.prompts` that is prepended to each text.
            prompt: Prompt text; takes precedence over `prompt_name`. An image alone takes no prompt.
            batch_size: Number of inputs per forward pass.
            show_progress_bar: Whether to show progress; by default only if the log level is INFO or lower.
            precision: `"float32"`, or `"int8"`, `"uint8"`, `"binary"` or `"ubinary"`, quantised by
                sentence-transformers.
            convert_to_numpy: Whether to return an array. If neither this nor `convert_to_tensor` is set, a list of
                tensors.
            convert_to_tensor: Whether to return one tensor, on the model's device.
            device: Device to move the model to; its present device if `None`.
            normalize_embeddings: Whether to scale embeddings to unit length.
            truncate_dim: Number of leading dimensions to keep.

        Returns:
            Embeddings (inputs, dimensions) in float32, or (dimensions,) for a single input.

        Raises:
            ValueError: If an input is empty, an image is corrupt, or an argument is invalid.
            TypeError: If an input has an unsupported type, or several devices are given.
            FileNotFoundError: If a path does not name a file. All three name the position of the input.
        """
        _check_choices(precision, batch_size, truncate_dim, self.config.hidden_size)
        single = not _is_batch(inputs)
        parsed = parse_inputs([inputs] if single else inputs)
        text_prompt = self._prompt(prompt_name, prompt)
        if isinstance(device, list | tuple):
            raise TypeError(f"`device` must be one device; got {device!r} (SentenceTransformer supports several)")
        if device is not None:
            self.to(device)
        show = show_progress_bar if show_progress_bar is not None else logger.isEnabledFor(INFO)
        with evaluating(self):
            embeddings = self._encode_inputs(parsed, text_prompt, batch_size, show)
        if truncate_dim is not None:
            embeddings = embeddings[:, :truncate_dim]
        if normalize_embeddings:
            embeddings = F.normalize(embeddings, dim=-1)
        return _convert(embeddings, single, precision, convert_to_numpy, convert_to_tensor)

    @overload
    def encode_query(
        self, inputs: Any, *, convert_to_tensor: Literal[True], convert_to_numpy: bool = ..., **options: Any
    ) -> torch.Tensor: ...

    @overload
    def encode_query(
        self,
        inputs: Any,
        *,
        convert_to_numpy: Literal[False],
        convert_to_tensor: Literal[False] = ...,
        **options: Any,
    ) -> list[torch.Tensor]: ...

    @overload
    def encode_query(
        self, inputs: Any, prompt_name: str | None = ..., prompt: str | None = ..., **options: Any
    ) -> NDArray[Any]: ...

    def encode_query(
        self,
        inputs: Any,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        **kwargs: Any,
    ) -> Embeddings:
        """Embed queries: [`encode`] with the prompt named `"query"`, if there is one. Takes the same arguments."""
        return self._encode_as("query", inputs, prompt_name, prompt, batch_size=batch_size, **kwargs)

    @overload
    def encode_document(
        self, inputs: Any, *, convert_to_tensor: Literal[True], convert_to_numpy: bool = ..., **options: Any
    ) -> torch.Tensor: ...

    @overload
    def encode_document(
        self,
        inputs: Any,
        *,
        convert_to_numpy: Literal[False],
        convert_to_tensor: Literal[False] = ...,
        **options: Any,
    ) -> list[torch.Tensor]: ...

    @overload
    def encode_document(
        self, inputs: Any, prompt_name: str | None = ..., prompt: str | None = ..., **options: Any
    ) -> NDArray[Any]: ...

    def encode_document(
        self,
        inputs: Any,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        **kwargs: Any,
    ) -> Embeddings:
        """Embed documents: [`encode`] with the first configured prompt of `"document"`, `"passage"` and `"corpus"`."""
        return self._encode_as("document", inputs, prompt_name, prompt, batch_size=batch_size, **kwargs)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> torch.Tensor:
        """Compute the cosine similarity of all pairs of embeddings, in float32.

        Args:
            embeddings1: (a, dimensions) or (dimensions,), array or tensor.
            embeddings2: (b, dimensions) or (dimensions,), array or tensor.

        Returns:
            Similarities, (a, b).
        """
        return _unit_rows(embeddings1) @ _unit_rows(embeddings2).T

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> torch.Tensor:
        """Compute the cosine of corresponding embeddings, in float32: two inputs (a, dimensions) give (a,)."""
        return (_unit_rows(embeddings1) * _unit_rows(embeddings2)).sum(dim=-1)

    def _encode_as(
        self, role: str, inputs: Any, prompt_name: str | None, prompt: str | None, /, **kwargs: Any
    ) -> Embeddings:
        valid = list(inspect.signature(self.encode).parameters)
        if unknown := kwargs.keys() - valid:
            raise TypeError(f"unknown argument(s) {', '.join(sorted(unknown))}; valid arguments: {', '.join(valid)}")
        if prompt_name is None and prompt is None:
            prompt_name = next((name for name in TASK_PROMPTS[role] if name in self.config.prompts), None)
        return self.encode(inputs, prompt_name, prompt, **kwargs)

    def _prompt(self, prompt_name: str | None, prompt: str | None) -> str:
        if prompt is not None or prompt_name is None:
            return prompt or ""
        if prompt_name not in self.config.prompts:
            known = ", ".join(map(repr, self.config.prompts)) or "none"
            raise ValueError(f"`prompt_name` must be one of the configured prompts ({known}); got {prompt_name!r}")
        return str(self.config.prompts[prompt_name])

    def _encode_inputs(
        self, inputs: list[ModelInput], prompt: str, batch_size: int, show_progress_bar: bool
    ) -> torch.Tensor:
        """Embed in batches of one kind and similar length: (inputs, D), float32."""
        embeddings = torch.empty(len(inputs), self.config.hidden_size, device=self.device)
        batches = list(_batches(inputs, batch_size))
        if not batches:
            return embeddings
        tqdm = importlib.import_module("tqdm.auto").tqdm  # not transformers' wrapper, which may be disabled globally
        progress = tqdm(total=len(inputs), desc="Encoding", unit="doc", disable=not show_progress_bar)
        with progress, ThreadPoolExecutor(max_workers=1) as loader:  # decodes the next batch while this one computes
            upcoming = loader.submit(self._preprocess, inputs, batches[0], prompt)
            for index, positions in enumerate(batches):
                features = upcoming.result()
                if index + 1 < len(batches):
                    upcoming = loader.submit(self._preprocess, inputs, batches[index + 1], prompt)
                output = self(**features.to(self.device), return_dict=True)
                embeddings[torch.tensor(positions, device=self.device)] = output.embeddings.float()
                progress.update(len(positions))
        return embeddings

    def _preprocess(self, inputs: list[ModelInput], positions: list[int], prompt: str) -> BatchFeature:
        texts, images = [], []
        for position in positions:
            text, image = inputs[position].text, inputs[position].image
            texts.append(None if text is None else prompt + text)
            try:
                images.append(None if image is None else load_image(image))
            except (ValueError, TypeError, FileNotFoundError) as error:
                raise type(error)(f"input {position}: {error}") from error
        return self.processor.process_decoded(texts, images)


def _is_batch(inputs: Any) -> bool:
    """Return whether the inputs are a batch: a list, a tuple, a column of a data set, or an array of objects."""
    if isinstance(inputs, np.ndarray):
        return inputs.ndim == 1 and inputs.dtype.kind in "UO"
    return isinstance(inputs, Sequence) and not isinstance(inputs, str | bytes)


def _check_choices(precision: str, batch_size: int, truncate_dim: int | None, width: int) -> None:
    if precision not in PRECISIONS:
        raise ValueError(f"`precision` must be one of {', '.join(PRECISIONS)}; got {precision!r}")
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be positive; got {batch_size}")
    if truncate_dim is not None and not 1 <= truncate_dim <= width:
        raise ValueError(f"`truncate_dim` must be between 1 and {width}; got {truncate_dim}")


def _batches(inputs: list[ModelInput], batch_size: int) -> Iterator[list[int]]:
    """Yield the positions of inputs that share a batch: one kind, longest texts first."""
    for kind in ("image,text", "image", "text"):
        positions = [position for position, item in enumerate(inputs) if item.kind == kind]
        positions.sort(key=lambda position: -len(inputs[position].text or ""))
        for start in range(0, len(positions), batch_size):
            yield positions[start : start + batch_size]


@contextmanager
def evaluating(module: torch.nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode within a `with` block."""
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)


def _convert(
    embeddings: torch.Tensor, single: bool, precision: Precision, convert_to_numpy: bool, convert_to_tensor: bool
) -> Embeddings:
    """Quantise, and convert to the requested container."""
    if precision != "float32" and not len(embeddings):
        width = embeddings.shape[1] // 8 if "binary" in precision else embeddings.shape[1]
        embeddings = torch.empty(0, width, dtype=torch.uint8 if precision.startswith("u") else torch.int8)
    elif precision != "float32":
        embeddings = torch.from_numpy(np.asarray(_quantize(embeddings.cpu().numpy(), precision)))
    result = embeddings[0] if single else embeddings
    if convert_to_tensor:
        return result
    if convert_to_numpy:
        return result.cpu().numpy()
    return result if single else list(result)


def _quantize(embeddings: np.ndarray[Any, Any], precision: Precision) -> Any:
    try:
        quantization = importlib.import_module("sentence_transformers.util.quantization")
    except ModuleNotFoundError as error:
        raise ImportError(
            f"`precision={precision!r}` requires sentence-transformers: pip install sentence-transformers"
        ) from error
    return quantization.quantize_embeddings(embeddings, precision=precision)


def _unit_rows(embeddings: Any) -> torch.Tensor:
    if isinstance(embeddings, list | tuple):
        embeddings = torch.stack([torch.as_tensor(row) for row in embeddings])
    rows = torch.as_tensor(embeddings).float()
    return F.normalize(rows if rows.ndim > 1 else rows[None], dim=-1)
