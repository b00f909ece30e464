"""Convolutional towers of OSNet's kind: multi-scale blocks whose streams are weighed by a channel gate.

Written once for images (``dims=2``, 3x3 kernels) and for token sequences (``dims=1``, kernels of 3). A tower does
not own its gates: whoever owns two towers decides which gates they share. Source: OSNet (ICCV 2019), x1.0 by default.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

GATE_REDUCTION = 16
SCALES = (1, 2, 3, 4)  # lite convolutions per stream: receptive fields 3, 5, 7, 9
BLOCKS = 6
TRANSITION_AFTER = (1, 3)  # blocks followed by 1x1 conv and a halving average pool

_CONV: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d}
_NORM: dict[int, Any] = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d}
_POOL: dict[int, Any] = {1: nn.AvgPool1d, 2: nn.AvgPool2d}


def conv_norm(dims: int, cin: int, cout: int, kernel: int = 1, stride: int = 1, *, relu: bool = True) -> nn.Sequential:
    """Convolution without bias, batch norm, and ReLU unless it is the last layer before an addition."""
    layers = [_CONV[dims](cin, cout, kernel, stride, kernel // 2, bias=False), _NORM[dims](cout)]
    return nn.Sequential(*layers, nn.ReLU(inplace=True)) if relu else nn.Sequential(*layers)


def lite_conv(dims: int, cin: int, cout: int) -> nn.Sequential:
    """Point-wise, then depth-wise convolution of width 3; one norm and one ReLU, after the depth-wise part."""
    return nn.Sequential(
        _CONV[dims](cin, cout, 1, bias=False),
        _CONV[dims](cout, cout, 3, padding=1, groups=cout, bias=False),
        _NORM[dims](cout),
        nn.ReLU(inplace=True),
    )


class ChannelGate(nn.Module):
    """Two-layer perceptron with sigmoid: pooled channels (..., c) -> scalings strictly inside (0, 1).

    No batch statistics, so it may be shared by modalities (AXM-Net eq. 1) as well as by scales.
    """

    def __init__(self, channels: int, reduction: int = GATE_REDUCTION) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.reduce = nn.Linear(channels, hidden)
        self.expand = nn.Linear(hidden, channels)

    def forward(self, pooled: Tensor) -> Tensor:
        return torch.sigmoid(self.expand(torch.relu(self.reduce(pooled))))


class MultiScaleBlock(nn.Module):
    """One modality of an AXM block: reduce, four streams of growing receptive field, gated sum, expand, shortcut.

    ``forward`` gates by the input alone. ``streams`` and ``merge`` are its two halves, for a caller that wants to
    look at both modalities between them.
    """

    def __init__(self, dims: int, cin: int, cout: int) -> None:
        super().__init__()
        middle = cout // 4
        self.reduce = conv_norm(dims, cin, middle)
        self.scales = nn.ModuleList(
            nn.Sequential(*(lite_conv(dims, middle, middle) for _ in range(depth))) for depth in SCALES
        )
        self.expand = conv_norm(dims, middle, cout, relu=False)
        self.shortcut = nn.Identity() if cin == cout else conv_norm(dims, cin, cout, relu=False)

    def streams(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """(B, cin, *S) -> four maps (B, c, *S) and their averages over space (B, 4, c)."""
        reduced = self.reduce(x)
        maps = [scale(reduced) for scale in self.scales]
        space = tuple(range(2, x.dim()))
        return maps, torch.stack([m.mean(dim=space) for m in maps], dim=1)

    def merge(self, x: Tensor, maps: Sequence[Tensor], scaling: Tensor | None) -> Tensor:
        """Sum of the maps, each times its scaling (B, 4, c) where one is given, expanded and added to x."""
        if scaling is None:
            total = maps[0]
            for other in maps[1:]:
                total = total + other
        else:
            scaling = scaling[(..., *[None] * (x.dim() - 2))]  # (B, 4, c, 1[, 1])
            total = maps[0] * scaling[:, 0]
            for index in range(1, len(maps)):
                total = torch.addcmul(total, maps[index], scaling[:, index])
        # In place: batch norm's backward does not need its output, and large fresh tensors are slow on a CPU.
        expanded: Tensor = self.expand(total)
        return expanded.add_(self.shortcut(x)).relu_()

    def forward(self, x: Tensor, gate: ChannelGate | None) -> Tensor:
        maps, pooled = self.streams(x)
        return self.merge(x, maps, None if gate is None else gate(pooled))


class Tower(nn.Module):
    """Stem, six multi-scale blocks with two halvings between them, and a final 1x1 convolution.

    dims=2: (B, 3, H, W) -> (B, C, H/16, W/16). dims=1: (B, C0, T) -> (B, C, T/4).
    """

    def __init__(self, dims: int, stem: nn.Module, widths: Sequence[int]) -> None:
        super().__init__()
        self.stem = stem
        sizes = block_sizes(widths)
        self.blocks = nn.ModuleList(MultiScaleBlock(dims, cin, cout) for cin, cout in sizes)
        self.transitions = nn.ModuleList(
            nn.Sequential(conv_norm(dims, cout, cout), _POOL[dims](2)) if index in TRANSITION_AFTER else nn.Identity()
            for index, (_, cout) in enumerate(sizes)
        )
        self.final = conv_norm(dims, widths[-1], widths[-1])

    def forward(self, x: Tensor, gates: Sequence[ChannelGate | None]) -> Tensor:
        x = self.stem(x)
        for block, transition, gate in zip(self.blocks, self.transitions, gates, strict=True):
            x = transition(block(x, gate))
        final: Tensor = self.final(x)
        return final


def block_sizes(widths: Sequence[int]) -> list[tuple[int, int]]:
    """(Cin, Cout) of the six blocks: two per stage, the first of which widens."""
    return [size for cin, cout in pairwise(widths) for size in ((cin, cout), (cout, cout))]


def image_stem(width: int) -> nn.Sequential:
    """7x7 convolution of stride 2, then 3x3 max pool of stride 2: (B, 3, H, W) -> (B, width, H/4, W/4)."""
    return nn.Sequential(*conv_norm(2, 3, width, kernel=7, stride=2), nn.MaxPool2d(3, 2, 1))


def initialise(module: nn.Module) -> None:
    """OSNet's start: convolutions and gates Kaiming-normal (fan out), norms 1 and 0, other linear layers N(0, 0.01)."""
    gates = {id(layer) for gate in module.modules() if isinstance(gate, ChannelGate) for layer in gate.children()}
    for layer in module.modules():
        if isinstance(layer, nn.Conv1d | nn.Conv2d) or id(layer) in gates:
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")  # type: ignore[arg-type]
        elif isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.01)
        else:
            continue
        if isinstance(layer.bias, Tensor):
            nn.init.zeros_(layer.bias)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file or of a PyTorch file, without DataParallel's "module." prefix.

    A PyTorch file is read with ``weights_only``: it cannot run code. Raises ValueError with a sentence.
    """
    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except FileNotFoundError:
        raise ValueError(f"There is no weights file at {path}.") from None
    except Exception as error:  # the readers raise a dozen types for a damaged file
        raise ValueError(f"{path} cannot be read as safetensors or PyTorch weights: {error}") from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise ValueError(f"{path} does not hold a dictionary of named tensors.")
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def osnet_modules() -> dict[str, str]:
    """Our module name -> public OSNet module name, for every module of the vision tower and the gates."""
    names = {"vision.stem.0": "conv1.conv", "vision.stem.1": "conv1.bn"}
    for index in range(BLOCKS):
        ours, stage = f"vision.blocks.{index}", f"conv{index // 2 + 2}"
        theirs = f"{stage}.{index % 2}"
        for part, name in (("reduce", "conv1"), ("expand", "conv3"), ("shortcut", "downsample")):
            names |= {f"{ours}.{part}.0": f"{theirs}.{name}.conv", f"{ours}.{part}.1": f"{theirs}.{name}.bn"}
        for scale, depth in enumerate(SCALES):
            for step in range(depth):
                # The first stream is a single convolution there, not a sequence of one.
                name = f"{theirs}.conv2{'abcd'[scale]}" + (f".{step}" if scale else "")
                for position, layer in enumerate(("conv1", "conv2", "bn")):
                    names[f"{ours}.scales.{scale}.{step}.{position}"] = f"{name}.{layer}"
        names |= {f"gates.{index}.reduce": f"{theirs}.gate.fc1", f"gates.{index}.expand": f"{theirs}.gate.fc2"}
        if index in TRANSITION_AFTER:
            for position, layer in enumerate(("conv", "bn")):
                names[f"vision.transitions.{index}.0.{position}"] = f"{stage}.2.0.{layer}"
    return names | {"vision.final.0": "conv5.conv", "vision.final.1": "conv5.bn"}


def copy_osnet(net: nn.Module, state: Mapping[str, Tensor], path: str | Path, leave: Collection[str] = ()) -> None:
    """Copy an OSNet under its public names into ``net``, but for the modules named in ``leave``.

    Raises ValueError with a sentence, and changes nothing, when ``state``, read from ``path``, is no OSNet of its size.
    """
    modules = osnet_modules()
    copies: list[tuple[Tensor, Tensor]] = []
    for name, ours in net.state_dict().items():
        module, leaf = name.rsplit(".", 1)
        if module not in modules or leaf == "num_batches_tracked" or module.rsplit(".", 1)[0] in leave:
            continue
        source = f"{modules[module]}.{leaf}"
        if source not in state:
            raise ValueError(f"{path} holds no OSNet of this kind: it lacks {source}.")
        # Gates are linear layers here and 1x1 convolutions there: the same numbers in the same order.
        theirs = state[source].flatten(1) if ours.dim() == 2 else state[source]
        if theirs.shape != ours.shape:
            shapes = f"{tuple(state[source].shape)}, but this net needs {tuple(ours.shape)}"
            raise ValueError(f"{path}: {source} has shape {shapes}. Is it an OSNet of another width?")
        copies.append((ours, theirs))
    with torch.no_grad():
        for ours, theirs in copies:
            ours.copy_(theirs)
