"""Run by `test_remote_code.py` in a process of its own: embed with the code that a saved model brings along.

Arguments: a folder of saved models; inputs as JSON; a folder to save the models to again, with their embeddings.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

# neither the package nor what it can do without
sys.modules.update(dict.fromkeys(("ciea_hf", "accelerate", "datasets", "peft", "sentence_transformers")))  # type: ignore[arg-type]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402
from transformers import AutoConfig, AutoModel, AutoProcessor  # noqa: E402


def embed(folder: Path, inputs: list[dict[str, Any]]) -> dict[str, Any]:
    """Load a model by the Auto classes and embed the inputs in every way."""
    config, model, processor = (
        auto.from_pretrained(folder, trust_remote_code=True) for auto in (AutoConfig, AutoModel, AutoProcessor)
    )
    for loaded in (config, model, processor):
        if not type(loaded).__module__.startswith("transformers_modules."):
            raise SystemExit(f"{type(loaded)} is not remote code")
    batch = processor(text=[value["text"] for value in inputs], images=[value["image"] for value in inputs])
    with torch.no_grad():
        output = model(**batch, image_only_from="extracted")
    return {
        "embeddings": output.embeddings.numpy(),
        "image_embeddings": output.image_embeddings.numpy(),
        "encoded": model.encode_document(inputs),
        "model": model,
    }


def main(models: Path, inputs: list[dict[str, Any]], again: Path) -> None:
    """Embed with every model, save it, load it again and embed once more."""
    try:
        importlib.import_module("ciea_hf")
    except ModuleNotFoundError:
        pass
    else:
        raise SystemExit("ciea_hf can be imported")
    for value in inputs:
        value["image"] = value["image"] and Image.open(value["image"])
    for folder in models.iterdir():
        first = embed(folder, inputs)
        first.pop("model").save_pretrained(again / folder.name)
        second = embed(again / folder.name, inputs)
        for name, array in first.items():
            np.testing.assert_array_equal(second[name], array)
        np.savez(again / f"{folder.name}.npz", **first)


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]), Path(sys.argv[3]))
