"""Registers CIEA with transformers' Auto classes, without importing the model before somebody needs it.

transformers takes seconds to import its model and processor machinery. So `import ciea_hf` registers the configuration
and, for the model and the processor, stand-ins that become the classes when they are first used.
"""

from __future__ import annotations

import importlib
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from transformers import AutoConfig, AutoModel

from ciea_hf.modeling.configuration_ciea import CIEAConfig

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

PROCESSING = "transformers.models.auto.processing_auto"


class Deferred:
    """Stands for a class of `ciea_hf.modeling` until one of its attributes is asked for, or it is called.

    Args:
        module: Name of the module that holds the class.
        name: Name of the class.
    """

    config_class = CIEAConfig

    def __init__(self, module: str, name: str) -> None:
        self.__name__ = name
        self._module = module

    def _load(self) -> Any:
        return getattr(importlib.import_module(self._module), self.__name__)

    def __getattr__(self, attribute: str) -> Any:
        return getattr(self._load(), attribute)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._load()(*args, **kwargs)


class RegisterOnImport(MetaPathFinder, Loader):
    """Registers the processor as soon as transformers' own AutoProcessor is imported."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,  # noqa: ARG002 (the import system's signature)
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        """Find AutoProcessor's module, and load it through this loader."""
        if fullname != PROCESSING:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(fullname)
        if spec is not None and spec.loader is not None:
            self._loader = spec.loader
            spec.loader = self
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Create the module as its own loader does."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Run the module, then register with it."""
        self._loader.exec_module(module)
        _register_processor(module)


def register() -> None:
    """Make AutoConfig, AutoModel and AutoProcessor know CIEA."""
    AutoConfig.register(CIEAConfig.model_type, CIEAConfig, exist_ok=True)
    AutoModel.register(CIEAConfig, Deferred("ciea_hf.modeling.modeling_ciea", "CIEAModel"), exist_ok=True)
    if PROCESSING in sys.modules:
        _register_processor(sys.modules[PROCESSING])
    else:
        sys.meta_path.insert(0, RegisterOnImport())


def _register_processor(module: ModuleType) -> None:
    processor = Deferred("ciea_hf.modeling.processing_ciea", "CIEAProcessor")
    module.AutoProcessor.register(CIEAConfig, processor, exist_ok=True)
