"""OSNet x1.0 written a second time, from its published layer table, to hold AXM-Net's vision tower against.

Module names are those of public OSNet checkpoints, so that it also stands in for a weights file. It shares no code
with model/, pools and gates by other operations, and is only used by tests.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConvLayer(nn.Module):
    def __init__(self, cin: int, cout: int, kernel: int = 1, stride: int = 1, padding: int = 0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(cin, cout, kernel, stride=stride, padding=padding, bias=False)
        self.bn = nn.BatchNorm2d(cout)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)).clamp(min=0)


class LinearConv(ConvLayer):
    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))


class LightConv(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 1, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv2(self.conv1(x))).clamp(min=0)


class Gate(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // 16, 1)
        self.fc2 = nn.Conv2d(channels // 16, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.fc1(F.adaptive_avg_pool2d(x, 1)).clamp(min=0)
        return x * (1 / (1 + torch.exp(-self.fc2(hidden))))


class OSBlock(nn.Module):
    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        c = cout // 4
        self.conv1 = ConvLayer(cin, c)
        self.conv2a = LightConv(c)
        self.conv2b = nn.Sequential(LightConv(c), LightConv(c))
        self.conv2c = nn.Sequential(LightConv(c), LightConv(c), LightConv(c))
        self.conv2d = nn.Sequential(LightConv(c), LightConv(c), LightConv(c), LightConv(c))
        self.gate = Gate(c)
        self.conv3 = LinearConv(c, cout)
        self.downsample = LinearConv(cin, cout) if cin != cout else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(x)
        a, b, c, d = self.conv2a(y), self.conv2b(y), self.conv2c(y), self.conv2d(y)
        residual = self.conv3(self.gate(a) + self.gate(b) + self.gate(c) + self.gate(d))
        return (residual + (x if self.downsample is None else self.downsample(x))).clamp(min=0)


class OSNet(nn.Module):
    """(B, 3, H, W) -> maps (B, 512, H/16, W/16) with ``maps``, features (B, 512) when called."""

    def __init__(self, widths: tuple[int, int, int, int] = (64, 256, 384, 512), classes: int = 10) -> None:
        super().__init__()
        w1, w2, w3, w4 = widths
        self.conv1 = ConvLayer(3, w1, kernel=7, stride=2, padding=3)
        self.conv2 = nn.Sequential(
            OSBlock(w1, w2), OSBlock(w2, w2), nn.Sequential(ConvLayer(w2, w2), nn.AvgPool2d(2, stride=2))
        )
        self.conv3 = nn.Sequential(
            OSBlock(w2, w3), OSBlock(w3, w3), nn.Sequential(ConvLayer(w3, w3), nn.AvgPool2d(2, stride=2))
        )
        self.conv4 = nn.Sequential(OSBlock(w3, w4), OSBlock(w4, w4))
        self.conv5 = ConvLayer(w4, w4)
        self.fc = nn.Sequential(OrderedDict([("0", nn.Linear(w4, 512)), ("1", nn.BatchNorm1d(512))]))
        self.classifier = nn.Linear(512, classes)

    def maps(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.conv1(x), 3, stride=2, padding=1)
        return self.conv5(self.conv4(self.conv3(self.conv2(x))))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.maps(x).mean(dim=(2, 3))).clamp(min=0)


def random_osnet(seed: int = 0, widths: tuple[int, int, int, int] = (64, 256, 384, 512)) -> OSNet:
    """In eval mode, with random norms and running statistics as well: untouched ones would hide a wrong name."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = OSNet(widths)
        for layer in net.modules():
            if isinstance(layer, nn.BatchNorm2d):
                nn.init.uniform_(layer.weight, 0.5, 1.5)
                nn.init.normal_(layer.bias, std=0.2)
                nn.init.normal_(layer.running_mean, std=0.1)
                nn.init.uniform_(layer.running_var, 0.2, 0.6)
    return net.eval()
