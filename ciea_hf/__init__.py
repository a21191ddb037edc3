"""CIEA: dense retrieval over text and captioned images.

Importing this package registers CIEA with transformers' Auto classes, so that `AutoModel.from_pretrained` needs no
`trust_remote_code`.
"""

from __future__ import annotations

from transformers import AutoConfig, AutoModel, AutoProcessor

from ciea_hf._version import __version__
from ciea_hf.modeling import CIEAConfig, CIEAModel, CIEAOutput, CIEAProcessor

AutoConfig.register(CIEAConfig.model_type, CIEAConfig, exist_ok=True)
AutoModel.register(CIEAConfig, CIEAModel, exist_ok=True)
AutoProcessor.register(CIEAConfig, CIEAProcessor, exist_ok=True)
# a saved model takes its code along
CIEAConfig.register_for_auto_class()
CIEAModel.register_for_auto_class("AutoModel")
CIEAProcessor.register_for_auto_class("AutoProcessor")

__all__ = ["CIEAConfig", "CIEAModel", "CIEAOutput", "CIEAProcessor", "__version__"]
