"""Convert a `.pt` checkpoint released by the authors of CIEA or MARVEL to a complete model folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ciea_hf.commands import common
from ciea_hf.commands.push import add_push_arguments, push_options, write_push_result

if TYPE_CHECKING:
    import argparse

HELP = "convert a released checkpoint"
EXAMPLES = """
  ciea convert model.best.pt --output marvel-ance-webqa    # CLIP ViT-B/32 and T5-ANCE, as in the paper
  ciea convert model.best.pt --vision-config VISION --text-config TEXT --output FOLDER
  ciea convert model.best.pt --push org/name --private     # publish on the Hugging Face Hub
"""
VISION, TEXT = "openai/clip-vit-base-patch32", "OpenMatch/t5-ance"  # the backbones of CIEA and MARVEL


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("checkpoint", metavar="CHECKPOINT", type=Path, help=".pt file")
    for option, default, backbone in (("vision", VISION, "vision tower"), ("text", TEXT, "language model")):
        parser.add_argument(
            f"--{option}-config",
            default=default,
            metavar="NAME",
            help=f"folder or Hub id of the {backbone} (default: {default})",
        )
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="folder of the model")
    parser.add_argument("--push", metavar="REPO_ID", help="Hub repository to publish the model in")
    add_push_arguments(parser)
    parser.add_argument("--image-processor", metavar="NAME", help="folder or Hub id (default: that of --vision-config)")
    parser.add_argument("--tokenizer", metavar="NAME", help="folder or Hub id (default: that of --text-config)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        type=_setting,
        metavar="KEY=VALUE",
        help="override an argument of CIEAConfig with a JSON value, such as extractor_num_heads=4; repeatable",
    )


def run(arguments: argparse.Namespace) -> int:
    """Convert, save and publish."""
    if arguments.output is None and arguments.push is None:
        raise ValueError("set --output FOLDER, --push REPO_ID or both")
    if arguments.output is not None:
        common.check_new_folder("--output", arguments.output)
    from ciea_hf.convert import convert_checkpoint, load_processor
    from ciea_hf.files import atomic_folder

    model = convert_checkpoint(
        arguments.checkpoint, arguments.vision_config, arguments.text_config, **dict(arguments.set)
    )
    model.processor = load_processor(
        model, arguments.image_processor or arguments.vision_config, arguments.tokenizer or arguments.text_config
    )
    weights = sum(parameter.numel() for parameter in model.parameters())
    kind = "CIEA" if model.config.use_extractor else "MARVEL (no extractor)"
    common.write(f"{kind}, {weights / 1e6:.1f} M parameters")
    if arguments.output is not None:
        with atomic_folder(arguments.output) as folder:
            model.save_pretrained(folder)
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
