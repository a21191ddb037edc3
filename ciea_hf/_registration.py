"""Registers CIEA with transformers' Auto classes without importing transformers before it is needed.

transformers and torch take seconds to import, so `import ciea_hf` only installs an import hook. When a module that
defines an Auto class, or CIEA's own configuration or model, has been imported, the hook registers whatever is available
by then. The model and the processor are registered as [`Deferred`] stand-ins, which import the class on first use.
"""

from __future__ import annotations

import importlib
import logging
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

CONFIGURATION = "ciea_hf.modeling.configuration_ciea"
MODEL = "ciea_hf.modeling.modeling_ciea"
# Module of an Auto class -> (name of the Auto class, module and name of our class; None is the configuration itself).
AUTO_CLASSES = {
    "transformers.models.auto.configuration_auto": ("AutoConfig", None),
    "transformers.models.auto.modeling_auto": ("AutoModel", (MODEL, "CIEAModel")),
    "transformers.models.auto.processing_auto": (
        "AutoProcessor",
        ("ciea_hf.modeling.processing_ciea", "CIEAProcessor"),
    ),
}
UNSUPPORTED_PUSH_ARGUMENTS = {"tags", "commit_description", "safe_serialization", "use_temp_dir", "save_peft_format"}


class Deferred:
    """Stand-in for a class of `ciea_hf.modeling` that imports it when an attribute is read or it is called.

    Args:
        module: Name of the module that defines the class.
        name: Name of the class.
        config_class: Configuration class that the class belongs to.
    """

    def __init__(self, module: str, name: str, config_class: type) -> None:
        self.__name__ = name
        self._module = module
        self.config_class = config_class

    def _load(self) -> Any:
        return getattr(importlib.import_module(self._module), self.__name__)

    def __getattr__(self, attribute: str) -> Any:
        return getattr(self._load(), attribute)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._load()(*args, **kwargs)


class RegisterOnImport(MetaPathFinder):
    """Import hook that registers after each watched module has been imported.

    Args:
        names: Names of the watched modules, which are not imported yet.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.waiting = set(names)

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,  # noqa: ARG002 (the import system's signature)
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        """Find a watched module and wrap its loader in a [`RegisteringLoader`]."""
        if fullname not in self.waiting:
            return None
        self.waiting.discard(fullname)
        spec = find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = RegisteringLoader(spec.loader)
        return spec


class RegisteringLoader(Loader):
    """Loads a module with its own loader, then registers.

    Args:
        loader: Original loader of the module.
    """

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def __getattr__(self, attribute: str) -> Any:
        return getattr(self._loader, attribute)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Create the module with its own loader."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Execute the module, then register what is available."""
        self._loader.exec_module(module)
        _register_available()


def register() -> None:
    """Register CIEA with AutoConfig, AutoModel and AutoProcessor, now or as soon as they are imported."""
    names = [CONFIGURATION, MODEL, *AUTO_CLASSES]
    sys.meta_path.insert(0, RegisterOnImport([name for name in names if name not in sys.modules]))
    _register_available()


def _register_available() -> None:
    """Register with every Auto class that is completely imported, and install publishing on the model."""
    model: Any = _imported(MODEL, "CIEAModel")
    if model is not None:
        model.push_to_hub = push_to_hub
    available: dict[str, Any] = {}
    for module, (class_name, _) in AUTO_CLASSES.items():
        auto_class = _imported(module, class_name)
        if auto_class is not None:
            available[module] = auto_class
    if not available:
        return
    if CONFIGURATION not in sys.modules:
        importlib.import_module(CONFIGURATION)  # its own import hook continues here
        return
    config: Any = _imported(CONFIGURATION, "CIEAConfig")
    if config is None:  # its import has started but not finished; its hook continues here
        return
    for module, auto_class in available.items():
        own_class = AUTO_CLASSES[module][1]
        if own_class is None:
            auto_class.register(config.model_type, config, exist_ok=True)
        else:
            auto_class.register(config, Deferred(*own_class, config), exist_ok=True)


def push_to_hub(self: Any, repo_id: str, **kwargs: Any) -> str:
    """Publish the model as `save_pretrained` writes it, with a model card, in one commit.

    Replaces transformers' method on [`CIEAModel`] where this package is installed; remote code alone keeps that method.

    Args:
        self: The model.
        repo_id: Repository on the Hub, `owner/name`.
        **kwargs: `private`, `revision`, `create_pr`, `commit_message`, `token`, `max_shard_size`.

    Returns:
        URL of the commit or pull request.
    """
    unsupported = sorted(kwargs.keys() & UNSUPPORTED_PUSH_ARGUMENTS)
    if unsupported:
        logging.getLogger("transformers.ciea_hf").warning(
            "push_to_hub ignores %s; tags are set in the model card", ", ".join(unsupported)
        )
    arguments = {name: value for name, value in kwargs.items() if name not in UNSUPPORTED_PUSH_ARGUMENTS}
    return str(importlib.import_module("ciea_hf.hub").push(self, repo_id, **arguments).url)


def _imported(module: str, name: str) -> Any:
    """Return an attribute of a module if both exist already, else None."""
    return getattr(sys.modules.get(module), name, None)
