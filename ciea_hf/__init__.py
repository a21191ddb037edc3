"""CIEA: dense retrieval over text and captioned images.

Importing this package registers CIEA with transformers' Auto classes, so that `AutoModel.from_pretrained` needs no
`trust_remote_code`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ciea_hf._registration import register
from ciea_hf._version import __version__

if TYPE_CHECKING:
    from ciea_hf.hub import pull, push
    from ciea_hf.modeling.configuration_ciea import CIEAConfig
    from ciea_hf.modeling.modeling_ciea import CIEAModel
    from ciea_hf.modeling.output_ciea import CIEAOutput
    from ciea_hf.modeling.processing_ciea import CIEAProcessor

# Imported on first use.
_LAZY = {
    "CIEAConfig": "ciea_hf.modeling.configuration_ciea",
    "CIEAModel": "ciea_hf.modeling.modeling_ciea",
    "CIEAOutput": "ciea_hf.modeling.output_ciea",
    "CIEAProcessor": "ciea_hf.modeling.processing_ciea",
    "pull": "ciea_hf.hub",
    "push": "ciea_hf.hub",
}

register()


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


__all__ = ["CIEAConfig", "CIEAModel", "CIEAOutput", "CIEAProcessor", "__version__", "pull", "push"]
