"""What a search must not import, because it takes longer than the search."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from ciea_hf.retrieval import encode_corpus
from tests.support.toy_retrieval import ToyEncoder, toy_dataset

if TYPE_CHECKING:
    from pathlib import Path

SCRIPT = """
import sys
import numpy as np
from ciea_hf.retrieval import load_corpus
corpus = load_corpus(sys.argv[1])
found = corpus.index().search(corpus.matrix()[:1], 2)
assert corpus.names(np.array([1, 0])) == corpus.ids[1::-1]
print([name for name in ("pandas", "datasets", "sentence_transformers", "sklearn") if name in sys.modules])
"""


def test_a_search_in_an_index_imports_no_data_libraries(tmp_path: Path) -> None:
    encode_corpus(ToyEncoder(), toy_dataset(), tmp_path / "index")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "index")], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert done.stdout.strip() == "[]"
