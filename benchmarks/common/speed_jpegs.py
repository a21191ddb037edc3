"""The section of the benchmark of speed that encodes a folder of JPEGs with the command line, end to end."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw

from benchmarks.common.files import say
from benchmarks.common.speed_sample import build_model
from benchmarks.common.speed_start import COMMAND_LINE, timed_process

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MEGAPIXELS = (1, 12)  # smallest and largest image
SHAPES = ((4, 3), (3, 2), (3, 4), (16, 9))
QUALITY = 90
SCENES = 2  # different ones, of which the photographs show parts
OCTAVES = (4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)  # cells along the longer side
FADING = 0.6  # amplitude of an octave relative to the one before: natural images have such spectra
NOISE = 4.0  # standard deviation of a pixel: a camera's noise, which makes files as large as photographs are


def measure_jpegs(
    size: str, images: int, rounds: int, environments: Mapping[str, Mapping[str, str]]
) -> Iterator[dict[str, Any]]:
    """Encode a folder of JPEGs with every system in turns; yield the values so far after each round.

    Args:
        size: Size of the model.
        images: Number of images.
        rounds: Number of encodings per system.
        environments: Environment variables by system, which choose the version of the package.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build_model(size).save_pretrained(folder / "model")
        pixels, megabytes = write_photographs(folder / "photos", images, MEGAPIXELS)
        write_photographs(folder / "one", 1, megapixels=(0.1, 0.1))
        found: dict[str, list[list[float]]] = {system: [] for system in environments}
        for _ in range(rounds):
            for system, environment in environments.items():
                start = _encode(folder / "model", folder / "one", folder / f"{system}.npy", environment)
                whole = _encode(folder / "model", folder / "photos", folder / f"{system}.npy", environment)
                found[system].append([*whole, *start])
            values = {system: _summary(runs, images) for system, runs in found.items()}
            say(f"jpegs: {values}")
            yield {
                "images": images,
                "megapixels": round(pixels / images / 1e6, 2),
                "megabytes": round(megabytes / images, 2),
                "systems": values,
                "difference": largest_difference([folder / f"{system}.npy" for system in environments]),
            }


def largest_difference(files: list[Path]) -> float:
    """Return the largest difference between the embeddings of the first file and those of the others."""
    first, *others = (np.load(file) for file in files)
    return max((float(np.abs(first - other).max()) for other in others), default=0.0)


def write_photographs(folder: Path, count: int, megapixels: tuple[float, float]) -> tuple[int, float]:
    """Write random JPEGs with the spectrum of photographs and edges, equal in every call.

    Args:
        folder: Folder to create.
        count: Number of images.
        megapixels: Smallest and largest image; sizes between are equally frequent on a logarithmic scale.

    Returns:
        Number of pixels and of megabytes of all images.
    """
    folder.mkdir()
    rng = np.random.default_rng(0)
    longest = round((megapixels[1] * 1e6 * 16 / 9) ** 0.5) + 1
    scenes = [_scene(longest, rng) for _ in range(min(SCENES, count))]
    pixels, size = 0, 0
    for number in range(count):
        area = 1e6 * np.exp(rng.uniform(*np.log(megapixels)))
        wide, high = SHAPES[rng.integers(len(SHAPES))]
        width, height = round((area * wide / high) ** 0.5), round((area * high / wide) ** 0.5)
        scene = scenes[number % len(scenes)]
        left, top = (int(rng.integers(longest - side + 1)) for side in (width, height))
        file = folder / f"{number:05}.jpg"
        scene.crop((left, top, left + width, top + height)).save(file, quality=QUALITY)
        pixels += width * height
        size += file.stat().st_size
    return pixels, size / 1e6


def _scene(side: int, rng: np.random.Generator) -> Image.Image:
    values = np.full((side, side, 3), 128, np.float32)
    amplitude = 45.0
    for cells in OCTAVES:
        if cells > side:
            break
        for channel in range(3):
            noise = rng.standard_normal((cells, cells), dtype=np.float32)
            grown = Image.fromarray(noise).resize((side, side), Image.Resampling.BICUBIC)
            values[..., channel] += amplitude * np.asarray(grown)
        amplitude *= FADING
    values += NOISE * rng.standard_normal(values.shape, dtype=np.float32)
    scene = Image.fromarray(values.clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(scene)
    for _ in range(40):  # objects with sharp edges
        left, top = rng.integers(side, size=2).tolist()
        width, height = rng.integers(side // 40 + 1, side // 5 + 2, size=2).tolist()
        draw.ellipse((left, top, left + width, top + height), fill=tuple(rng.integers(0, 256, 3).tolist()))
    return scene


def _encode(model: Path, photos: Path, output: Path, environment: Mapping[str, str]) -> tuple[float, float]:
    """Run `ciea encode`; return wall time and processor time."""
    command = [sys.executable, "-c", COMMAND_LINE, "encode", str(model), str(photos), "--output", str(output)]
    return timed_process(command, environment)


def _summary(runs: list[list[float]], images: int) -> dict[str, float]:
    """Summarise runs of (wall time, processor time, and both for one small image): medians."""
    wall, processor, start, at_start = (sorted(values)[len(values) // 2] for values in zip(*runs, strict=True))
    return {
        "seconds": round(wall, 2),
        "processor_seconds": round(processor, 2),
        "start_seconds": round(start, 2),
        "processor_ms_per_image": round(1000 * (processor - at_start) / images, 2),
        "per_second": round(images / wall, 2),
    }
