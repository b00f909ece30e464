"""ResNet-50: its published size, its maps, an independent implementation, and weights from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from model.nets.resnet import ResNet


def small(**settings: Any) -> ResNet:
    torch.manual_seed(0)
    return ResNet(**{"width": 4, "depths": (1, 2, 1, 1), **settings})


def test_resnet_50_has_its_published_size() -> None:
    net = ResNet()
    assert sum(p.numel() for p in net.parameters()) == 25_557_032 - (2048 * 1000 + 1000)  # without the classifier
    assert net.channels == 2048
    assert net.stride == 32
    names = net.state_dict().keys()
    assert {"conv1.weight", "bn1.running_var", "layer1.0.downsample.1.bias", "layer4.2.conv3.weight"} <= names
    assert "layer1.1.downsample.0.weight" not in names


@pytest.mark.parametrize(("last_stride", "shape"), [(2, (128, 3, 1)), (1, (128, 6, 2))])
@torch.no_grad()
def test_the_last_stride_decides_the_size_of_the_map(last_stride: int, shape: tuple[int, int, int]) -> None:
    net = small(last_stride=last_stride).eval()
    images = torch.randn(2, 3, 96, 32)
    assert net(images).shape == (2, *shape)
    assert images.shape[2] // net.stride == shape[1]
    assert net.stem(images).shape == (2, 4, 24, 8)


@torch.no_grad()
def test_it_equals_the_layer_of_transformers_with_the_same_weights() -> None:
    from transformers import ResNetConfig, ResNetModel

    net = small().eval()
    for name, value in net.state_dict().items():
        if name.endswith(("running_mean", "bias")):
            value.normal_()
        elif name.endswith("running_var"):
            value.uniform_(0.5, 2)
    config = ResNetConfig(
        embedding_size=4, hidden_sizes=[16, 32, 64, 128], depths=[1, 2, 1, 1], layer_type="bottleneck"
    )
    other = ResNetModel(config).eval()
    # Both list their layers in the order they are applied in, but for the shortcut, which comes last in ours.
    theirs, ours = _layers(other, shortcut="shortcut"), _layers(net, shortcut="downsample")
    assert len(theirs) == len(ours)
    for there, here in zip(theirs, ours, strict=True):
        there.load_state_dict(here.state_dict())
    images = torch.randn(2, 3, 64, 48)
    torch.testing.assert_close(net(images), other(images).last_hidden_state, atol=1e-5, rtol=1e-4)


def _layers(net: nn.Module, shortcut: str) -> list[nn.Module]:
    """Convolutions and norms, the shortcuts after all others."""
    named = [(name, m) for name, m in net.named_modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)]
    return [m for name, m in named if shortcut not in name] + [m for name, m in named if shortcut in name]


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_come_from_a_file_with_its_classifier(tmp_path: Path, suffix: str) -> None:
    torch.manual_seed(1)
    state = {name: torch.randn_like(value.float()) for name, value in small().state_dict().items()}
    state = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    state |= {"fc.weight": torch.zeros(5, 128), "fc.bias": torch.zeros(5)}
    path = tmp_path / f"weights{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    net = small()
    net.load_weights(path)
    for name, value in net.state_dict().items():
        if name in state:
            assert torch.equal(value, state[name]), name


def test_unfit_files_are_refused_and_change_nothing(tmp_path: Path) -> None:
    net = small()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    torch.save(small(width=8).state_dict(), tmp_path / "wide.pth")
    with pytest.raises(ValueError, match=r"wide\.pth: conv1\.weight has shape \(8, 3, 7, 7\), but this net needs"):
        net.load_weights(tmp_path / "wide.pth")
    state = small().state_dict()
    del state["layer3.0.bn2.running_mean"]
    torch.save(state, tmp_path / "short.pth")
    with pytest.raises(ValueError, match=r"it lacks layer3\.0\.bn2\.running_mean"):
        net.load_weights(tmp_path / "short.pth")
    with pytest.raises(ValueError, match="There is no weights file"):
        net.load_weights(tmp_path / "none.pth")
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


@pytest.mark.parametrize("settings", [{"width": 0}, {"depths": (3, 4, 6)}, {"last_stride": 3}])
def test_impossible_sizes_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not"):
        small(**settings)
