"""The paper's ablation, run on rendered people: `python -m benchmarks.ablation run`, then `table` and `curves`.

Every row is the same recipe with one thing changed, the same data, the same number of images seen and the same seeds.
The vision tower starts from weights that a `pretrain` run made from attribute labels alone, the counterpart of the
ImageNet weights of the paper. Half the channels and 96x32 images make a row a matter of minutes on one core; what
holds there need not hold at full size, so this compares rows with each other and with nothing else.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from model.batching import Augmentation
from model.checkpoint import load, write_atomically
from model.datasets import read_cuhk_pedes
from model.encoder import pick_device
from model.nets.axm_net import AXMNetConfig
from model.preprocess import Preprocessing
from model.recipes import MINILM, Recipe, Stage, override
from model.runlog import Screen
from model.text import load_text
from model.train import train
from model.training_data import prepare
from model.validation import embed, validate

AUGMENTATION = Augmentation(flip=0.5, translate=0.06, erase=0.3, erase_area=(0.02, 0.25), brightness=0.25)


@dataclass(frozen=True)
class Row:
    """One line of the table: what is changed of the whole model, and what the paper prints for it, if it does.

    paper: Rank-1 on CUHK-PEDES at 224x224 with word2vec and the identity loss (Tables 4 and 6 of AXM-Net).
    vision: which pre-trained tower it starts from, with "gates" or with "none".
    """

    name: str
    changes: dict[str, Any] = field(default_factory=dict)
    paper: float | None = None
    vision: str = "gates"


_GATES: dict[str, Literal["none", "separate"]] = {
    "gates": "separate",
    "none": "none",
}  # how the tower was aligned when it was pre-trained, alone
_NO_AXM = {"net_config.align": "separate"}
_NO_VFC = {"net_config.vfc": False}
_NO_TSA = {"net_config.tsa": "off"}
TABLE_4 = (
    Row("baseline", {**_NO_AXM, **_NO_VFC, **_NO_TSA}, 52.78),
    Row("AXM", {**_NO_VFC, **_NO_TSA}, 55.90),
    Row("VFC", {**_NO_AXM, **_NO_TSA}, 56.99),
    Row("TSA", {**_NO_AXM, **_NO_VFC}, 53.25),
    Row("AXM + TSA", _NO_VFC, 56.27),
    Row("AXM + VFC", _NO_TSA, 58.59),
    Row("AXM + VFC + TSA (all)", {}, 59.44),
)
STAGES = (Row("all, single stage", {"stages": "single"}, 55.05),)
ALIGNMENT = (
    Row("all, align none", {"net_config.align": "none"}, 58.41, vision="none"),
    Row("all, align separate", _NO_AXM, 58.41),
)
BEYOND = (
    Row("all, twins in one batch", {"stages.1.sampler": "twins"}),
    Row("all, weak positives 0.3", {"stages.1.weak_positives": 0.3}),
    Row(
        "all, printed affinity without learned temperature",
        {"net_config.stage1_info_nce_weight": 0.0, "net_config.stage2_info_nce_weight": 0.0},
    ),
    Row(
        "all, learned temperature without affinity and triplet",
        {"net_config.affinity_weight": 0.0, "net_config.triplet_weight": 0.0},
    ),
    Row("all, averaged weights", {"average": 0.99}),
)
PLAIN = (
    Row(
        "plain: global pooling, bag of words",
        {
            "net_config.align": "separate",
            "net_config.part_branch": False,
            "net_config.text_tower": "bag",
            "net_config.text_input": "learned",
            "net_config.text_dim": 256,
        },
    ),
)
ROWS = (*TABLE_4, *STAGES, *ALIGNMENT, *PLAIN, *BEYOND)


def whole() -> Recipe:
    """AXM-Net at half width on 96x32 images: stage 1 and stage 2 as published, with a dense signal in both.

    The identity loss alone does not get going from scratch on four images a person (see docs/training.md), so both
    stages also have the attribute and InfoNCE losses, in every row alike, and it keeps a tenth of its weight.
    """
    common: dict[str, Any] = {"optimizer": "adamw", "schedule": "one_cycle", "augmentation": AUGMENTATION}
    return Recipe(
        name="axm_net_ablation",
        net="axm_net",
        net_config=AXMNetConfig(
            widths=(32, 128, 192, 256),
            feature_dim=256,
            identity_weight=0.1,
            stage1_attribute_weight=1.0,
            stage1_info_nce_weight=1.0,
            stage2_attribute_weight=1.0,
            stage2_info_nce_weight=1.0,
            backbone_lr_scale=0.5,
        ),
        preprocessing=Preprocessing(96, 32),
        text=MINILM,
        stages=(
            Stage(1, epochs=2, lr=2e-3, warmup=0.15, **common),
            Stage(2, epochs=2, lr=1.5e-3, warmup=0.15, **common),
        ),
    )


def pretraining(align: Literal["none", "separate"]) -> Recipe:
    """The vision tower learns the attribute labels; no text is compared with any image."""
    recipe = whole()
    assert isinstance(recipe.net_config, AXMNetConfig)
    stage = replace(recipe.stages[0], number=0, epochs=5, lr=2e-3, warmup=0.15)
    config = replace(recipe.net_config, align=align, info_nce_weight=0.0)
    return replace(recipe, name=f"axm_net_ablation_{align}", net_config=config, stages=(stage,))


def recipe_of(row: Row, seed: int, vision: Path) -> Recipe:
    """The whole model with the row's changes."""
    changes = dict(row.changes)
    recipe = replace(whole(), seed=seed, vision_weights=str(vision))
    if changes.pop("stages", None) == "single":
        first, second = recipe.stages
        recipe = replace(recipe, stages=(replace(second, epochs=first.epochs + second.epochs),))
    return override(recipe, **changes)


