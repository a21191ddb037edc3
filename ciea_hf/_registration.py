"""Registers CIEA with transformers' Auto classes, without importing transformers before somebody needs it.

transformers and torch take seconds to import. So `import ciea_hf` only watches for the modules that define AutoConfig,
AutoModel and AutoProcessor, and for CIEA's own configuration: when one of them has been imported, what can be
registered is. For the model and the processor, stand-ins are registered that become the classes when first used.
"""

from __future__ import annotations

import importlib
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

CONFIGURATION = "ciea_hf.modeling.configuration_ciea"
AUTO = {  # the Auto classes' modules -> the class in each, and what of ours it learns (None: the configuration itself)
    "transformers.models.auto.configuration_auto": ("AutoConfig", None),
    "transformers.models.auto.modeling_auto": ("AutoModel", ("ciea_hf.modeling.modeling_ciea", "CIEAModel")),
    "transformers.models.auto.processing_auto": (
        "AutoProcessor",
        ("ciea_hf.modeling.processing_ciea", "CIEAProcessor"),
    ),
}


class Deferred:
    """Stands for a class of `ciea_hf.modeling` until one of its attributes is asked for, or it is called.

    Args:
        module: Name of the module that holds the class.
        name: Name of the class.
        config_class: The configuration it belongs to.
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
    """Watches for the modules that registration needs, and registers after each of them.

    Args:
        names: The modules, not imported yet.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.waiting = set(names)

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,  # noqa: ARG002 (the import system's signature)
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        """Find a watched module, and load it through a loader that registers afterwards."""
        if fullname not in self.waiting:
            return None
        self.waiting.discard(fullname)
        spec = find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = RegisteringLoader(spec.loader)
        return spec


class RegisteringLoader(Loader):
    """Loads a module as its own loader does, then registers.

    Args:
        loader: The module's own loader.
    """

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def __getattr__(self, attribute: str) -> Any:
        return getattr(self._loader, attribute)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Create the module as its own loader does."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Run the module, then register."""
        self._loader.exec_module(module)
        _register_what_is_there()


def register() -> None:
    """Make AutoConfig, AutoModel and AutoProcessor know CIEA, now or as soon as they are imported."""
    names = [CONFIGURATION, *AUTO]
    sys.meta_path.insert(0, RegisterOnImport([name for name in names if name not in sys.modules]))
    _register_what_is_there()


def _register_what_is_there() -> None:
    """Register with the Auto classes that have been imported wholly; nothing before the first of them."""
    found = {name: auto for name, (class_name, _) in AUTO.items() if (auto := _class_of(name, class_name)) is not None}
    if not found:
        return
    if CONFIGURATION not in sys.modules:
        importlib.import_module(CONFIGURATION)  # comes back here when it is done
        return
    config: Any = _class_of(CONFIGURATION, "CIEAConfig")
    if config is None:  # it is being imported, and comes back here when it is done
        return
    for name, auto in found.items():
        ours = AUTO[name][1]
        if ours is None:
            auto.register(config.model_type, config, exist_ok=True)
        else:
            auto.register(config, Deferred(*ours, config), exist_ok=True)


def _class_of(module: str, name: str) -> Any:
    return getattr(sys.modules.get(module), name, None)
