"""The model, its processor and its configuration, which travel to the Hub. Names are imported on first use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .configuration_ciea import CIEAConfig
    from .images_ciea import load_image
    from .inputs_ciea import ModelInput, parse_input, parse_inputs
    from .layers_ciea import ComplementaryInformationExtractor, complement_weights
    from .modeling_ciea import CIEAModel
    from .output_ciea import CIEAOutput
    from .processing_ciea import CIEAProcessor

_FILES = {
    "configuration_ciea": ("CIEAConfig",),
    "images_ciea": ("load_image",),
    "inputs_ciea": ("ModelInput", "parse_input", "parse_inputs"),
    "layers_ciea": ("ComplementaryInformationExtractor", "complement_weights"),
    "modeling_ciea": ("CIEAModel",),
    "output_ciea": ("CIEAOutput",),
    "processing_ciea": ("CIEAProcessor",),
}
_FILE_OF = {name: file for file, names in _FILES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _FILE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_FILE_OF[name]}", __name__), name)


__all__ = [
    "CIEAConfig",
    "CIEAModel",
    "CIEAOutput",
    "CIEAProcessor",
    "ComplementaryInformationExtractor",
    "ModelInput",
    "complement_weights",
    "load_image",
    "parse_input",
    "parse_inputs",
]
