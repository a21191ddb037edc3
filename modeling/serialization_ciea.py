"""Building, saving and loading a complete CIEA model: towers, processor and sentence-transformers files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from PIL import Image
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoTokenizer
from transformers.utils import logging

from .batches_ciea import LoadedLimit
from .configuration_ciea import CIEAConfig
from .layers_ciea import patch_states
from .loaded_weights_ciea import missing_weights, warn_of_weights, weights_not_finite
from .processing_ciea import CIEAProcessor
from .text_encoder_ciea import positions_of, text_encoder_settings
from .validation_ciea import check_weight_files

if TYPE_CHECKING:
    import os

    from transformers import PreTrainedModel

    Base = PreTrainedModel
else:
    Base = object

logger = logging.get_logger(__name__)

Model = TypeVar("Model", bound="SerializationMixin")
SETTINGS_FILE = "config_sentence_transformers.json"
UPLOAD_ARGUMENTS = ("commit_message", "private", "create_pr", "revision")
HUB_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")


class SerializationMixin(Base):
    """Builds the model from pretrained towers, and saves and loads complete model folders."""

    _processor: CIEAProcessor | None = None
    _hub_arguments: dict[str, Any] | None = None
    _folder: Path | None = None  # absolute path of the folder that the model was loaded from
    _loaded_prompts: dict[str, str] | None = None
    missing_weights: tuple[str, ...] = ()
    """Names of weights that the loaded checkpoint lacked, or had in another shape, and that are random now."""

    @property
    def processor(self) -> CIEAProcessor:
        """The processor, loaded on first use from where the model was loaded.

        Raises:
            FileNotFoundError: If the folder that the model was loaded from no longer exists.
            ValueError: If the model was not loaded from a folder or the Hub, and no processor was set.
        """
        if self._processor is None:
            if not self.config.name_or_path:
                raise ValueError(
                    "the model has no processor: set `model.processor = CIEAProcessor(...)`, or load the model with "
                    "`from_pretrained` from a folder that contains one"
                )
            if self._folder is not None and not self._folder.is_dir():  # else the path would be looked up on the Hub
                raise FileNotFoundError(
                    f"{self._folder}, the folder that the model was loaded from, no longer exists: set "
                    "`model.processor = CIEAProcessor(...)`"
                )
            origin = self._folder or self.config.name_or_path
            # Code that travelled with the checkpoint runs already, so it is trusted for the processor, too.
            trust = {"trust_remote_code": True} if type(self).__module__.startswith("transformers_modules.") else {}
            self._processor = CIEAProcessor.from_pretrained(origin, **trust, **(self._hub_arguments or {}))
        return self._processor

    @processor.setter
    def processor(self, value: CIEAProcessor) -> None:
        self._processor = value

    @classmethod
    def from_pretrained(cls: type[Model], pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load a model from a folder or the Hub, as `PreTrainedModel` does; the processor is loaded on demand.

        A warning names weights that are missing, and therefore random, or not finite.
        """
        hub_arguments = {name: kwargs[name] for name in HUB_ARGUMENTS if kwargs.get(name) is not None}
        folder = None
        if pretrained_model_name_or_path is not None:  # None if a configuration and a state dict are passed
            check_weight_files(Path(pretrained_model_name_or_path, kwargs.get("subfolder") or ""))
            folder = Path(pretrained_model_name_or_path) if Path(pretrained_model_name_or_path).is_dir() else None
        with_report = kwargs.pop("output_loading_info", False)
        loaded: Any = super().from_pretrained(pretrained_model_name_or_path, *args, output_loading_info=True, **kwargs)
        model, report = loaded
        model.missing_weights = missing_weights(report)
        not_finite = weights_not_finite(model.state_dict().items())
        warn_of_weights(pretrained_model_name_or_path or "the state dict", model.missing_weights, not_finite)
        model._hub_arguments = hub_arguments
        model._loaded_prompts = dict(model.config.prompts)
        if folder is not None:  # a relative path would look like a Hub id
            model._folder = folder.resolve()
            model.config._name_or_path = str(model._folder)
        return (model, report) if with_report else model

    def save_pretrained(  # type: ignore[override]  # the other arguments are keyword arguments
        self,
        save_directory: str | os.PathLike[str],
        is_main_process: bool = True,
        push_to_hub: bool = False,
        **kwargs: Any,
    ) -> None:
        """Save a complete folder: weights, configuration, processor, remote code and sentence-transformers files.

        A `SentenceTransformer` that contains the model writes its own prompts and settings before it saves the model.
        They are kept, and its prompts become those of `config`, unless the model's prompts have changed since loading.

        Args:
            save_directory: Target folder; created if missing.
            is_main_process: Whether this process writes the files other than weights.
            push_to_hub: Whether to upload the folder afterwards; accepts `repo_id` and other arguments of
                `push_to_hub`.
            **kwargs: Further arguments of `PreTrainedModel.save_pretrained`.
        """
        settings = _sentence_transformers_settings(save_directory) if "safe_serialization" in kwargs else None
        if settings is not None and self._loaded_prompts not in (None, self.config.prompts):
            settings = None  # the model's own prompts have changed since and take precedence
        if settings is not None:
            self.config.prompts = {name: prompt or "" for name, prompt in settings["prompts"].items()}
            self._loaded_prompts = dict(self.config.prompts)
        repo_id = kwargs.pop("repo_id", Path(save_directory).name)
        upload = {name: kwargs.pop(name) for name in UPLOAD_ARGUMENTS if name in kwargs}
        processor = self._processor_or_none()
        super().save_pretrained(save_directory, is_main_process=is_main_process, **kwargs)
        _share_weights(Path(save_directory))
        if is_main_process and processor is not None:
            processor.save_pretrained(save_directory)
            _write_sentence_transformers_files(save_directory, self.config.prompts, settings)
        if push_to_hub and is_main_process:
            self.push_to_hub(repo_id, token=kwargs.get("token"), **upload)

    def _processor_or_none(self) -> CIEAProcessor | None:
        """Return the processor, or `None` for a model that never had one."""
        try:
            return self.processor
        except (OSError, ValueError) as error:
            logger.warning("The model is saved without a processor: %s", error)
            return None

    @classmethod
    def from_vision_text_pretrained(
        cls: type[Model], vision: str | os.PathLike[str], text: str | os.PathLike[str], **config_overrides: Any
    ) -> Model:
        """Combine a pretrained vision tower and a pretrained language model.

        The parts that no checkpoint contains (projector, extractor, logit scale, the three image tokens) are newly
        initialised; a warning lists them.

        Args:
            vision: Folder or Hub id of the vision tower; of a two-tower model such as CLIP, the vision side is used.
                The number of patches of an image is measured.
            text: Folder or Hub id of the language model and its tokenizer. Pooling, normalisation, maximum length and
                prompts of a sentence-transformers model are kept, so that embeddings of texts stay the same.
            **config_overrides: Arguments of [`CIEAConfig`], such as `use_extractor=False`.

        Returns:
            The model with its processor, in evaluation mode.
        """
        encoder = text_encoder_settings(text)
        vision_model = AutoModel.from_pretrained(vision, config=_vision_config(vision), dtype=torch.float32)
        text_model = AutoModel.from_pretrained(text, dtype=torch.float32)
        for tower, origin in ((vision_model, vision), (text_model, text)):
            if Path(origin).is_dir():  # a relative path would look like a Hub id
                tower.config._name_or_path = str(Path(origin).resolve())
        tokenizer = AutoTokenizer.from_pretrained(text)
        image_processor = AutoImageProcessor.from_pretrained(vision)
        processor = CIEAProcessor(image_processor, tokenizer)
        if encoder.max_length is not None:  # a limit of texts; placeholders of images come on top of it
            processor.max_text_length = encoder.max_length
            tokenizer.model_max_length = LoadedLimit(max(tokenizer.model_max_length, positions_of(text_model) or 0))
        rows = text_model.get_input_embeddings().weight.shape[0]
        if len(tokenizer) > rows:
            text_model.resize_token_embeddings(len(tokenizer))
        tokens = ("image_token_id", "image_start_token_id", "image_end_token_id")
        ids = {token: getattr(processor, token) for token in tokens}
        layer = config_overrides.get("vision_feature_layer", -1)
        patches = _measure_patches(vision_model, image_processor, layer)
        settings = {**encoder.config, "image_seq_length": patches, **ids}
        config = CIEAConfig(
            vision_config=vision_model.config, text_config=text_model.config, **{**settings, **config_overrides}
        )
        model = cls(config)
        model.vision_model, model.text_model = vision_model, text_model
        processor.image_seq_length = config.image_seq_length
        model.processor = processor
        new = ["projector", "logit_scale", *(["extractor"] if config.use_extractor else [])]
        logger.warning(
            "Newly initialised weights, which need training: %s, and the token embeddings of %s.",
            ", ".join(new),
            ", ".join(tokenizer.convert_ids_to_tokens(list(ids.values()))),
        )
        model.eval()  # type: ignore[no-untyped-call]
        return model


