"""The processor of CIEA: texts, captions and images become token ids and pixels."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from transformers import BatchFeature, PreTrainedTokenizerBase, ProcessorMixin
from transformers.utils import logging

from .inputs_ciea import ModelInput, load_image
from .validation_ciea import check_image_patches, check_image_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

logger = logging.get_logger(__name__)

ALWAYS = {  # what is so anyway
    "truncation": (True, "longest_first", "only_first"),
    "return_attention_mask": (True,),
    "add_special_tokens": (True,),
}
OTHER_MODALITIES = ("audio_kwargs", "videos_kwargs")  # of what is not given, sentence-transformers always hands over
IMAGE_TOKENS = ("<im_patch>", "<im_start>", "<im_end>")  # the placeholder, the mark before and the mark after


class CIEAProcessor(ProcessorMixin):
    """Turns texts, images and images with captions into what [`CIEAModel`] reads.

    An image with a caption becomes `<im_start>`, P times `<im_patch>`, `<im_end>` and `" caption: "` with the caption;
    an image alone P times `<im_patch>`; a text stays bare. The caption is truncated, the placeholders never.

    Args:
        image_processor: Any image processor whose output is `pixel_values` of one size.
        tokenizer: Any fast tokenizer; the three image tokens are added where it lacks them.
        image_seq_length: Patches of an image, P.
        max_text_length: Tokens that a text or a caption may have, end of sequence included. The tokenizer's
            `model_max_length` bounds the whole sequence, placeholders included.
        caption_prefix: What stands between the end mark and the caption.
        chat_template: Not used; there for the signature that transformers expects.
    """

    _auto_class = "AutoProcessor"  # saving takes the code along

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
            raise ValueError("`image_processor` and `tokenizer` are both needed")
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
        """Names of the tensors that [`CIEAModel`] reads."""
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
            images: An image (PIL, path, bytes, array), or one per input, `None` where an input has none.
            text: A text, or one per input, `None` where an input has none.
            max_length: Tokens that a text or a caption may have; `max_text_length` if `None`.
            padding: `"longest"` (the default), `"max_length"`, or another of the tokenizer's choices.
            return_tensors: Framework of the tensors, as in transformers.
            **kwargs: `images_kwargs` for the image processor; `text_kwargs` and `common_kwargs` with any of these
                arguments. Others are ignored with a warning, as in transformers.

        Returns:
            `input_ids` and `attention_mask`, (batch, T), and, if there are images, `pixel_values`
            (images, 3, height, width) in the order of their inputs.

        Raises:
            ValueError: If texts and images differ in number, an input is empty, or an image is broken.
        """
        options: dict[str, Any] = {"max_length": max_length, "padding": padding, "return_tensors": return_tensors}
        images_kwargs = kwargs.pop("images_kwargs", {})
        given = {**kwargs.pop("text_kwargs", {}), **kwargs.pop("common_kwargs", {}), **kwargs}
        options.update({name: value for name, value in given.items() if name in options})
        known = (*options, *OTHER_MODALITIES)
        ignored = [name for name, value in given.items() if name not in known and value not in ALWAYS.get(name, ())]
        if ignored:
            logger.warning_once(f"CIEAProcessor knows no argument {', '.join(ignored)}: ignored")
        texts, pictures = _pair(text, images)
        batch = self.tokenize(texts, [picture is not None for picture in pictures], **options)
        loaded = [_load(picture, position) for position, picture in enumerate(pictures) if picture is not None]
        if loaded:
            pixels = self.image_processor(loaded, return_tensors=options["return_tensors"], **images_kwargs)
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
        """Write the token ids of a batch; images are only counted, so that their features may come from a cache.

        Args:
            text: A text or a caption for each input, `None` where there is none.
            has_image: Whether each input has an image.
            max_length: Tokens that a text or a caption may have; `max_text_length` if `None`.
            padding: As in transformers.
            return_tensors: As in transformers.

        Returns:
            `input_ids` and `attention_mask`, (batch, T).

        Raises:
            ValueError: If an input is empty, or an image leaves no room for a caption's first token.
        """
        limit = self.max_text_length if max_length is None else max_length
        if any(has_image) and self.image_seq_length > self.tokenizer.model_max_length:
            raise ValueError(
                f"an image takes {self.image_seq_length} tokens; the model reads {self.tokenizer.model_max_length}"
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
            places = [i for i, (text, has_image) in enumerate(inputs) if text is not None and has_image == with_image]
            if not places:
                continue
            texts = [str(inputs[place][0]) for place in places]
            for place, tokens in zip(places, self._tokenize_texts(texts, with_image, limit), strict=True):
                ids[place] = tokens or [self.tokenizer.pad_token_id]
        for position, (text, has_image) in enumerate(inputs):
            if text is None and not has_image:
                raise ValueError(f"input {position}: there is neither a text nor an image")
        return ids

    def _tokenize_texts(self, texts: list[str], with_image: bool, limit: int) -> list[list[int]]:
        """Token ids of texts, or of captions behind their images.

        A caption is tokenised behind its end mark, as it stands in the whole sequence; the rest of the image, which
        no tokenizer needs to read, is put before the mark afterwards.
        """
        image = [self.image_start_token_id] + [self.image_token_id] * self.image_seq_length if with_image else []
        room = min(limit, self.tokenizer.model_max_length - len(image))
        least = self.tokenizer.num_special_tokens_to_add() + 1
        if room < least:
            raise ValueError(
                f"a text{' behind its image' * with_image} takes at least {len(image) + least} tokens; `max_length` "
                f"leaves {limit + len(image)}, and the model reads {self.tokenizer.model_max_length}"
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
        """Process messages, the form in which sentence-transformers hands over batches of mixed kinds.

        The texts of a system message (a prompt) and of the user's message are joined; a prompt alone makes no caption.

        Args:
            conversation: One conversation, or a list of them; a message is `{"role": ..., "content": ...}`, its content
                a text or a list of `{"type": "text", "text": ...}` and `{"type": "image", "image": ...}`.
            chat_template: Not used.
            tokenize: Whether to return tensors; the texts if not.
            processor_kwargs: Nested arguments of the call, as in transformers.
            **kwargs: `return_tensors`, `padding` and `max_length` are read, others left aside.

        Returns:
            What the call returns for the same texts and images, or the texts.

        Raises:
            ValueError: If a conversation holds several images, or a part of an unknown type.
        """
        single = bool(conversation) and isinstance(conversation[0], dict)
        conversations = [conversation] if single else conversation
        documents = [_document_of(messages, position) for position, messages in enumerate(conversations)]
        if not tokenize:
            return [document.text or "" for document in documents]
        options = dict(processor_kwargs or {})
        options.update({name: kwargs[name] for name in ("return_tensors", "padding", "max_length") if kwargs.get(name)})
        return self(
            text=[document.text for document in documents], images=[document.image for document in documents], **options
        )


def _clean(text: str | None, has_image: bool) -> tuple[str | None, bool]:
    """Take the image tokens, which are the model's own, out of a text; a blank caption is none."""
    if text is not None:
        text = re.sub("|".join(IMAGE_TOKENS), " ", text)
    return (None if has_image and text is not None and not text.strip() else text), has_image


def _pair(text: Any, images: Any) -> tuple[list[str | None], list[Any]]:
    """Lists of equal length, `None` where a side is absent."""
    texts = [text] if isinstance(text, str) else None if text is None else list(text)
    pictures = None if images is None else list(images) if isinstance(images, list | tuple) else [images]
    if texts is None and pictures is None:
        raise ValueError("give `text`, `images` or both")
    texts = [None] * len(pictures or []) if texts is None else texts
    pictures = [None] * len(texts) if pictures is None else pictures
    if len(texts) != len(pictures):
        raise ValueError(
            f"`text` has {len(texts)} inputs and `images` {len(pictures)}; give one of each per input, None where an "
            "input has no text or no image"
        )
    return texts, pictures


def _load(image: Any, position: int) -> Any:
    try:
        return load_image(image)
    except (ValueError, TypeError, FileNotFoundError) as error:
        raise type(error)(f"input {position}: {error}") from error


def _document_of(messages: Iterable[dict[str, Any]], position: int) -> ModelInput:
    texts: list[str] = []
    prompts: list[str] = []
    images: list[Any] = []
    for message in messages:
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        for part in parts:
            kind = part.get("type")
            if kind == "text":
                (prompts if message.get("role") == "system" else texts).append(part["text"] or "")
            elif kind == "image":
                images.append(part["image"])
            else:
                raise ValueError(f"input {position}: content must be of type 'text' or 'image', got {kind!r}")
    images = [image for image in images if image is not None]
    if len(images) > 1:
        raise ValueError(f"input {position}: one image per input, got {len(images)}")
    text = "".join(texts)
    if not text.strip() and images:
        return ModelInput(None, images[0])
    return ModelInput("".join(prompts) + text, images[0] if images else None)
