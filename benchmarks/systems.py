"""The four networks side by side on rendered people: `python -m benchmarks.systems run`, then `table`.

Each is trained from nothing by its own recipe for rendered people, on images of one size and for as many images seen
(--seen), and is measured beside its untrained self and a histogram of colours. Networks of texts learn from --data,
those of infrared light from --infrared; all are tested on every set that they can read. A run cut short goes on where
it stopped. What small networks reach on rendered people compares them with each other and with nothing else.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.ablation import spread
from benchmarks.timing import medians
from model import batching
from model.baselines import METRICS, color_histogram, color_similarity
from model.checkpoint import load, save, write_atomically
from model.datasets import Sample, open_image
from model.encoder import Encoder
from model.evaluate import DATASETS
from model.nets import build
from model.nets.axm_net import AXMNetConfig
from model.nets.mmet import MMETConfig
from model.recipes import RECIPES, Recipe, override, tiny
from model.retrieval import image_to_image, text_to_image, text_to_image_of
from model.retrieval_infrared import search_across
from model.train import STATE, train
from model.training_data import draw_epoch, read_splits

Array = NDArray[Any]
SetName = Literal["test", "unseen", "infrared"]
_CHUNK = 256  # images decoded and held at a time
_TIMED = 64  # images of which the embedding rate is taken
VALIDATIONS = 6  # of a run, about


@dataclass(frozen=True)
class Task:
    """One section of the table: who searches whom, on which set."""

    title: str
    test: SetName
    queries: Literal["texts", "images", "other light"]


TASKS = {
    "text": Task("text to image", "test", "texts"),
    "image": Task("image to image, across cameras", "test", "images"),
    "infrared": Task("visible to infrared and back, mean", "infrared", "other light"),
    "unseen_text": Task("text to image, cameras unlike any in training", "unseen", "texts"),
    "unseen_image": Task("image to image, cameras unlike any in training", "unseen", "images"),
}


@dataclass(frozen=True)
class System:
    """A line of the table: what is trained on which data, and the task it is for."""

    name: str
    recipe: Callable[[], Recipe]
    task: str = "text"
    changes: dict[str, Any] = field(default_factory=dict)

    @property
    def data(self) -> Literal["captions", "infrared"]:
        return "infrared" if self.task == "infrared" else "captions"


def axm_net_vision() -> Recipe:
    """AXM-Net's vision tower on MCJA's data, with MCJA's batches and the identity and attribute losses alone."""
    mcja, axm = RECIPES["mcja_synth"](), RECIPES["axm_net_synth_start"]()
    assert isinstance(axm.net_config, AXMNetConfig)
    config = replace(
        axm.net_config,
        identity_weight=0.1,
        triplet_weight=0.0,
        affinity_weight=0.0,
        stage2_attribute_weight=1.0,
        backbone_lr_scale=1.0,
    )
    # Stage 2 twice: it is the one with the identity loss in which the vision tower learns.
    stages = tuple(
        replace(stage, number=2, augmentation=replace(stage.augmentation, spectrum=None)) for stage in mcja.stages
    )
    return replace(
        mcja, name="axm_net_vision", net="axm_net", net_config=config, preprocessing=axm.preprocessing, stages=stages
    )


FOUR = (
    System("AXM-Net", RECIPES["axm_net_synth_start"]),
    System("SSAN", RECIPES["ssan_synth"]),
    System("MMET", RECIPES["mmet_synth"]),
    System("MCJA", RECIPES["mcja_synth"], "infrared"),
    System("AXM-Net, vision alone", axm_net_vision, "infrared"),
)
NOISY = tuple(
    System(f"{name}, {share:.0%} of captions wrong", RECIPES[recipe], changes={"caption_noise": share})
    for name, recipe in (("AXM-Net", "axm_net_synth_start"), ("SSAN", "ssan_synth"))
    for share in (0.2, 0.5, 0.8)
)
SYSTEMS = {system.name: system for system in (*FOUR, *NOISY)}


@dataclass(frozen=True)
class Budget:
    """What every system gets alike.

    seen: images in all batches together. size: height and width of all images in pixels. people: training people of
    the captioned set, None for all. small: the recipes' tiny presets, with a size of their own, to try things out.
    """

    seen: int = 100_000
    size: tuple[int, int] = (96, 32)
    people: int | None = None
    small: bool = False


