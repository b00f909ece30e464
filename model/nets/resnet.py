"""ResNet-50 without its classifier: a map of features for an image, under the tensor names of torchvision.

Those names are what files of ImageNet weights are published in (timm's and torchvision's alike), so such a file loads
as it is. Narrower or shallower nets serve trainings from nothing. Source: ResNet (CVPR 2016), the variant whose
bottleneck halves the map in its 3x3 convolution ("v1.5"). What becomes of the map is the business of each network.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from model.nets.backbones import read_weights

EXPANSION = 4  # channels of a block's output per channel of its 3x3 convolution
DEPTHS = (3, 4, 6, 3)  # blocks of the four layers of ResNet-50


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolution around a shortcut: (B, cin, H, W) -> (B, 4 * middle, H / stride, W / stride)."""

    def __init__(self, cin: int, middle: int, stride: int) -> None:
        super().__init__()
        cout = EXPANSION * middle
        self.conv1 = nn.Conv2d(cin, middle, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(middle)
        self.conv2 = nn.Conv2d(middle, middle, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(middle)
        self.conv3 = nn.Conv2d(middle, cout, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(cout)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or cin != cout:
            self.downsample = nn.Sequential(nn.Conv2d(cin, cout, 1, stride, bias=False), nn.BatchNorm2d(cout))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        # In place: batch norm's backward does not need its output.
        summed: Tensor = out.add_(shortcut)
        return summed.relu_()


class ResNet(nn.Module):
    """Stem and four layers: (B, 3, H, W) -> (B, channels, H / 32, W / 32); H / 16 with ``last_stride`` 1.

    width: channels of the stem, 64 in ResNet-50; the map has 32 times as many. depths: blocks of each layer.
    The layers are plain sequences of blocks, so a network may run them one by one and put something between.
    """

    def __init__(self, width: int = 64, depths: Sequence[int] = DEPTHS, last_stride: Literal[1, 2] = 2) -> None:
        super().__init__()
        if width < 1 or len(depths) != 4 or min(depths) < 1:
            raise ValueError(f"A ResNet needs a width and four depths of at least 1, not {width} and {depths!r}.")
        if last_stride not in (1, 2):
            raise ValueError(f"last_stride is 1 or 2, not {last_stride}.")
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = _layer(width, width, depths[0], 1)
        self.layer2 = _layer(width * 4, width * 2, depths[1], 2)
        self.layer3 = _layer(width * 8, width * 4, depths[2], 2)
        self.layer4 = _layer(width * 16, width * 8, depths[3], last_stride)
        self.channels = width * 32
        self.stride = 16 * last_stride
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def stem(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, width, H / 4, W / 4)."""
        out: Tensor = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return out

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer4(self.layer3(self.layer2(self.layer1(self.stem(x)))))
        return out

    def load_weights(self, path: str | Path) -> None:
        """Start from a file a person supplies: ImageNet weights of a ResNet of this size, .safetensors or .pth, or a
        checkpoint of a network of ours that has this one as its ``vision``.

        The classifier of the file ("fc.") and anything else this net does not have is left aside. Raises ValueError
        with a sentence when a tensor is missing or has another shape; the net is then unchanged.
        """
        state = read_weights(Path(path))
        if any(name.startswith("vision.") for name in state):
            state = {name.removeprefix("vision."): tensor for name, tensor in state.items()}
        own = {name: value for name, value in self.state_dict().items() if not name.endswith("num_batches_tracked")}
        for name, value in own.items():
            if name not in state:
                raise ValueError(f"{path} holds no ResNet of this kind: it lacks {name}.")
            if state[name].shape != value.shape:
                raise ValueError(
                    f"{path}: {name} has shape {tuple(state[name].shape)}, but this net needs {tuple(value.shape)}. "
                    f"Is it a ResNet of another width or depth?"
                )
        with torch.no_grad():
            for name, value in own.items():
                value.copy_(state[name])


def _layer(cin: int, middle: int, depth: int, stride: int) -> nn.Sequential:
    """``depth`` bottlenecks, of which the first changes the channels and the size of the map."""
    rest = (Bottleneck(EXPANSION * middle, middle, 1) for _ in range(depth - 1))
    return nn.Sequential(Bottleneck(cin, middle, stride), *rest)
