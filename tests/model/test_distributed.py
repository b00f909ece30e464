"""Two processes on one batch make the steps of one process: same losses, same weights, and the same after a resume."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from model import distributed
from model.checkpoint import describe
from model.distributed import WholeBatchNorm
from model.recipes import Recipe, axm_net_tiny, override, tiny
from model.recipes_ssan import ssan_synth
from model.train import BEST, STATE, train

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys
from model import distributed
from model.train import TrainingError, train
from tests.model.test_distributed import in_double_precision, short
data, out = sys.argv[1:]
options = {"progress": False, "threads": 1, "device": "cpu"}
with in_double_precision():
    train(short(), data, out + "/whole", **options)
    train(short(), data, out + "/resumed", stop_after_steps=3, **options)
    train(short(), data, out + "/moved", stop_after_steps=3, **options)
    train(short(), data, out + "/resumed", resume=True, **options)
try:
    train(short(batch=15), data, out + "/odd", **options)
except TrainingError as error:
    if distributed.rank() == 1:
        open(out + "/refused", "w").write(str(error))
distributed.leave()
"""


def short(batch: int = 16) -> Recipe:
    """One epoch of each stage, 2 or 3 steps, by stochastic descent: AdamW divides by the size of a gradient, so that
    where there is none it makes a step of the rounding."""
    recipe = override(axm_net_tiny(), average=0.9)
    first, last = (replace(stage, optimizer="sgd", lr=1e-2, epochs=1) for stage in recipe.stages)
    first = replace(first, batch=batch)
    return replace(recipe, stages=(first, replace(first, number=1), last))


@contextmanager
def in_double_precision() -> Iterator[None]:
    """An untrained net multiplies rounding a hundredfold a step; only in float64 can it not be taken for a mistake."""
    single = torch.Tensor.float
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.Tensor.float = single  # type: ignore[method-assign]
        torch.set_default_dtype(torch.float32)


