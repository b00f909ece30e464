"""Training in several processes, one a GPU, that together make exactly the steps that one process would make.

Every process draws the same batch and works on its own rows of it. Features are gathered before the losses, which
compare all rows with all; batch norm uses the statistics of the whole batch. Accelerate joins the processes, and DDP
averages their gradients. In a single process every function here does nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from model.interface import Batch, Tokens

_PATIENCE = timedelta(hours=6)  # how long the others wait while the main process validates or reads captions


def join(device: torch.device) -> torch.device:
    """Join the other processes if a launcher started several, and return the device of this one."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return device
    from accelerate import PartialState

    own: torch.device = PartialState(cpu=device.type == "cpu", timeout=_PATIENCE).device
    return device if device.type == "cpu" else own


def leave() -> None:
    """Part from the other processes, at the end of the program."""
    if world() > 1:
        dist.destroy_process_group()


def world() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0. Process 0 alone writes files, validates and speaks."""
    return dist.get_rank() if world() > 1 else 0


@contextmanager
def main_first() -> Iterator[None]:
    """The main process runs the block while the others wait, and then they do: what it wrote is there for them."""
    if rank() > 0:
        dist.barrier()
    yield
    if rank() == 0 and world() > 1:
        dist.barrier()


def parallel(net: Any) -> Any:
    """The net as it is called in training: its gradients are averaged over all processes. Anew for every stage, as DDP
    looks only once which weights are trained."""
    if world() == 1:
        return net
    from accelerate import Accelerator, DistributedDataParallelKwargs

    # Losses come and go with the stage, so not every head has a gradient.
    options = DistributedDataParallelKwargs(find_unused_parameters=True)
    cpu = next(net.parameters()).device.type == "cpu"
    return Accelerator(cpu=cpu, mixed_precision="no", kwargs_handlers=[options]).prepare_model(net)


def own_rows(batch: Batch) -> Batch:
    """This process's part of a batch whose size the number of processes divides."""
    if world() == 1:
        return batch
    count = len(batch.labels) // world()
    rows = slice(rank() * count, (rank() + 1) * count)

    def own(tokens: Tokens | None) -> Tokens | None:
        if tokens is None:
            return None
        return Tokens(tokens.ids[rows], tokens.mask[rows], None if tokens.states is None else tokens.states[rows])

    return replace(
        batch,
        images=batch.images[rows],
        tokens=own(batch.tokens),
        labels=batch.labels[rows],
        attributes=None if batch.attributes is None else batch.attributes[rows],
        weak=own(batch.weak),
        modalities=None if batch.modalities is None else batch.modalities[rows],
    )


def all_rows(x: Tensor) -> Tensor:
    """(b, ...) of each process -> (b * world, ...), the rows of all in order. Gradients flow back to every process."""
    return x if world() == 1 else _AllRows.apply(x)  # type: ignore[no-untyped-call]


def synchronize_batch_norm(net: nn.Module, device: torch.device) -> nn.Module:
    """Let batch norm see the batches of all processes. The names of weights and statistics stay what they were."""
    if world() == 1:
        return net
    if device.type == "cuda":
        synchronized: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(net)  # type: ignore[no-untyped-call]
        return synchronized
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, _BatchNorm):
                wide = WholeBatchNorm(child.num_features, child.eps, child.momentum or 0.0)
                wide.load_state_dict(child.state_dict())
                setattr(parent, name, wide)
    return net


class WholeBatchNorm(_BatchNorm):
    """nn.SyncBatchNorm for CPUs: (B, C) or (B, C, *S), every process with as many rows as the others."""

    def _check_input_dim(self, input: Tensor) -> None:
        pass

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
        x = input.float()
        over = [d for d in range(x.dim()) if d != 1]
        count = x.numel() // x.shape[1] * world()
        mean = _sum_over_processes(x.mean(over)) / world()  # (C,)
        centered = x - _as_channels(mean, x)
        variance = _sum_over_processes(centered.square().mean(over)) / world()
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked += 1
        factor = self.weight * torch.rsqrt(variance + self.eps)
        return (centered * _as_channels(factor, x) + _as_channels(self.bias, x)).to(input.dtype)


def _as_channels(values: Tensor, x: Tensor) -> Tensor:
    """(C,) -> (1, C, 1, ...) as x has dimensions."""
    return values.reshape(1, -1, *[1] * (x.dim() - 2))


# Both follow one rule: the whole net, on all processes, minimises the sum of their losses. Each of them has the same
# loss, so every gradient is `world` times what it should be, and the mean that DDP takes puts that right.


class _AllRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(world())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _summed(gradient).chunk(world())[rank()]


class _SumOverProcesses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _summed(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _summed(gradient)


def _sum_over_processes(x: Tensor) -> Tensor:
    return _SumOverProcesses.apply(x)  # type: ignore[no-any-return, no-untyped-call]


def _summed(x: Tensor) -> Tensor:
    total = x.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total