def recipe_of(system: System, budget: Budget, root: Path, seed: int) -> Recipe:
    """The system's recipe at the size of the budget, its stages shortened or prolonged alike to see so many images."""
    recipe = override(system.recipe(), seed=seed, **system.changes)
    recipe = tiny(recipe) if budget.small else resized(recipe, *budget.size)
    samples, _ = read_splits(recipe, root, limit_of(system, budget))
    counts = np.array([1 if recipe.text is None else len(sample.captions) for sample in samples])
    people = [sample.pid for sample in samples]
    drawn = [draw_epoch(stage, counts, people, None, batching.generator(0))[0].size for stage in recipe.stages]
    factor = budget.seen / sum(stage.epochs * images for stage, images in zip(recipe.stages, drawn, strict=True))
    stages = tuple(replace(stage, epochs=max(1, round(factor * stage.epochs))) for stage in recipe.stages)
    every = max(1, sum(stage.epochs for stage in stages) // VALIDATIONS)
    return replace(recipe, stages=stages, validate_every=every)


def resized(recipe: Recipe, height: int, width: int) -> Recipe:
    """For images of another size; transformers keep the number of rows of their patches."""
    config = recipe.net_config
    if isinstance(config, MMETConfig):
        config = replace(config, image_size=(height, width), patch=height // config.grid[0])
    return replace(recipe, net_config=config, preprocessing=replace(recipe.preprocessing, height=height, width=width))


def limit_of(system: System, budget: Budget) -> int | None:
    return budget.people if system.data == "captions" else None


# --- running --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sets:
    """Folders with rendered people: two to learn from, three to be tested on."""

    captions: Path
    infrared: Path
    tests: dict[SetName, Path]


def run(systems: Sequence[System], seeds: Sequence[int], sets: Sets, out: Path, budget: Budget, **options: Any) -> None:
    """Train and measure what is missing in ``out``; options are those of `model.train.train`."""
    _keep_budget(out, budget)
    tests = {name: read_test(root, name) for name, root in sets.tests.items()}
    if not (out / "histogram.json").exists():
        write_atomically(out / "histogram.json", json.dumps(histogram(tests)).encode())
    for seed in seeds:
        for system in systems:
            folder = out / f"{_slug(system.name)}-{seed}"
            if (folder / "result.json").exists():
                continue
            root = sets.captions if system.data == "captions" else sets.infrared
            recipe = recipe_of(system, budget, root, seed)
            limit = limit_of(system, budget)
            best = train(recipe, root, folder, limit_ids=limit, resume=True, cache=out, **options)
            start = untrained(best, folder / "untrained.safetensors", seed)
            encoder = Encoder(best, options.get("device", "auto"))
            found = {
                "system": system.name,
                "seed": seed,
                "trained": measure(encoder, tests),
                "untrained": measure(Encoder(start, options.get("device", "auto")), tests),
                **costs(best, encoder, tests["test"]),
                **effort(folder, recipe),
            }
            write_atomically(folder / "result.json", json.dumps(found).encode())


def _keep_budget(out: Path, budget: Budget) -> None:
    """One folder, one budget: lines of different ones must not stand in one table."""
    path, text = out / "budget.json", json.dumps(asdict(budget))
    if not path.exists():
        write_atomically(path, text.encode())
    elif path.read_text() != text:
        raise SystemExit(f"{out} was begun with the budget {path.read_text()}: give it again, or another folder.")


def read_test(root: Path, name: SetName) -> list[Sample]:
    return DATASETS["synth-infrared" if name == "infrared" else "synth"](root, "test")


def untrained(trained: Path, path: Path, seed: int) -> Path:
    """The network of a checkpoint as it was before training: the same file with weights drawn anew."""
    info = load(trained).info
    torch.manual_seed(seed)
    save(path, build(info["net"], info["net_config"]), info, half=True, heads=False)
    return path


# --- measuring ------------------------------------------------------------------------------------------------------


def measure(encoder: Encoder, tests: dict[SetName, list[Sample]]) -> dict[str, dict[str, float]]:
    """What a network finds, by task; without those that it cannot do."""
    found: dict[str, dict[str, float]] = {}
    for name, samples in tests.items():
        images = _rows(encoder.embed_images, samples)
        captions = [caption for sample in samples for caption in sample.captions]
        texts = encoder.embed_texts(captions) if encoder.has_text and captions else None
        for key, task in TASKS.items():
            if task.test == name and not (task.queries == "texts" and texts is None):
                found[key] = _search(task, images, texts, samples)
    return found


def histogram(tests: dict[SetName, list[Sample]]) -> dict[str, dict[str, float]]:
    """The same, found by likeness of colours, or by the colour words of a text."""
    found: dict[str, dict[str, float]] = {}
    for name, samples in tests.items():
        colors = _rows(lambda images: np.stack([color_histogram(image) for image in images]), samples)  # (N, 3, C)
        flat = colors.reshape(len(samples), -1)
        rows = flat / np.linalg.norm(flat, axis=1, keepdims=True).clip(min=1e-12)
        for key, task in TASKS.items():
            if task.test != name:
                continue
            if task.queries == "texts":
                captions = [caption for sample in samples for caption in sample.captions]
                found[key] = _five(text_to_image_of(color_similarity(captions, colors), samples))
            else:
                found[key] = _search(task, rows, None, samples)
    return found


def _search(task: Task, images: Array, texts: Array | None, samples: Sequence[Sample]) -> dict[str, float]:
    if task.queries == "images":
        return _five(image_to_image(images, samples))
    if task.queries == "texts":
        assert texts is not None
        return _five(text_to_image(texts, images, samples))
    ways = search_across(images, samples).values()
    return {name: statistics.fmean(way[name] for way in ways) for name in METRICS}


def _five(results: dict[str, Any]) -> dict[str, float]:
    return {name: results[name] for name in METRICS}


def _rows(embed: Callable[[Sequence[Image.Image]], Array], samples: Sequence[Sample]) -> Array:
    """Rows of all images, a chunk decoded at a time."""
    chunks = [samples[start : start + _CHUNK] for start in range(0, len(samples), _CHUNK)]
    return np.concatenate([embed([open_image(sample.path) for sample in chunk]) for chunk in chunks])


def costs(checkpoint: Path, encoder: Encoder, samples: Sequence[Sample]) -> dict[str, float]:
    """Parameters that serve, multiply-adds of an image, and images that this machine embeds a second, once decoded.

    A frozen language model before the network counts in none of them.
    """
    net: Any = load(checkpoint).net
    pictures = [open_image(sample.path) for sample in samples[:_TIMED]]
    seconds = medians({"embed": lambda: encoder.embed_images(pictures)})["embed"]
    image = torch.zeros(1, 3, encoder.preprocessing.height, encoder.preprocessing.width)
    if not encoder.has_text:  # a text tower that was not trained does not serve
        net.encode_image(image).sum().backward()
    serving = [p for p in net.parameters() if encoder.has_text or p.grad is not None or not p.requires_grad]
    return {
        "parameters": sum(p.numel() for p in serving),
        "macs": multiply_adds(net.encode_image, image),
        "images_per_second": len(pictures) / seconds,
    }


def multiply_adds(encode: Callable[[Tensor], Tensor] | nn.Module, images: Tensor) -> int:
    """Of convolutions, matrix products and attention; norms and activations are left out, as is usual."""
    # The counter knows attention by its two products, not by the kernels that fuse them.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        encode(images)
    return int(counter.get_total_flops()) // 2


def effort(folder: Path, recipe: Recipe) -> dict[str, float]:
    """Minutes of training, validation on the way included, and images seen."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    batches = [stage.batch for stage in recipe.stages for _ in range(stage.epochs)]
    epochs = groupby((line for line in lines if line["kind"] == "step"), lambda line: (line["stage"], line["epoch"]))
    state = torch.load(folder / STATE, weights_only=True)
    return {
        "minutes": state["seconds"] / 60,
        "seen": sum(batch * len(list(steps)) for batch, (_, steps) in zip(batches, epochs, strict=False)),
    }


# --- showing --------------------------------------------------------------------------------------------------------


def table(out: Path) -> Table:
    """Every task a section: its systems, trained and untrained, and the histogram; costs stand where a system is at
    home. Values are means over seeds, with their standard deviation where there are several."""
    runs = [json.loads(path.read_text()) for path in sorted(out.glob("*/result.json"))]
    baseline = json.loads((out / "histogram.json").read_text())
    shown = Table("percent")
    for title in (*METRIC_TITLES, "M parameters", "M MACs", "minutes", "images/s", "images seen"):
        shown.add_column(title, justify="right")
    for key, task in TASKS.items():
        shown.add_section()
        shown.add_row(f"[bold]{task.title}[/]")
        for name, system in SYSTEMS.items():
            found = [one for one in runs if one["system"] == name and key in one["trained"]]
            if not found:
                continue
            home = _cost_cells(found) if system.task == key else ()
            shown.add_row(name, *_cells([one["trained"][key] for one in found]), *home)
            shown.add_row("  untrained", *_cells([one["untrained"][key] for one in found]))
        shown.add_row("colour histogram", *_cells([baseline[key]]))
    return shown


METRIC_TITLES = ("Rank-1", "Rank-5", "Rank-10", "mAP", "mINP")


def _cells(results: Sequence[dict[str, float]]) -> list[str]:
    return [spread([one[name] for one in results]) for name in METRICS]


def _cost_cells(runs: Sequence[dict[str, Any]]) -> list[str]:
    mean = {
        name: statistics.fmean(one[name] for one in runs)
        for name in ("parameters", "macs", "minutes", "images_per_second", "seen")
    }
    return [
        f"{mean['parameters'] / 1e6:.2f}",
        f"{mean['macs'] / 1e6:.1f}",
        f"{mean['minutes']:.1f}",
        f"{mean['images_per_second']:.0f}",
        f"{mean['seen']:,.0f}",
    ]


def _slug(name: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in name.lower()).split())


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.systems", description=__doc__.split("\n\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("run", help="train and measure systems that are not in --out yet")
    one.add_argument("--data", type=Path, required=True, help="rendered people with captions, splits train and val")
    one.add_argument("--infrared", type=Path, required=True, help="the set infrared_train")
    one.add_argument("--test", type=Path, required=True, help="rendered people with captions, split test")
    one.add_argument("--unseen", type=Path, required=True, help="the set unseen: cameras with strong tints")
    one.add_argument("--infrared-test", type=Path, required=True, help="the set infrared_test")
    named = [system.name for system in FOUR]
    one.add_argument("--systems", nargs="*", default=named, help=f"by name, these by default: {'; '.join(named)}")
    one.add_argument(
        "--noise", action="store_true", help="AXM-Net and SSAN with 20, 50 and 80 %% of captions wrong too"
    )
    one.add_argument("--seeds", type=int, nargs="*", default=[0])
    one.add_argument("--seen", type=int, default=Budget.seen, help="images that each system sees in training")
    one.add_argument("--people", type=int, help="training people of --data; all by default")
    one.add_argument("--size", type=int, nargs=2, default=Budget.size, metavar=("HEIGHT", "WIDTH"))
    one.add_argument("--small", action="store_true", help="tiny networks, to see that it runs")
    one.add_argument("--threads", type=int, default=1)
    one.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    one.add_argument("--bf16", action="store_true", help="train in bfloat16 on the CPU too")
    show = commands.add_parser("table", help="print the table of what was run")
    for command in (one, show):
        command.add_argument("--out", type=Path, default=Path("runs/systems"))
    args = parser.parse_args(arguments)
    if args.command == "table":
        Console(width=160).print(table(args.out))
        return
    if unknown := [name for name in args.systems if name not in SYSTEMS]:
        parser.error(f"there is no system {unknown[0]!r}; systems are: {'; '.join(SYSTEMS)}")
    names = dict.fromkeys([*args.systems, *(system.name for system in NOISY if args.noise)])
    tests: dict[SetName, Path] = {"test": args.test, "unseen": args.unseen, "infrared": args.infrared_test}
    budget = Budget(args.seen, (args.size[0], args.size[1]), args.people, args.small)
    run(
        [SYSTEMS[name] for name in names],
        args.seeds,
        Sets(args.data, args.infrared, tests),
        args.out,
        budget,
        threads=args.threads,
        device=args.device,
        precision="bf16" if args.bf16 else None,
    )


if __name__ == "__main__":
    main()
