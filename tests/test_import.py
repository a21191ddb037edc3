"""What `import ciea_hf` does, and what it leaves until it is needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.helpers import tiny_model


def run(code: str, *arguments: str) -> str:
    """Run code in a fresh interpreter, away from the checkout."""
    completed = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, cwd=Path(sys.prefix)
    )
    assert completed.returncode == 0, completed.stderr
    return completed.stdout.strip()


def test_import_leaves_the_model_and_its_machinery_alone() -> None:
    heavy = ("transformers.modeling_utils", "transformers.processing_utils", "datasets", "sentence_transformers")
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


def test_order_of_imports_does_not_matter(tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path)
    code = (
        "import sys\nfrom transformers import AutoProcessor\nimport ciea_hf\n"
        "print(type(AutoProcessor.from_pretrained(sys.argv[1])).__module__)"
    )
    assert run(code, str(tmp_path)) == "ciea_hf.modeling.processing_ciea"


def test_names_are_found_and_strangers_are_not() -> None:
    code = (
        "import ciea_hf, ciea_hf.modeling as m\n"
        "print(all(getattr(p, n) is not None for p in (ciea_hf, m) for n in p.__all__), hasattr(ciea_hf, 'stranger'))"
    )
    assert run(code) == "True False"
