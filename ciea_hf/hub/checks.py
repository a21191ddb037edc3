"""Checks that a folder is a complete CIEA model that loads without pickles and without code or files from elsewhere."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from ciea_hf.loading import refuse_random_weights, without_report
from ciea_hf.model_files import kernels_from_hub
from ciea_hf.modeling.errors_ciea import describe
from ciea_hf.modeling.loaded_weights_ciea import weights_not_finite
from ciea_hf.modeling.validation_ciea import check_image_patches, check_image_size, is_plain_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# Suffixes of files that loading unpickles or may unpickle. Unpickling can run arbitrary code.
PICKLE_SUFFIXES = frozenset(
    (".bin", ".ckpt", ".dill", ".joblib", ".npy", ".npz", ".pickle", ".pkl", ".pt", ".pt2", ".pth", ".t7", ".tar")
)
CODE_REFERENCE = re.compile(r"[A-Za-z_]\w*\.[A-Za-z_]\w*")  # module.Class in the same folder
RELATIVE_IMPORT = re.compile(r"^\s*from\s+\.(\w+)\s+import\s", re.MULTILINE)
AUTO_CLASSES = {"config.json": ("AutoConfig", "AutoModel"), "processor_config.json": ("AutoProcessor",)}
SENTENCE_TRANSFORMERS_FILES = ("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json")
VOCABULARIES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)
OBJECTS = ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json")
WEIGHTS, WEIGHTS_INDEX = "model.safetensors", "model.safetensors.index.json"


def check_folder(folder: Path) -> None:
    """Check that a folder is a complete CIEA model that loads safely.

    Loading is safe if it unpickles nothing and reads no file outside the folder.

    Args:
        folder: Folder written by `save_pretrained`.

    Raises:
        FileNotFoundError: If the folder does not exist.
        ValueError: If a file is missing, damaged or unsafe; the message lists every problem.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"folder not found: {str(folder)!r}")
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
    problems = [*pickle_problems(names), *_disguised_pickles(folder, names)]
    contents: dict[str, Any] = {}
    for name in names:
        if name.endswith(".json") and "/" not in name:
            try:
                contents[name] = json.loads((folder / name).read_text(encoding="utf-8"))
            except ValueError as error:
                problems.append(f"{name} cannot be read: {error}")
    for check in (_config_problems, _code_problems, _weight_problems, _processor_problems, _module_problems):
        problems += check(folder, contents)
    problems = problems or list(_model_problems(folder))
    if problems:
        raise ValueError(f"{folder}: not a complete, safe CIEA model: {'; '.join(problems)}")


def pickle_problems(names: Iterable[str]) -> list[str]:
    """List a problem for each file whose suffix is that of a pickle."""
    pickles = [name for name in names if PurePosixPath(name).suffix.lower() in PICKLE_SUFFIXES]
    return [f"{name} is or may be a pickle, which can run code when it is loaded" for name in pickles]


def _disguised_pickles(folder: Path, names: Iterable[str]) -> Iterator[str]:
    """Find pickles under another suffix; `_shard_problems` opens the safetensors files."""
    for name in names:
        suffix = PurePosixPath(name).suffix.lower()
        if suffix not in PICKLE_SUFFIXES and suffix != ".safetensors" and _is_pickle(folder / name):
            yield f"{name} is a pickle under another suffix, which can run code when it is loaded"


