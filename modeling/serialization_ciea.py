"""How a CIEA model is put together, saved whole and found again: towers, processor, sentence-transformers files."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from PIL import Image
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoTokenizer
from transformers.utils import logging

from .configuration_ciea import CIEAConfig
from .layers_ciea import patch_states
from .processing_ciea import CIEAProcessor
from .validation_ciea import check_weight_files

if TYPE_CHECKING:
    import os

    from transformers import PreTrainedModel

    Base = PreTrainedModel
else:
    Base = object

logger = logging.get_logger(__name__)

Model = TypeVar("Model", bound="AssemblyMixin")
SETTINGS_FILE = "config_sentence_transformers.json"
NOT_OF_PUSH = {"tags", "commit_description", "safe_serialization", "use_temp_dir", "save_peft_format"}
HUB_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")


class AssemblyMixin(Base):
    """Builds the model from pretrained towers, and keeps its processor and its folder complete."""

    _processor: CIEAProcessor | None = None
    _hub_arguments: dict[str, Any] | None = None
    _folder: Path | None = None  # where the model was read, whatever the working directory is later
    _loaded_prompts: dict[str, str] | None = None

    @property
    def processor(self) -> CIEAProcessor:
        """The processor, read from where the model was read on first use.

        Raises:
            FileNotFoundError: If the folder has gone from which the model was read.
            ValueError: If the model was not read from a folder or the Hub, and no processor was set.
        """
        if self._processor is None:
            if not self.config.name_or_path:
                raise ValueError(
                    "the model has no processor: set `model.processor = CIEAProcessor(...)`, or load the model with "
                    "`from_pretrained` from a folder that holds one"
                )
            if self._folder is not None and not self._folder.is_dir():  # and a name on the Hub it never was
                raise FileNotFoundError(
                    f"the folder {self._folder}, from which the model was read, has gone: set `model.processor = "
                    "CIEAProcessor(...)`"
                )
            origin = self._folder or self.config.name_or_path
            self._processor = CIEAProcessor.from_pretrained(origin, **(self._hub_arguments or {}))
        return self._processor

    @processor.setter
    def processor(self, value: CIEAProcessor) -> None:
        self._processor = value

    @classmethod
    def from_pretrained(cls: type[Model], pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Read a model from a folder or the Hub, as `PreTrainedModel` does; the processor comes on demand."""
        hub_arguments = {name: kwargs[name] for name in HUB_ARGUMENTS if kwargs.get(name) is not None}
        folder = None
        if pretrained_model_name_or_path is not None:  # None: a configuration and a state dict are given
            check_weight_files(Path(pretrained_model_name_or_path, kwargs.get("subfolder") or ""))
            folder = Path(pretrained_model_name_or_path) if Path(pretrained_model_name_or_path).is_dir() else None
        loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model._hub_arguments = hub_arguments
        model._loaded_prompts = dict(model.config.prompts)
        if folder is not None:  # its relative path would look like a name on the Hub
            model._folder = folder.resolve()
            model.config._name_or_path = str(model._folder)
        return loaded

    def save_pretrained(  # type: ignore[override]  # the rest by name
        self,
        save_directory: str | os.PathLike[str],
        is_main_process: bool = True,
        push_to_hub: bool = False,
        **kwargs: Any,
    ) -> None:
        """Save a complete folder: weights, configuration, processor, remote code and sentence-transformers files.

        A `SentenceTransformer` that holds the model has written its own prompts and settings before it saves the model:
        they stay, and its prompts become those of `config`, unless these have been changed.

        Args:
            save_directory: The folder; made if it does not exist.
            is_main_process: Whether this process writes what is not weights.
            push_to_hub: Whether to upload the folder afterwards; `repo_id` and the rest of the arguments of
                `push_to_hub` may be given.
            **kwargs: As in `PreTrainedModel.save_pretrained`.
        """
        settings = _settings_of_sentence_transformers(save_directory) if "safe_serialization" in kwargs else None
        if settings is not None and self._loaded_prompts not in (None, self.config.prompts):
            settings = None  # the model has been given other prompts since: it is saved by itself
        if settings is not None:
            self.config.prompts = {name: prompt or "" for name, prompt in settings["prompts"].items()}
            self._loaded_prompts = dict(self.config.prompts)
        repo_id = kwargs.pop("repo_id", Path(save_directory).name)
        upload = {
            name: kwargs.pop(name) for name in ("commit_message", "private", "create_pr", "revision") if name in kwargs
        }
        processor = self._processor_if_any()
        super().save_pretrained(save_directory, is_main_process=is_main_process, **kwargs)
        if is_main_process and processor is not None:
            processor.save_pretrained(save_directory)
            _write_sentence_transformers_files(save_directory, self.config.prompts, settings)
        if push_to_hub and is_main_process:
            self.push_to_hub(repo_id, token=kwargs.get("token"), **upload)

    def push_to_hub(self, repo_id: str, **kwargs: Any) -> str:  # type: ignore[override]
        """Publish the model whole, as `save_pretrained` writes it, in one commit.

        Where the package `ciea_hf` is installed, it is published by `ciea_hf.push`, with a model card; as remote code
        alone, by transformers.

        Args:
            repo_id: `owner/name`.
            **kwargs: `private`, `revision`, `create_pr`, `commit_message`, `token`, `max_shard_size`.

        Returns:
            Address of the commit or of the pull request.
        """
        if __name__ == "ciea_hf.modeling.serialization_ciea":
            without_use = sorted(kwargs.keys() & NOT_OF_PUSH)
            if without_use:
                logger.warning("push_to_hub makes no use of %s; tags stand in the card", ", ".join(without_use))
            kwargs = {name: value for name, value in kwargs.items() if name not in NOT_OF_PUSH}
            return str(importlib.import_module("ciea_hf.hub").push(self, repo_id, **kwargs).url)
        return str(super().push_to_hub(repo_id, **kwargs))  # type: ignore[arg-type]  # mypy takes it for unbound

    def _processor_if_any(self) -> CIEAProcessor | None:
        """The processor, or `None` for a model that never had one."""
        try:
            return self.processor
        except (OSError, ValueError) as error:
            logger.warning("The model is saved without a processor: %s", error)
            return None

    @classmethod
    def from_vision_text_pretrained(
        cls: type[Model], vision: str | os.PathLike[str], text: str | os.PathLike[str], **config_overrides: Any
    ) -> Model:
        """Join a pretrained vision tower and a pretrained language model.

        What no checkpoint holds (projector, extractor, logit scale, the three image tokens) is new and logged as such.

        Args:
            vision: Folder or Hub id of the vision tower; of a two-tower model, such as CLIP, the vision side is taken.
                How many patches it makes of an image is measured.
            text: Folder or Hub id of the language model and its tokenizer.
            **config_overrides: Arguments of [`CIEAConfig`], such as `use_extractor=False`.

        Returns:
            The model, with its processor, in evaluation mode.
        """
        vision_model = AutoModel.from_pretrained(vision, config=_vision_config(vision), dtype=torch.float32)
        text_model = AutoModel.from_pretrained(text, dtype=torch.float32)
        for tower, origin in ((vision_model, vision), (text_model, text)):
            if Path(origin).is_dir():  # a relative path would look like a name on the Hub
                tower.config._name_or_path = str(Path(origin).resolve())
        tokenizer = AutoTokenizer.from_pretrained(text)
        image_processor = AutoImageProcessor.from_pretrained(vision)
        processor = CIEAProcessor(image_processor, tokenizer)
        rows = text_model.get_input_embeddings().weight.shape[0]
        if len(tokenizer) > rows:
            text_model.resize_token_embeddings(len(tokenizer))
        tokens = ("image_token_id", "image_start_token_id", "image_end_token_id")
        ids = {token: getattr(processor, token) for token in tokens}
        layer = config_overrides.get("vision_feature_layer", -1)
        settings = {"image_seq_length": _measure_patches(vision_model, image_processor, layer), **ids}
        config = CIEAConfig(
            vision_config=vision_model.config, text_config=text_model.config, **{**settings, **config_overrides}
        )
        model = cls(config)
        model.vision_model, model.text_model = vision_model, text_model
        processor.image_seq_length = config.image_seq_length
        model.processor = processor
        new = ["projector", "logit_scale", *(["extractor"] if config.use_extractor else [])]
        logger.warning(
            "New weights, to be trained before the embeddings mean anything: %s, and the token embeddings of %s.",
            ", ".join(new),
            ", ".join(tokenizer.convert_ids_to_tokens(list(ids.values()))),
        )
        model.eval()  # type: ignore[no-untyped-call]
        return model


