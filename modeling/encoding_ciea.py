"""`encode` and related methods of the model, with the signatures and semantics of sentence-transformers."""

from __future__ import annotations

import importlib
import inspect
from concurrent.futures import ThreadPoolExecutor
from logging import INFO
from typing import TYPE_CHECKING, Any, Literal, overload

import torch
from transformers.utils import logging

from .arguments_ciea import prompt_argument
from .batches_ciea import batches_of_one_kind, load_at
from .embeddings_ciea import (
    Embeddings,
    Precision,
    check_finite,
    check_options,
    convert_embeddings,
    normalize_rows,
    paired_unit_rows,
)
from .evaluation_mode_ciea import evaluating, input_device, usable_device
from .inputs_ciea import ModelInput, is_batch, parse_inputs
from .transfers_ciea import Lead, copy, pin

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image
    from transformers import BatchFeature

    from .images_ciea import PreprocessedImage
    from .processing_ciea import CIEAProcessor

    Base = torch.nn.Module
else:
    Base = object

logger = logging.get_logger(__name__)

TASK_PROMPTS = {"query": ("query",), "document": ("document", "passage", "corpus")}  # the first configured one is used


class EncodingMixin(Base):
    """Embeds texts, images and images with captions, and compares embeddings."""

    if TYPE_CHECKING:
        config: Any
        device: torch.device
        processor: CIEAProcessor
        check_placeholders: Any

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
            ValueError: If an input is empty, an image is corrupt, an embedding is not finite, or an argument is
                invalid.
            TypeError: If an input has an unsupported type, or several devices are given.
            FileNotFoundError: If a path does not name a file. All three name the position of the input.
        """
        check_options(precision, batch_size, truncate_dim, self.config.hidden_size)
        single = not is_batch(inputs)
        parsed = parse_inputs([inputs] if single else inputs)
        text_prompt = prompt_argument(prompt_name, prompt, self.config.prompts)
        if device is not None:
            self.to(usable_device(device))
        show = show_progress_bar if show_progress_bar is not None else logger.isEnabledFor(INFO)
        with evaluating(self):
            embeddings = self._encode_inputs(parsed, text_prompt, batch_size, show)
        check_finite(embeddings)
        if truncate_dim is not None:
            embeddings = embeddings[:, :truncate_dim]
        if normalize_embeddings:
            embeddings = normalize_rows(embeddings)
        return convert_embeddings(embeddings, single, precision, convert_to_numpy, convert_to_tensor)

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

    def preprocess_image(self, image: Image.Image) -> PreprocessedImage:
        """Turn an image in mode RGB into an input of `encode`; see [`CIEAProcessor.preprocess_image`]."""
        return self.processor.preprocess_image(image)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> torch.Tensor:
        """Compute the cosine similarity of all pairs of embeddings, in float32.

        Args:
            embeddings1: (a, dimensions) or (dimensions,), array or tensor.
            embeddings2: (b, dimensions) or (dimensions,), array or tensor.

        Returns:
            Similarities, (a, b).

        Raises:
            ValueError: If the embeddings differ in width, or are packed bits (precision `"binary"` or `"ubinary"`).
        """
        first, second = paired_unit_rows(embeddings1, embeddings2, self.config.hidden_size)
        return first @ second.T

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> torch.Tensor:
        """Compute the cosine of corresponding embeddings, in float32: two inputs (a, dimensions) give (a,)."""
        first, second = paired_unit_rows(embeddings1, embeddings2, self.config.hidden_size)
        return (first * second).sum(dim=-1)

    def _encode_as(
        self, role: str, inputs: Any, prompt_name: str | None, prompt: str | None, /, **kwargs: Any
    ) -> Embeddings:
        valid = list(inspect.signature(self.encode).parameters)
        if unknown := kwargs.keys() - valid:
            raise TypeError(f"unknown argument(s) {', '.join(sorted(unknown))}; valid arguments: {', '.join(valid)}")
        if prompt_name is None and prompt is None:
            prompt_name = next((name for name in TASK_PROMPTS[role] if name in self.config.prompts), None)
        return self.encode(inputs, prompt_name, prompt, **kwargs)

    def _encode_inputs(
        self, inputs: list[ModelInput], prompt: str, batch_size: int, show_progress_bar: bool
    ) -> torch.Tensor:
        """Embed in batches of one kind and similar length: (inputs, D), float32."""
        device = input_device(self)
        embeddings = torch.empty(len(inputs), self.config.hidden_size, device=device)
        batches = list(batches_of_one_kind(inputs, batch_size))
        if not batches:
            return embeddings
        tqdm = importlib.import_module("tqdm.auto").tqdm  # not transformers' wrapper, which may be disabled globally
        progress = tqdm(total=len(inputs), desc="Encoding", unit="doc", disable=not show_progress_bar)
        lead = Lead(device)
        with progress, ThreadPoolExecutor(max_workers=1) as loader:  # decodes the next batch while this one computes
            upcoming = loader.submit(self._preprocess, inputs, batches[0], prompt)
            for index, positions in enumerate(batches):
                features = copy(upcoming.result(), device)
                if index + 1 < len(batches):
                    upcoming = loader.submit(self._preprocess, inputs, batches[index + 1], prompt)
                rows = features.pop("rows")
                output = self(**features, return_dict=True, check_placeholders=False)
                embeddings[rows] = output.embeddings.float().to(device)
                lead.submitted()
                progress.update(len(positions))
        return embeddings

    def _preprocess(self, inputs: list[ModelInput], positions: list[int], prompt: str) -> BatchFeature:
        chosen = [inputs[position] for position in positions]
        texts = [None if item.text is None else prompt + item.text for item in chosen]
        batch = self.processor.tokenize(texts, [item.image is not None for item in chosen])
        if chosen[0].image is not None:  # a batch is of one kind
            images = (load_at(inputs[position].image, position) for position in positions)  # decoded when needed
            batch["pixel_values"] = self.processor.pixel_values(images)
        self.check_placeholders(batch["input_ids"], len(chosen) if "pixel_values" in batch else 0)
        batch["rows"] = torch.tensor(positions)
        return pin(batch, input_device(self))
