"""The model, its processor and its configuration: what travels to the Hub."""

from __future__ import annotations

from .configuration_ciea import CIEAConfig
from .inputs_ciea import Document, load_image, parse_document, parse_documents
from .layers_ciea import ComplementaryInformationExtractor, complement_weights
from .modeling_ciea import CIEAModel, CIEAOutput
from .processing_ciea import CIEAProcessor

__all__ = [
    "CIEAConfig",
    "CIEAModel",
    "CIEAOutput",
    "CIEAProcessor",
    "ComplementaryInformationExtractor",
    "Document",
    "complement_weights",
    "load_image",
    "parse_document",
    "parse_documents",
]
