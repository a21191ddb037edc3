"""A pushed model loads from the Hub: with the package, without it, at a revision, and offline afterwards."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from ciea_hf import CIEAModel
from ciea_hf.hub import HubError, pull, push
from ciea_hf.model_cards import write_model_card
from tests.support.helpers import tiny_model, toy_image
from tests.support.hub_client import python_without_the_package
from tests.support.hub_state import Fault

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.hub_server import MemoryHub

LOAD = """
    import numpy as np
    from PIL import Image
    from safetensors.numpy import save_file
    from sentence_transformers import SentenceTransformer
    from transformers import AutoConfig, AutoModel, AutoProcessor

    hub = {"trust_remote_code": True, "revision": "REVISION"}
    inputs = ["a red cat", {"text": "the small house", "image": Image.open("house.png")}]
    assert AutoConfig.from_pretrained("org/ciea", **hub).model_type == "ciea"
    model = AutoModel.from_pretrained("org/ciea", **hub)
    assert type(model).__module__.startswith("transformers_modules"), type(model).__module__
    processor = AutoProcessor.from_pretrained("org/ciea", **hub)
    batch = processor(text=["a red cat"])
    sentences = SentenceTransformer("org/ciea", device="cpu", **hub)
    save_file({
        "model": model.encode(inputs),
        "forward": model(**batch).embeddings.detach().numpy(),
        "sentences": sentences.encode(inputs),
    }, "OUTPUT")
