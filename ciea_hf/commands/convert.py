r"""Turn a checkpoint that the authors of CIEA or MARVEL have published (.pt) into a complete model folder.

ciea convert model.best.pt --output marvel-ance-webqa     # CLIP ViT-B/32 and T5-ANCE, as the authors have it
ciea convert model.best.pt --vision-config VISION --text-config TEXT --output FOLDER
ciea convert model.best.pt --push org/name --private      # straight to the Hugging Face Hub
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ciea_hf.commands import common
from ciea_hf.commands.push import add_push_arguments, push_options, write_push_result

if TYPE_CHECKING:
    import argparse

HELP = "convert an authors' checkpoint"
VISION, TEXT = "openai/clip-vit-base-patch32", "OpenMatch/t5-ance"  # what CIEA and MARVEL are made of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("checkpoint", metavar="CHECKPOINT", type=Path, help="the .pt file")
    tower = "folder or Hub id of the"
    parser.add_argument("--vision-config", default=VISION, metavar="NAME", help=f"{tower} vision tower ({VISION})")
    parser.add_argument("--text-config", default=TEXT, metavar="NAME", help=f"{tower} language model ({TEXT})")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="where the model is saved")
    parser.add_argument("--push", metavar="REPO_ID", help="publish the model on the Hub, as `ciea push` does")
    add_push_arguments(parser)
    parser.add_argument("--image-processor", metavar="NAME", help="folder or Hub id (default: that of --vision-config)")
    parser.add_argument("--tokenizer", metavar="NAME", help="folder or Hub id (default: that of --text-config)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        type=_setting,
        metavar="KEY=VALUE",
        help="override an argument of CIEAConfig, the value as JSON, such as extractor_num_heads=4",
    )


def run(arguments: argparse.Namespace) -> int:
    """Convert, save and publish."""
    if arguments.output is None and arguments.push is None:
        raise ValueError("say where the model goes: --output FOLDER, --push REPO_ID or both")
    from ciea_hf.convert import convert_checkpoint, load_processor

    model = convert_checkpoint(
        arguments.checkpoint, arguments.vision_config, arguments.text_config, **dict(arguments.set)
    )
    model.processor = load_processor(
        model, arguments.image_processor or arguments.vision_config, arguments.tokenizer or arguments.text_config
    )
    weights = sum(parameter.numel() for parameter in model.parameters())
    kind = "CIEA" if model.config.use_extractor else "MARVEL (no extractor)"
    common.write(f"{kind}, {weights / 1e6:.1f} M weights")
    if arguments.output is not None:
        model.save_pretrained(arguments.output)
        common.write(str(arguments.output))
    if arguments.push is not None:
        from ciea_hf.hub import push

        write_push_result(push(arguments.output or model, arguments.push, **push_options(arguments)))
    return 0


def _setting(text: str) -> tuple[str, Any]:
    name, mark, value = text.partition("=")
    if not mark or not name.isidentifier():
        import argparse

        raise argparse.ArgumentTypeError(f"must be KEY=VALUE; got {text!r}")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value
