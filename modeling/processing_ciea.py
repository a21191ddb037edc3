"""Processor of CIEA: turns texts, captions and images into token ids and pixel values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from transformers import BatchFeature, PreTrainedTokenizerBase, ProcessorMixin

from .arguments_ciea import integer_argument, merge_arguments
from .batches_ciea import (
    IMAGE_TOKENS,
    LoadedLimit,
    clean_text,
    cut_tokens,
    image_groups,
    join_blocks,
    load_at,
    pair_inputs,
    remove_missing_images,
)
from .errors_ciea import place
from .images_ciea import PreprocessedImage
from .inputs_ciea import input_from_messages
from .resizing_ciea import resize_early
from .validation_ciea import check_image_patches, check_image_processor

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from PIL import Image


class CIEAProcessor(ProcessorMixin):
    """Turns texts, images and images with captions into the inputs of [`CIEAModel`].

    An image with a caption becomes `<im_start>`, P times `<im_patch>`, `<im_end>` and `" caption: "` with the caption.
    An image alone becomes P times `<im_patch>`, and a text is left as it is. Captions are truncated, placeholders
    never.

    Args:
        image_processor: Any image processor that returns `pixel_values` of a fixed size.
        tokenizer: Any fast tokenizer; missing image tokens are added.
        image_seq_length: Number of patches of an image, P.
        max_text_length: Maximum number of tokens of a text or caption, including the end of sequence. The tokenizer's
            `model_max_length` limits the whole sequence, including placeholders; a larger one that is assigned later,
            as by `SentenceTransformer.max_seq_length`, also replaces `max_text_length`.
        caption_prefix: Text between the end mark and the caption.
        chat_template: Unused; part of the signature that transformers expects.
    """

    _auto_class = "AutoProcessor"  # `save_pretrained` copies the code into the folder

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        image_seq_length: int = 49,
        max_text_length: int = 128,
        caption_prefix: str = " caption: ",
        chat_template: str | None = None,
        **kwargs: Any,
    ) -> None:
        if tokenizer is None or image_processor is None:
            raise ValueError("`image_processor` and `tokenizer` are both required")
        check_image_processor(image_processor.to_dict())
        check_image_patches(image_seq_length)
        super().__init__(image_processor, tokenizer, chat_template=chat_template, **kwargs)  # type: ignore[no-untyped-call]
        self.image_seq_length = image_seq_length
        self.max_text_length = max_text_length
        tokenizer.model_max_length = LoadedLimit(tokenizer.model_max_length)
        self.caption_prefix = caption_prefix
        tokenizer.add_special_tokens({"extra_special_tokens": list(IMAGE_TOKENS)}, replace_extra_special_tokens=False)
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        tokenizer.padding_side = tokenizer.truncation_side = "right"
        ids: Any = tokenizer.convert_tokens_to_ids(list(IMAGE_TOKENS))
        self.image_token_id, self.image_start_token_id, self.image_end_token_id = ids

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: Any, *args: Any, max_length: int | None = None, **kwargs: Any
    ) -> CIEAProcessor:
        """Load a processor; `max_length` replaces its `max_text_length`."""
        processor: CIEAProcessor = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        if max_length is not None:
            processor.max_text_length = max_length
        return processor

    @property
    def text_limit(self) -> int:
        """Maximum number of tokens of a text or caption: `max_text_length`, or what the tokenizer was set to above."""
        limit: int = self.tokenizer.model_max_length
        return self.max_text_length if isinstance(limit, LoadedLimit) else max(limit, self.max_text_length)

    def to_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the settings as `ProcessorMixin` does, with the limit of texts that is in use."""
        return super().to_dict(*args, **kwargs) | {"max_text_length": int(self.text_limit)}

    @property
    def model_input_names(self) -> list[str]:
        """Names of the tensors that [`CIEAModel`] takes."""
        return ["input_ids", "attention_mask", "pixel_values"]

    def __call__(
        self,
        images: Any = None,
        text: str | Sequence[str | None] | None = None,
        max_length: int | None = None,
        padding: bool | str | None = None,
        return_tensors: str | None = "pt",
        **kwargs: Any,
    ) -> BatchFeature:
        """Process a batch; each input has a text, an image or both.

        Args:
            images: One image (PIL, path, bytes, array), or one per input, `None` where an input has no image.
            text: One text, or one per input, `None` where an input has no text.
            max_length: Maximum number of tokens of a text or caption; `max_text_length` if `None`.
            padding: `"longest"` (the default), `"max_length"`, or another choice of the tokenizer.
            return_tensors: Tensor framework, as in transformers.
            **kwargs: Arguments of the image processor, such as `size`; or `text_kwargs`, `images_kwargs` and
                `common_kwargs`, as in transformers. Others are ignored with a warning.

        Returns:
            `input_ids` and `attention_mask`, (batch, T), and, if there are images, `pixel_values`
            (images, 3, height, width) in input order.

        Raises:
            ValueError: If texts and images differ in number, an input is empty, an image is corrupt, or an argument is
                given twice with different values.
        """
        given = {"max_length": max_length, "padding": padding}
        options, images_kwargs = merge_arguments(self.image_processor, given, kwargs)
        options = {"return_tensors": return_tensors, **options}
        options["padding"] = "longest" if options["padding"] is None else options["padding"]
        images_kwargs.setdefault("return_tensors", options["return_tensors"])
        texts, paired = pair_inputs(text, images)
        batch = self.tokenize(texts, [image is not None for image in paired], **options)
        numbered = [(position, image) for position, image in enumerate(paired) if image is not None]
        if numbered:
            batch["pixel_values"] = self.pixel_values(
                (load_at(image, position) for position, image in numbered), **images_kwargs
            )
        return batch

    def preprocess_image(self, image: Image.Image) -> PreprocessedImage:
        """Turn an image in mode RGB into pixel values of the vision tower's size, which are accepted as an image."""
        return PreprocessedImage(self.pixel_values([image])[0])

    def pixel_values(self, images: Iterable[Any], return_tensors: str | None = "pt", **images_kwargs: Any) -> Any:
        """Stack the pixel values of images: (images, 3, height, width).

        Images are drawn and resized one after the other if the image processor resizes with Pillow, else in groups of
        at most `PIXELS_AT_ONCE` pixels, so that few are held at full size.

        Args:
            images: Images in mode RGB, or preprocessed images.
            return_tensors: Tensor framework, as in transformers.
            **images_kwargs: Arguments of the image processor.
        """
        blocks: list[Any] = []
        for group in image_groups(images if images_kwargs else resize_early(images, self.image_processor)):
            if isinstance(group[0], PreprocessedImage):
                blocks.append(torch.stack([image.pixel_values for image in group]))
            else:
                values = self.image_processor(group, return_tensors=return_tensors, **images_kwargs)
                blocks.append(values["pixel_values"])
        return join_blocks(blocks)

    def tokenize(
        self,
        text: Sequence[str | None],
        has_image: Sequence[bool],
        max_length: int | None = None,
        padding: bool | str = "longest",
        return_tensors: str | None = "pt",
    ) -> BatchFeature:
        """Build the token ids of a batch. Images only determine placeholders, so their features may come from a cache.

        Args:
            text: Text or caption of each input, `None` where there is none.
            has_image: Whether each input has an image.
            max_length: Maximum number of tokens of a text or caption; `max_text_length` if `None`.
            padding: Padding strategy, as in transformers.
            return_tensors: Tensor framework, as in transformers.

        Returns:
            `input_ids` and `attention_mask`, (batch, T).

        Raises:
            ValueError: If an input is empty, or an image leaves no room for the first token of its caption.
        """
        limit = integer_argument("max_length", self.text_limit if max_length is None else max_length)
        if any(has_image) and self.image_seq_length > self.tokenizer.model_max_length:
            raise ValueError(
                f"an image takes {self.image_seq_length} tokens; the model's maximum is "
                f"{self.tokenizer.model_max_length}"
            )
        inputs = []
        for position, pair in enumerate(zip(text, has_image, strict=True)):
            with place(f"input {position}"):
                inputs.append(clean_text(*pair))
        ids = self._token_ids(inputs, limit)
        width = min(limit + (self.image_seq_length + 1) * any(has_image), self.tokenizer.model_max_length)
        padded = self.tokenizer.pad(
            {"input_ids": ids},
            padding=padding,
            padding_side="right",
            max_length=width if padding == "max_length" else None,
            return_attention_mask=True,
            return_tensors=return_tensors,
        )
        return BatchFeature({"input_ids": padded["input_ids"], "attention_mask": padded["attention_mask"]})

    def _token_ids(self, inputs: list[tuple[str | None, bool]], limit: int) -> list[list[int]]:
        ids: list[list[int]] = [[self.image_token_id] * self.image_seq_length] * len(inputs)
        for with_image in (False, True):
            positions, texts = [], []
            for position, (text, has_image) in enumerate(inputs):
                if text is not None and has_image == with_image:
                    positions.append(position)
                    texts.append(text)
            if not positions:
                continue
            for position, tokens in zip(positions, self._tokenize_texts(texts, with_image, limit), strict=True):
                ids[position] = tokens or [self.tokenizer.pad_token_id]
        for position, (text, has_image) in enumerate(inputs):
            if text is None and not has_image:
                raise ValueError(f"input {position}: an input needs a text or an image; got neither")
        return ids

    def _tokenize_texts(self, texts: list[str], with_image: bool, limit: int) -> list[list[int]]:
        """Tokenise texts, or captions after their images.

        A caption is tokenised together with the end mark that precedes it, because its first token can depend on what
        comes before. The rest of the image, which no tokenizer needs to see, is inserted before the mark afterwards.
        """
        image = [self.image_start_token_id] + [self.image_token_id] * self.image_seq_length if with_image else []
        room = min(limit, self.tokenizer.model_max_length - len(image))
        least = self.tokenizer.num_special_tokens_to_add() + 1
        if room < least:
            raise ValueError(
                f"a text{' after its image' * with_image} takes at least {len(image) + least} tokens; `max_length` "
                f"allows {limit + len(image)}, and the model's maximum is {self.tokenizer.model_max_length}"
            )
        if with_image:
            texts = [IMAGE_TOKENS[2] + self.caption_prefix + text for text in texts]
        # Not truncated by the tokenizer, which would keep the length as state that threads share.
        encoded: list[list[int]] = self.tokenizer(
            texts, truncation=False, padding=False, return_attention_mask=False, verbose=False
        )["input_ids"]
        encoded = cut_tokens(encoded, room, self.tokenizer)
        if not with_image:
            return encoded
        marks = (tokens.index(self.image_end_token_id) for tokens in encoded)
        return [tokens[:mark] + image + tokens[mark:] for tokens, mark in zip(encoded, marks, strict=True)]

    def apply_chat_template(  # type: ignore[override]
        self,
        conversation: Sequence[Any],
        chat_template: str | None = None,  # noqa: ARG002 (part of the signature that transformers expects)
        tokenize: bool = True,
        processor_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> BatchFeature | list[str]:
        """Process messages, the form in which sentence-transformers passes batches of mixed kinds.

        The texts of a system message (a prompt) and of the user's message are joined; a prompt alone is not a caption.

        Args:
            conversation: One conversation, or a list of them. A message is `{"role": ..., "content": ...}`; its content
                is a text or a list of `{"type": "text", "text": ...}` and `{"type": "image", "image": ...}`.
            chat_template: Unused.
            tokenize: Whether to return tensors; otherwise the texts.
            processor_kwargs: Nested arguments of the call, as in transformers.
            **kwargs: `return_tensors`, `padding` and `max_length` are used, others ignored.

        Returns:
            The result of a call with the same texts and images, or the texts.

        Raises:
            ValueError: If a conversation has several images, or a part of an unknown type.
        """
        conversations = [conversation] if conversation and isinstance(conversation[0], dict) else conversation
        for messages in conversations:
            remove_missing_images(messages)
        inputs = []
        for position, messages in enumerate(conversations):
            with place(f"input {position}"):
                inputs.append(input_from_messages(messages))
        if not tokenize:
            return [item.text or "" for item in inputs]
        options = dict(processor_kwargs or {})
        options.update({name: kwargs[name] for name in ("return_tensors", "padding", "max_length") if kwargs.get(name)})
        return self(text=[item.text for item in inputs], images=[item.image for item in inputs], **options)