# --- running --------------------------------------------------------------------------------------------------------


def run(rows: Sequence[Row], seeds: Sequence[int], data: Path, test: Path, out: Path, threads: int, bf16: bool) -> None:
    """Train what is missing, row after row and seed after seed; a run cut short goes on where it stopped."""
    options: dict[str, Any] = {
        "device": "cpu" if bf16 else "auto",
        "threads": threads,
        "precision": "bf16" if bf16 else None,
        "cache": out,
        "resume": True,
    }
    for seed in seeds:
        for row in rows:
            folder = out / f"{_slug(row.name)}-{seed}"
            if (folder / "result.json").exists():
                continue
            vision = out / row.vision / "tower.safetensors"
            if not vision.exists():
                pretrained = train(pretraining(_GATES[row.vision]), data, vision.parent, **options)
                write_atomically(vision, pretrained.read_bytes())  # there only when the run has come to its end
            best = train(recipe_of(row, seed, vision), data, folder, **options)
            found = measure(best, test, out, threads)
            write_atomically(folder / "result.json", json.dumps({"row": row.name, "seed": seed, **found}).encode())


def measure(checkpoint: Path, test: Path, cache: Path, threads: int) -> dict[str, float]:
    """Text to image and image to image on the test split, as validation measures them."""
    recipe = whole()
    assert recipe.text is not None
    samples = read_cuhk_pedes(test, "test")
    data = prepare(samples, recipe, load_text(recipe.text), {}, threads, cache, Screen(False))
    images, texts = embed(load(checkpoint).net, data, pick_device("cpu"))
    return validate(images, texts, samples)


# --- showing --------------------------------------------------------------------------------------------------------


def results(out: Path) -> dict[str, list[dict[str, Any]]]:
    """Finished runs by row, in the order of ``ROWS``."""
    found = [json.loads(path.read_text()) for path in sorted(out.glob("*/result.json"))]
    return {row.name: runs for row in ROWS if (runs := [one for one in found if one["row"] == row.name])}