def _is_pickle(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(2)
    if head[:1] == b"\x80" and head[1:] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return True
    if head == b"PK" and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return any(member.endswith(".pkl") for member in archive.namelist())
    return False


def _config_problems(folder: Path, contents: dict[str, Any]) -> Iterator[str]:  # noqa: ARG001 (all checks have the same signature)
    config = contents.get("config.json")
    if config is None:
        yield "config.json is missing"
    elif not isinstance(config, dict) or config.get("model_type") != "ciea":
        found = config.get("model_type") if isinstance(config, dict) else type(config).__name__
        yield f"config.json is not a CIEA configuration: `model_type` must be 'ciea'; got {found!r}"
    for kernel in kernels_from_hub(config):
        yield f"config.json would fetch code from the Hub: `attn_implementation` is {kernel!r}"


def _code_problems(folder: Path, contents: dict[str, Any]) -> Iterator[str]:
    """Remote code must be complete and in the folder itself: no paths and no other repository."""
    for name, content in contents.items():
        for reference in _code_references(content):
            if not isinstance(reference, str) or not CODE_REFERENCE.fullmatch(reference):
                yield f"{name} refers to code outside the folder: {reference!r}"
            elif not (folder / f"{reference.split('.')[0]}.py").is_file():
                yield f"{reference.split('.')[0]}.py is missing; {name} refers to it"
    for name, classes in AUTO_CLASSES.items():
        auto_map = contents[name].get("auto_map") if isinstance(contents.get(name), dict) else {}
        missing = [auto for auto in classes if auto not in (auto_map or {})]
        if name in contents and missing:
            yield f"{name}: `auto_map` has no entry for {', '.join(missing)}; `save_pretrained` writes it"
    for module in sorted(folder.glob("*.py")):
        for other in RELATIVE_IMPORT.findall(module.read_text(encoding="utf-8")):
            if not (folder / f"{other}.py").is_file():
                yield f"{other}.py is missing; {module.name} imports it"


def _code_references(content: Any) -> Iterator[Any]:
    """Yield every value of every `auto_map`, at any depth."""
    if isinstance(content, list):
        for item in content:
            yield from _code_references(item)
    if not isinstance(content, dict):
        return
    for key, value in content.items():
        if key != "auto_map":
            yield from _code_references(value)
            continue
        for reference in value.values() if isinstance(value, dict) else [value]:
            # The entry of a tokenizer may be a pair (slow, fast), and either may be None.
            candidates = reference if isinstance(reference, list) else [reference]
            yield from (candidate for candidate in candidates if candidate is not None)


def _weight_problems(folder: Path, contents: dict[str, Any]) -> Iterator[str]:
    index = contents.get(WEIGHTS_INDEX)
    if (folder / WEIGHTS).is_file():
        yield from _shard_problems(folder / WEIGHTS, ())
        return
    if index is None:
        yield f"weights are missing: neither {WEIGHTS} nor {WEIGHTS_INDEX} exists"
        return
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        yield f"{WEIGHTS_INDEX} has no weight_map"
        return
    for shard in sorted({str(value) for value in weight_map.values()}):
        if not is_plain_name(shard) or not shard.endswith(".safetensors"):
            yield f"{WEIGHTS_INDEX} refers to a file that is outside the folder or not safetensors: {shard!r}"
        elif not (folder / shard).is_file():
            yield f"{shard} is missing; {WEIGHTS_INDEX} refers to it"
        else:
            yield from _shard_problems(folder / shard, [name for name, file in weight_map.items() if file == shard])


def _shard_problems(path: Path, expected: Iterable[str]) -> Iterator[str]:
    try:
        with safe_open(path, framework="numpy") as tensors:  # opening checks the header against the file size
            absent = sorted(set(expected) - set(tensors.keys()))
    except (SafetensorError, OSError) as error:
        yield f"{path.name} is damaged: {error}"
        return
    if absent:
        yield f"{path.name} lacks {', '.join(absent[:3])}{' ...' if len(absent) > 3 else ''}"


def _model_problems(folder: Path) -> Iterator[str]:
    """Load the model, which is safe by now: the weights must be finite and those that the configuration asks for."""
    from ciea_hf.modeling.modeling_ciea import CIEAModel

    try:
        with without_report():
            model = CIEAModel.from_pretrained(folder, ignore_mismatched_sizes=True)
        refuse_random_weights(str(folder), model)
        _ = model.processor
    except Exception as error:  # transformers raises errors of any class for damaged files
        yield f"the model cannot be loaded: {' '.join(describe(error).split())[:400]}"
        return
    if wrong := weights_not_finite(model.state_dict().items()):
        yield f"weights contain NaN or infinity: {', '.join(wrong[:3])}"


def _processor_problems(folder: Path, contents: dict[str, Any]) -> Iterator[str]:
    for name in ("processor_config.json", "tokenizer_config.json"):
        if name not in contents:
            yield f"{name} is missing"
    if not any((folder / name).is_file() for name in VOCABULARIES):
        yield f"the vocabulary of the tokenizer is missing: one of {', '.join(VOCABULARIES)} is required"
    for name, content in contents.items():
        if name in OBJECTS and not isinstance(content, dict):
            yield f"{name} must hold a JSON object"
            return
    processor = contents.get("processor_config.json") or {}
    settings = processor.get("image_processor") or contents.get("preprocessor_config.json") or {}
    try:
        check_image_size(settings)
        check_image_patches(processor.get("image_seq_length", 1))
    except ValueError as error:
        yield f"unsafe processor: {error}"


def _module_problems(folder: Path, contents: dict[str, Any]) -> Iterator[str]:  # noqa: ARG001
    """`SentenceTransformer(folder)` may load only modules of sentence-transformers, from this folder."""
    for name in SENTENCE_TRANSFORMERS_FILES:
        if name not in contents:
            yield f"{name} is missing"
    modules = contents.get("modules.json", [])
    for module in modules if isinstance(modules, list) else [modules]:
        kind = module.get("type") if isinstance(module, dict) else None
        if not isinstance(kind, str) or not re.fullmatch(r"sentence_transformers(\.\w+)+", kind):
            yield f"modules.json refers to a module outside sentence-transformers: {kind!r}"
        path = module.get("path", "") if isinstance(module, dict) else ""
        if not isinstance(path, str) or (path and not is_plain_name(path)):
            yield f"modules.json refers to a path outside the folder: {path!r}"
