"""Components for LangChain, LlamaIndex and Haystack that embed a captioned image as one document.

Each module needs its framework, which the extra of the same name installs.
"""

from __future__ import annotations


def missing_framework(error: ModuleNotFoundError, extra: str) -> ImportError:
    """Return the error for a framework that is not installed, with the command that installs it.

    Args:
        error: What importing raised.
        extra: Extra of this package that installs the framework.
    """
    return ImportError(f'`{error.name}` is required but not installed: pip install "ciea-hf[{extra}]"')
