"""Processor of CIEA: turns texts, captions and images into token ids and pixel values."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from transformers import BatchFeature, PreTrainedTokenizerBase, ProcessorMixin
from transformers.utils import logging

from .inputs_ciea import input_from_messages, load_image
from .validation_ciea import check_image_patches, check_image_size

if TYPE_CHECKING:
    from collections.abc import Sequence

logger = logging.get_logger(__name__)

FIXED_ARGUMENTS = {  # arguments that are accepted because they request what the processor always does
    "truncation": (True, "longest_first", "only_first"),
    "return_attention_mask": (True,),
    "add_special_tokens": (True,),
}
OTHER_MODALITIES = ("audio_kwargs", "videos_kwargs")  # sentence-transformers always passes these
IMAGE_TOKENS = ("<im_patch>", "<im_start>", "<im_end>")  # placeholder, start mark, end mark


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
            `model_max_length` limits the whole sequence, including placeholders.
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
        check_image_size(image_processor.to_dict())
        check_image_patches(image_seq_length)
        super().__init__(image_processor, tokenizer, chat_template=chat_template, **kwargs)  # type: ignore[no-untyped-call]
        self.image_seq_length = image_seq_length
        self.max_text_length = max_text_length
        self.caption_prefix = caption_prefix
        tokenizer.add_special_tokens({"extra_special_tokens": list(IMAGE_TOKENS)}, replace_extra_special_tokens=False)
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        tokenizer.padding_side = tokenizer.truncation_side = "right"
        ids: Any = tokenizer.convert_tokens_to_ids(list(IMAGE_TOKENS))
        self.image_token_id, self.image_start_token_id, self.image_end_token_id = ids

    @property
    def model_input_names(self) -> list[str]:
        """Names of the tensors that [`CIEAModel`] takes."""
        return ["input_ids", "attention_mask", "pixel_values"]

    def __call__(
        self,
        images: Any = None,
        text: str | Sequence[str | None] | None = None,
        max_length: int | None = None,
        padding: bool | str = "longest",
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
            **kwargs: `images_kwargs` for the image processor; `text_kwargs` and `common_kwargs` with any of these
                arguments. Others are ignored with a warning, as in transformers.

        Returns:
            `input_ids` and `attention_mask`, (batch, T), and, if there are images, `pixel_values`
            (images, 3, height, width) in input order.

        Raises:
            ValueError: If texts and images differ in number, an input is empty, or an image is corrupt.
        """
        options: dict[str, Any] = {"max_length": max_length, "padding": padding, "return_tensors": return_tensors}
        images_kwargs = kwargs.pop("images_kwargs", {})
        given = {**kwargs.pop("text_kwargs", {}), **kwargs.pop("common_kwargs", {}), **kwargs}
        options.update({name: value for name, value in given.items() if name in options})
        known = (*options, *OTHER_MODALITIES)
        ignored = [
            name for name, value in given.items() if name not in known and value not in FIXED_ARGUMENTS.get(name, ())
        ]
        if ignored:
            logger.warning_once(f"CIEAProcessor ignores unknown argument(s) {', '.join(ignored)}")
        texts, paired_images = _pair(text, images)
        decoded = [None if image is None else _load(image, position) for position, image in enumerate(paired_images)]
        return self.process_decoded(texts, decoded, images_kwargs, **options)

    def process_decoded(
        self,
        text: Sequence[str | None],
        images: Sequence[Any],
        images_kwargs: dict[str, Any] | None = None,
        **options: Any,
    ) -> BatchFeature:
        """Process inputs whose images have been decoded by `load_image`, so that nothing is decoded twice.

        Args:
            text: Text or caption of each input, `None` where there is none.
            images: RGB image of each input, `None` where there is none.
            images_kwargs: Arguments of the image processor.
            **options: Arguments of [`tokenize`].

        Returns:
            The same as a call of the processor.
        """
        batch = self.tokenize(text, [image is not None for image in images], **options)
        decoded = [image for image in images if image is not None]
        if decoded:
            return_tensors = options.get("return_tensors", "pt")
            pixels = self.image_processor(decoded, return_tensors=return_tensors, **(images_kwargs or {}))
            batch["pixel_values"] = pixels["pixel_values"]
        return batch

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
        limit = self.max_text_length if max_length is None else max_length
        if any(has_image) and self.image_seq_length > self.tokenizer.model_max_length:
            raise ValueError(
                f"an image takes {self.image_seq_length} tokens; the model's maximum is "
                f"{self.tokenizer.model_max_length}"
            )
        ids = self._token_ids([_clean(*pair) for pair in zip(text, has_image, strict=True)], limit)
        width = min(limit + self.image_seq_length + 1, self.tokenizer.model_max_length)
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
        encoded: list[list[int]] = self.tokenizer(
            texts, truncation=True, max_length=room, return_attention_mask=False, padding=False
        )["input_ids"]
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
        single = bool(conversation) and isinstance(conversation[0], dict)
        conversations = [conversation] if single else conversation
        inputs = [input_from_messages(messages, position) for position, messages in enumerate(conversations)]
        if not tokenize:
            return [item.text or "" for item in inputs]
        options = dict(processor_kwargs or {})
        options.update({name: kwargs[name] for name in ("return_tensors", "padding", "max_length") if kwargs.get(name)})
        return self(text=[item.text for item in inputs], images=[item.image for item in inputs], **options)


def _clean(text: str | None, has_image: bool) -> tuple[str | None, bool]:
    """Remove the image tokens, which are reserved for the model, from a text; a blank caption counts as none."""
    if text is not None:
        text = re.sub("|".join(IMAGE_TOKENS), " ", text)
    return (None if has_image and text is not None and not text.strip() else text), has_image


def _pair(text: Any, images: Any) -> tuple[list[str | None], list[Any]]:
    """Return texts and images as lists of equal length, `None` where one is missing."""
    if text is None and images is None:
        raise ValueError("`text`, `images` or both are required; got neither")
    texts = [text] if isinstance(text, str) else text
    image_list = images if images is None or isinstance(images, list | tuple) else [images]
    texts = [None] * len(image_list or []) if texts is None else list(texts)
    image_list = [None] * len(texts) if image_list is None else list(image_list)
    if len(texts) != len(image_list):
        raise ValueError(
            f"`text` has {len(texts)} inputs and `images` {len(image_list)}; both need one entry per input, None where "
            "an input has no text or no image"
        )
    return texts, image_list


def _load(image: Any, position: int) -> Any:
    try:
        return load_image(image)
    except (ValueError, TypeError, FileNotFoundError) as error:
        raise type(error)(f"input {position}: {error}") from error