@torch.no_grad()
def _measure_patches(vision_model: PreTrainedModel, image_processor: Any, layer: int) -> int:
    """Patches that a tower makes of an image as its image processor gives it: its states but for prefix tokens."""
    pixel_values = image_processor(Image.new("RGB", (64, 64)), return_tensors="pt")["pixel_values"]
    states = patch_states(vision_model, pixel_values, layer).shape[1]
    patch_size = getattr(vision_model.config, "patch_size", None)
    if patch_size is None:
        return states
    rows, columns = (patch_size, patch_size) if isinstance(patch_size, int) else patch_size
    grid = int(pixel_values.shape[-2] // rows * (pixel_values.shape[-1] // columns))
    return min(grid, states)  # a hierarchical tower ends with fewer states than it has patches


def _settings_of_sentence_transformers(folder: str | os.PathLike[str]) -> dict[str, Any] | None:
    """What a `SentenceTransformer` has written of itself into a folder; `None` where there is no such file."""
    path = Path(folder) / SETTINGS_FILE
    content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return content if "__version__" in content and isinstance(content.get("prompts"), dict) else None


def _write_sentence_transformers_files(
    folder: str | os.PathLike[str], prompts: dict[str, str], settings: dict[str, Any] | None
) -> None:
    """Write what makes `SentenceTransformer(folder)` load the model through its stock Transformer module.

    Args:
        folder: The model's folder.
        prompts: Prompts by name.
        settings: What a `SentenceTransformer` says of itself; `None` for a model alone.
    """
    embeddings = {"method": "forward", "method_output_name": "embeddings"}
    modalities = ("text", "image", "image+text", "text+image")
    files: dict[str, Any] = {
        "modules.json": [
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"}
        ],
        "sentence_bert_config.json": {
            "transformer_task": "feature-extraction",
            "modality_config": {
                **dict.fromkeys(modalities, embeddings),
                "message": {**embeddings, "format": "structured"},
            },
            "module_output_name": "sentence_embedding",
            "processing_kwargs": {"chat_template": {"restore_suffix": False}},
            "unpad_inputs": False,
        },
        SETTINGS_FILE: settings
        or {
            "model_type": "SentenceTransformer",
            "prompts": prompts,
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        },
    }
    for name, content in files.items():
        (Path(folder) / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _vision_config(vision: str | os.PathLike[str]) -> Any:
    """The configuration of a vision tower, or of the vision side of a two-tower model."""
    config = AutoConfig.from_pretrained(vision)
    return getattr(config, "vision_config", config)