"""


def run(code: str, folder: Path, hub: MemoryHub | None = None) -> str:
    done = python_without_the_package(code, folder, hub)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def embed(model: CIEAModel) -> np.ndarray:
    return model.encode(["a red cat", {"text": "the small house", "image": toy_image(1)}])


def test_load_without_the_package_at_a_revision_and_offline_afterwards(hub: MemoryHub, tmp_path: Path) -> None:
    model = tiny_model()
    expected = embed(model)
    toy_image(1).save(tmp_path / "house.png")
    commit = str(push(model, "org/ciea").commit)
    push(tiny_model(seed=7), "org/ciea")  # the revision keeps the first model
    code = LOAD.replace("REVISION", commit)
    run(code.replace("OUTPUT", "online.safetensors"), tmp_path, hub)
    run(code.replace("OUTPUT", "offline.safetensors"), tmp_path)
    online, offline = (load_file(tmp_path / f"{name}.safetensors") for name in ("online", "offline"))
    assert np.allclose(online["model"], expected, atol=1e-5)
    np.testing.assert_allclose(online["forward"][0], expected[0], atol=1e-6)
    np.testing.assert_allclose(online["sentences"], expected, atol=1e-5)
    assert all(np.allclose(online[name], offline[name], atol=1e-5) for name in online)


def test_the_examples_of_the_card_run(hub: MemoryHub, tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path / "model")
    write_model_card(tmp_path / "model")
    push(tmp_path / "model", "org/ciea")
    card = hub.repositories["org/ciea"].files()["README.md"].decode()
    blocks = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert len(blocks) == 3
    for name in ("house", "dog"):
        toy_image(1).save(tmp_path / f"{name}.jpg")
    out = run("\n".join(blocks), tmp_path, hub)
    assert out.count("tensor(") == 2
    assert re.search(r"^-?[01]\.\d{4}  (house|dog)$", out, re.MULTILINE)


def test_a_dry_run_loads_without_the_package(tmp_path: Path) -> None:
    model = tiny_model()
    toy_image(1).save(tmp_path / "house.png")
    push(model, "org/ciea", dry_run=tmp_path / "org" / "ciea")  # in the folder org/ciea, as the code names it
    run(
        """
        import numpy as np
        from PIL import Image
        from transformers import AutoModel
        model = AutoModel.from_pretrained("org/ciea", trust_remote_code=True)
        np.save("dry.npy", model.encode(["a red cat", {"text": "the small house", "image": "house.png"}]))
        """,
        tmp_path,
    )
    assert np.allclose(np.load(tmp_path / "dry.npy"), embed(model), atol=1e-5)


def test_pull_at_a_revision(hub: MemoryHub, tmp_path: Path) -> None:
    first = push(tiny_model(), "org/ciea")
    push(tiny_model(seed=7), "org/ciea", revision="v2")
    main, old, new = pull("org/ciea"), pull("org/ciea", revision=first.commit), pull("org/ciea", revision="v2")
    assert main == old != new
    assert main.name == first.commit
    weights = [load_file(folder / "model.safetensors")["projector.weight"] for folder in (old, new)]
    assert np.array_equal(weights[0], tiny_model().projector.weight.detach().numpy())
    assert np.array_equal(weights[1], tiny_model(seed=7).projector.weight.detach().numpy())


def test_pull_into_a_folder(hub: MemoryHub, tmp_path: Path) -> None:
    model = tiny_model()
    push(model, "org/ciea", max_shard_size="100KB")
    folder = pull("org/ciea", folder=tmp_path / "here")
    assert folder == tmp_path / "here"
    loaded = CIEAModel.from_pretrained(folder)
    assert np.allclose(embed(loaded), embed(model), atol=1e-5)
    hub.requests.clear()
    pull("org/ciea", folder=tmp_path / "here")
    assert hub.received("^GET .*/resolve/") == []


def test_pull_into_a_folder_removes_stale_files(hub: MemoryHub, tmp_path: Path) -> None:
    push(tiny_model(), "org/ciea")
    folder = pull("org/ciea", folder=tmp_path / "here")
    (folder / "notes.txt").write_text("mine")
    push(tiny_model(seed=7), "org/ciea", max_shard_size="100KB")
    pull("org/ciea", folder=folder)
    assert not (folder / "model.safetensors").exists()
    assert np.allclose(embed(CIEAModel.from_pretrained(folder)), embed(tiny_model(seed=7)), atol=1e-5)
    assert (folder / "notes.txt").read_text() == "mine"


def test_a_folder_with_another_repository_is_rejected(hub: MemoryHub, tmp_path: Path) -> None:
    push(tiny_model(), "org/one")
    push(tiny_model(seed=7), "org/two")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / ".gitkeep").write_text("")
    folder = pull("org/one", folder=tmp_path / "here")
    assert pull("org/one", folder=folder, local_files_only=True) == folder
    with pytest.raises(HubError, match="org/one was not downloaded: not found in the cache"):
        pull("org/one", folder=folder, local_files_only=True, revision="v2")
    for offline in (False, True):
        with pytest.raises(FileExistsError, match="is not a pull of org/two: choose a new or empty folder"):
            pull("org/two", folder=folder, local_files_only=offline)
    with pytest.raises(HubError, match="org/two was not downloaded"):
        pull("org/two", folder=tmp_path / "new", local_files_only=True)
    hub.faults.append(Fault("/api/models", 503, times=10_000))
    assert pull("org/one", folder=folder) == folder
    (folder / ".cache" / "huggingface" / "ciea-pull.json").write_text("[")
    with pytest.raises(FileExistsError, match="is not a pull of org/one"):
        pull("org/one", folder=folder)


def test_the_package_needs_no_trust_remote_code(hub: MemoryHub) -> None:
    from transformers import AutoModel, AutoProcessor

    push(tiny_model(), "org/ciea")
    model = AutoModel.from_pretrained("org/ciea")
    assert type(model) is CIEAModel
    assert AutoProcessor.from_pretrained("org/ciea").image_token_id == model.config.image_token_id
    assert np.allclose(embed(model), embed(tiny_model()), atol=1e-5)


def test_remote_code_without_the_package_pushes_a_complete_repository(hub: MemoryHub, tmp_path: Path) -> None:
    push(tiny_model(), "org/ciea")
    run(
        """
        from transformers import AutoModel
        model = AutoModel.from_pretrained("org/ciea", trust_remote_code=True)
        print(model.push_to_hub("org/copy"))
        """,
        tmp_path,
        hub,
    )
    ours, theirs = (set(hub.repositories[name].files()) for name in ("org/ciea", "org/copy"))
    assert ours == theirs
    assert len(hub.repositories["org/copy"].commits) == 2
    folder = pull("org/copy")
    assert np.allclose(embed(CIEAModel.from_pretrained(folder)), embed(tiny_model()), atol=1e-5)


def test_half_precision_and_gpt2_load_unchanged(hub: MemoryHub) -> None:
    model: Any = tiny_model("gpt2", use_extractor=False)
    model = model.to(torch.bfloat16)
    push(model, "org/marvel")
    loaded = CIEAModel.from_pretrained(pull("org/marvel"))
    assert loaded.dtype is torch.bfloat16
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name]), name