def launch(*arguments: object) -> None:
    """`accelerate launch` with two processes on the CPU, that meet on a free port of loopback."""
    command = ["accelerate.commands.launch", "--multi_gpu", "--num_processes=2", "--num_machines=1"]
    command += ["--mixed_precision=no", "--dynamo_backend=no", "--main_process_port=0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", *command, *map(str, arguments)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def records(out: Path, kind: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


def state(out: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(out / STATE, weights_only=True)
    return loaded


@pytest.mark.slow
def test_accelerate_runs_the_command_line_in_two_processes(toy_dataset: Path, tmp_path: Path) -> None:
    options = ["--root", toy_dataset, "--out", tmp_path / "two", "--device", "cpu", "--threads", 1]
    launch("-m", "service.cli", "train", "axm_net_tiny", *options, "--set", "stages.0.epochs=1")
    recipe = override(axm_net_tiny(), **{"stages.0.epochs": 1})
    train(recipe, toy_dataset, tmp_path / "one", progress=False, threads=1, device="cpu")
    one, two = records(tmp_path / "one", "step"), records(tmp_path / "two", "step")
    assert two[0]["loss"] == pytest.approx(one[0]["loss"], rel=1e-4)
    for step, other in zip(one, two, strict=True):
        assert {**other, "loss": None} == {**step, "loss": None}
        assert other["loss"].keys() == step["loss"].keys()
    assert len(records(tmp_path / "two", "validation")) == 2
    assert describe(tmp_path / "two" / BEST)["net_config"] == describe(tmp_path / "one" / BEST)["net_config"]


@pytest.mark.slow
def test_two_processes_agree_with_one_and_resume_and_refuse(toy_dataset: Path, tmp_path: Path) -> None:
    """Every stage and every loss; stopped within stage 1 and resumed, by two or by one; a batch none can share."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    launch(program, toy_dataset, tmp_path)
    options: dict[str, Any] = {"progress": False, "threads": 1, "device": "cpu"}
    with in_double_precision():
        train(short(), toy_dataset, tmp_path / "one", **options)
        train(short(), toy_dataset, tmp_path / "moved", resume=True, **options)

    steps = records(tmp_path / "one", "step")
    assert [step["stage"] for step in steps] == [0, 0, 1, 1, 2, 2, 2]
    expected = state(tmp_path / "one")
    for out in (tmp_path / "whole", tmp_path / "moved"):
        for step, other in zip(steps, records(out, "step"), strict=True):
            assert other["loss"] == pytest.approx(step["loss"], abs=1e-6), step["global_step"]
        found = state(out)
        assert found["position"] | {"best": 0} == expected["position"] | {"best": 0}
        for part in ("net", "average"):
            assert found[part].keys() == expected[part].keys()
            for name, tensor in expected[part].items():
                torch.testing.assert_close(found[part][name], tensor, atol=1e-5, rtol=1e-5, msg=f"{part} {name}")

    whole, resumed = state(tmp_path / "whole")["net"], state(tmp_path / "resumed")["net"]
    assert records(tmp_path / "resumed", "step") == records(tmp_path / "whole", "step")
    assert [name for name, tensor in whole.items() if not torch.equal(tensor, resumed[name])] == []
    assert "batch of 15 in stage 0 does not divide among 2 processes" in (tmp_path / "refused").read_text()


OF_SSAN = """
import sys
from model.train import train
from model import distributed
from tests.model.test_distributed import in_double_precision, short_ssan
data, out = sys.argv[1:]
with in_double_precision():
    train(short_ssan(), data, out, progress=False, threads=1, device="cpu")
distributed.leave()
"""


def short_ssan() -> Recipe:
    """Both stages of SSAN: weak captions come to each process, and the relation block sees them in the whole batch."""
    recipe = override(tiny(ssan_synth()), average=0.9, **{"net_config.negatives": "hardest"})
    return replace(recipe, stages=tuple(replace(s, optimizer="sgd", lr=1e-3, epochs=1) for s in recipe.stages))


@pytest.mark.slow
def test_two_processes_agree_with_one_on_weak_captions(toy_dataset: Path, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(OF_SSAN)
    launch(program, toy_dataset, tmp_path / "two")
    with in_double_precision():
        train(short_ssan(), toy_dataset, tmp_path / "one", progress=False, threads=1, device="cpu")
    one, two = (records(tmp_path / name, "step") for name in ("one", "two"))
    assert [step["stage"] for step in one] == [0, 0, 1, 1]
    for step, other in zip(one, two, strict=True):
        assert other["loss"] == pytest.approx(step["loss"], abs=1e-6), step["global_step"]
    for name, tensor in state(tmp_path / "one")["net"].items():
        torch.testing.assert_close(state(tmp_path / "two")["net"][name], tensor, atol=1e-5, rtol=1e-5, msg=name)


def test_alone_nothing_is_wrapped_and_nothing_is_gathered(toy_dataset: Path) -> None:
    net = torch.nn.Sequential(torch.nn.BatchNorm1d(3))
    x = torch.randn(2, 3)
    assert distributed.world() == 1 and distributed.rank() == 0
    assert distributed.join(torch.device("cpu")) == torch.device("cpu")
    assert distributed.parallel(net) is net and distributed.all_rows(x) is x
    assert type(distributed.synchronize_batch_norm(net, torch.device("cpu"))[0]) is torch.nn.BatchNorm1d  # type: ignore[index]


@pytest.mark.parametrize("shape", [(6, 4), (6, 4, 5), (6, 4, 5, 3)])
def test_batch_norm_over_one_process_is_batch_norm(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "_summed", lambda x: x.detach().clone())
    ours, theirs = WholeBatchNorm(4), torch.nn.BatchNorm2d(4) if len(shape) == 4 else torch.nn.BatchNorm1d(4)
    with torch.no_grad():
        for norm in (ours, theirs):
            norm.weight.copy_(torch.tensor([1.0, -2.0, 0.5, 3.0]))
            norm.bias.copy_(torch.tensor([0.0, 1.0, -1.0, 0.2]))
    torch.manual_seed(0)
    for _ in range(3):
        x = torch.randn(shape) * 3 + 5
        a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
        weights = torch.randn(shape)
        (ours(a) * weights).sum().backward()
        (theirs(b) * weights).sum().backward()
        torch.testing.assert_close(ours(a), theirs(b), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(a.grad, b.grad, atol=1e-5, rtol=1e-4)
    for name, expected in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], expected)
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad, atol=1e-4, rtol=1e-4)
    ours.eval()
    theirs.eval()
    torch.testing.assert_close(ours(x), theirs(x))