def table(out: Path) -> Table:
    """Rank-1 and mAP of every row, mean and spread over seeds, beside the paper's Rank-1."""
    shown = Table("row", "seeds", "Rank-1", "Rank-10", "mAP", "image to image Rank-1", "paper, CUHK-PEDES Rank-1")
    paper = {row.name: row.paper for row in ROWS}
    for name, runs in results(out).items():
        cells = [spread([one[key] for one in runs]) for key in ("rank1", "rank10", "mean_ap", "image_rank1")]
        printed = paper[name]
        shown.add_row(name, str(len(runs)), *cells, "-" if printed is None else f"{printed:.2f}")
    return shown


def spread(values: Sequence[float]) -> str:
    """ "31.4 ± 0.6": mean and sample standard deviation; of one value only itself."""
    mean = f"{statistics.fmean(values):.1f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.1f}"


def curves(out: Path, picture: Path) -> None:
    """Validation Rank-1 over the images seen, one line a row, the seeds averaged; PNG, SVG or WebP by the name."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(15, 4.6), sharey=True, layout="constrained")
    groups = (("Components (Table 4)", TABLE_4), ("Stages and alignment", (TABLE_4[-1], *STAGES, *ALIGNMENT, *PLAIN)),
              ("Beyond the paper", (TABLE_4[-1], *BEYOND)))  # fmt: skip
    for axis, (title, rows) in zip(axes, groups, strict=True):
        for row in rows:
            seen, rank1 = _curve(sorted(out.glob(f"{_slug(row.name)}-*/log.jsonl")))
            if seen:
                axis.plot(seen, rank1, marker="o", markersize=3, label=row.name)
        axis.set(title=title, xlabel="images seen (thousands)")
        axis.grid(alpha=0.25)
        axis.legend(fontsize=7.5, frameon=False)
    axes[0].set_ylabel("validation Rank-1, %")
    figure.savefig(picture, dpi=110)
    plt.close(figure)


def _curve(logs: Sequence[Path]) -> tuple[list[float], list[float]]:
    """Thousands of images seen and mean validation Rank-1 of runs with the same steps."""
    points: dict[int, list[float]] = {}
    for log in logs:
        for line in log.read_text().splitlines():
            entry = json.loads(line)
            if entry["kind"] == "validation":
                points.setdefault(entry["global_step"], []).append(entry["rank1"])
    batch = whole().stages[0].batch
    return [step * batch / 1000 for step in sorted(points)], [statistics.fmean(points[step]) for step in sorted(points)]


def _slug(name: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in name.lower()).split())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ablation", description=__doc__.split("\n\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("run", help="train and measure rows that are not in --out yet")
    one.add_argument("--data", type=Path, required=True, help="rendered people with the splits train and val")
    one.add_argument("--test", type=Path, required=True, help="rendered people with the split test")
    one.add_argument("--rows", nargs="*", default=[row.name for row in ROWS], help="names of rows; all by default")
    one.add_argument("--seeds", type=int, nargs="*", default=[0])
    one.add_argument("--threads", type=int, default=1)
    one.add_argument("--bf16", action="store_true", help="bfloat16 on the CPU")
    show = commands.add_parser("table", help="print the table of what was run")
    draw = commands.add_parser("curves", help="draw validation over training")
    draw.add_argument("picture", type=Path)
    for command in (one, show, draw):
        command.add_argument("--out", type=Path, default=Path("runs/ablation"))
    args = parser.parse_args()
    if args.command == "table":
        Console(width=160).print(table(args.out))
    elif args.command == "curves":
        curves(args.out, args.picture)
    else:
        known = {row.name: row for row in ROWS}
        if unknown := [name for name in args.rows if name not in known]:
            parser.error(f"there is no row {unknown[0]!r}; rows are: {'; '.join(known)}")
        run([known[name] for name in args.rows], args.seeds, args.data, args.test, args.out, args.threads, args.bf16)


if __name__ == "__main__":
    main()