def _share_weights(folder: Path) -> None:
    """Give files of weights, which safetensors writes for their owner only, the mode of the configuration."""
    config = folder / "config.json"
    for file in folder.glob("*.safetensors") if config.is_file() else []:
        file.chmod(config.stat().st_mode & 0o666)


@torch.no_grad()
def _measure_patches(vision_model: PreTrainedModel, image_processor: Any, layer: int) -> int:
    """Count the patches that a tower produces for a preprocessed image, excluding prefix tokens."""
    pixel_values = image_processor(Image.new("RGB", (64, 64)), return_tensors="pt")["pixel_values"]
    states = patch_states(vision_model, pixel_values, layer).shape[1]
    patch_size = getattr(vision_model.config, "patch_size", None)
    if patch_size is None:
        return states
    rows, columns = (patch_size, patch_size) if isinstance(patch_size, int) else patch_size
    grid = int(pixel_values.shape[-2] // rows * (pixel_values.shape[-1] // columns))
    return min(grid, states)  # a hierarchical tower returns fewer states than it has patches


def _sentence_transformers_settings(folder: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Read the settings that a `SentenceTransformer` has written into a folder; `None` if it has not."""
    path = Path(folder) / SETTINGS_FILE
    content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return content if "__version__" in content and isinstance(content.get("prompts"), dict) else None


def _write_sentence_transformers_files(
    folder: str | os.PathLike[str], prompts: dict[str, str], settings: dict[str, Any] | None
) -> None:
    """Write the files with which `SentenceTransformer(folder)` loads the model through its stock Transformer module.

    Args:
        folder: Folder of the model.
        prompts: Prompts by name.
        settings: Settings of the `SentenceTransformer` that contains the model; `None` for a model alone.
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
    """Load the configuration of a vision tower, or of the vision side of a two-tower model."""
    config = AutoConfig.from_pretrained(vision)
    return getattr(config, "vision_config", config)
