"""What `import ciea_hf` does, and what it leaves until it is needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.helpers import tiny_model


def run(code: str, *arguments: str) -> str:
    """Run code in a fresh interpreter, away from the checkout."""
    completed = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, cwd=Path(sys.prefix)
    )
    assert completed.returncode == 0, completed.stderr
    return completed.stdout.strip()


def test_import_leaves_the_model_and_its_machinery_alone() -> None:
    heavy = ("torch", "transformers", "datasets", "sentence_transformers")
    assert run(f"import sys, ciea_hf; print([m for m in {heavy!r} if m in sys.modules])") == "[]"


def test_auto_classes_load_without_trust(tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path)
    code = (
        "import sys, ciea_hf\n"
        "from transformers import AutoConfig, AutoModel, AutoProcessor\n"
        "kinds = [auto.from_pretrained(sys.argv[1]) for auto in (AutoConfig, AutoModel, AutoProcessor)]\n"
        "print(*(type(kind).__module__ for kind in kinds), type(AutoModel.from_config(kinds[0])).__module__)"
    )
    modeling = "ciea_hf.modeling."
    expected = [modeling + name for name in ("configuration_ciea", "modeling_ciea", "processing_ciea", "modeling_ciea")]
    assert run(code, str(tmp_path)).split() == expected


@pytest.mark.parametrize(
    "first",
    [
        "from transformers import AutoProcessor; import ciea_hf",
        "from transformers import AutoModel; import ciea_hf",
        "import ciea_hf; from transformers import AutoModel",
        "from ciea_hf import CIEAConfig",
        "import ciea_hf.modeling.configuration_ciea",
        "from ciea_hf.modeling import CIEAModel",
    ],
)
def test_order_of_imports_does_not_matter(first: str) -> None:
    code = (
        f"{first}\nfrom transformers import AutoConfig, AutoModel, AutoProcessor\n"
        "from transformers.models.auto.modeling_auto import MODEL_MAPPING\n"
        "from transformers.models.auto.processing_auto import PROCESSOR_MAPPING\n"
        "kind = type(AutoConfig.for_model('ciea'))\n"
        "print(kind.__module__, MODEL_MAPPING[kind].__name__, PROCESSOR_MAPPING[kind].__name__)"
    )
    assert run(code) == "ciea_hf.modeling.configuration_ciea CIEAModel CIEAProcessor"


def test_names_are_found_and_strangers_are_not() -> None:
    code = (
        "import ciea_hf, ciea_hf.modeling as m\n"
        "print(all(getattr(p, n) is not None for p in (ciea_hf, m) for n in p.__all__), hasattr(ciea_hf, 'stranger'))"
    )
    assert run(code) == "True False"
