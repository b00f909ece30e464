"""The rows of the paper's tables as named changes of any AXM-Net recipe, each with the Rank-1 that the paper prints.

Tables 4 to 7 were measured on CUHK-PEDES at 224x224, with word2vec and, but for one column, the identity loss alone;
the losses were compared at 384x128 with BERT. A variant changes what its row is about and leaves the rest as it is,
so several can be put together: see docs/training.md for the commands that come closest to a row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from model.recipes import Recipe, override
from model.text import TextSpec

_WORD2VEC_DIM = 300


@dataclass(frozen=True)
class Variant:
    """table: where the row stands. rank1: what the paper prints for it on CUHK-PEDES, None for nothing."""

    table: str
    what: str
    rank1: float | None
    change: Callable[[Recipe], Recipe]


def apply(recipe: Recipe, names: Sequence[str]) -> Recipe:
    """The recipe with these variants, one after the other. ValueError where one does not exist or does not fit."""
    for name in names:
        if name not in VARIANTS:
            raise ValueError(f"There is no variant {name!r}; choose from {', '.join(VARIANTS)}.")
        recipe = VARIANTS[name].change(recipe)
    return replace(recipe, name=" + ".join([recipe.name, *names]))


def _net(**fields: object) -> Callable[[Recipe], Recipe]:
    """A change of the network alone."""
    return lambda recipe: override(recipe, **{f"net_config.{name}": value for name, value in fields.items()})


def _losses(*, triplet: bool, affinity: bool) -> Callable[[Recipe], Recipe]:
    def change(recipe: Recipe) -> Recipe:
        if all(stage.number != 2 for stage in recipe.stages):
            raise ValueError(f"Recipe {recipe.name} has no stage 2, where these losses act; choose another recipe.")
        return _net(identity_weight=1.0, triplet_weight=float(triplet), affinity_weight=float(affinity))(recipe)

    return change


def single_stage(recipe: Recipe) -> Recipe:
    """No stage 1: its epochs are added to stage 2, whose rate falls as many epochs later."""
    numbers = [stage.number for stage in recipe.stages]
    if 1 not in numbers or 2 not in numbers:
        raise ValueError(f"Recipe {recipe.name} has no stages 1 and 2 to join; choose another recipe.")
    first, second = (recipe.stages[numbers.index(number)] for number in (1, 2))
    milestones = tuple(epoch + first.epochs for epoch in second.milestones)
    joined = replace(second, epochs=first.epochs + second.epochs, milestones=milestones)
    return replace(recipe, stages=tuple(joined if s is second else s for s in recipe.stages if s is not first))


def word_table(recipe: Recipe) -> Recipe:
    """A table of 300 numbers a word piece, learned with the net: it stands in for the fixed vectors of word2vec."""
    text = TextSpec("learned", length=_length(recipe), dim=_WORD2VEC_DIM)
    return replace(_net(text_input="learned", text_dim=_WORD2VEC_DIM)(recipe), text=text)


def bert(recipe: Recipe) -> Recipe:
    """The last hidden states of BERT-base-uncased, frozen."""
    text = TextSpec("bert", "bert-base-uncased", length=_length(recipe))
    return replace(_net(text_input="frozen", text_dim=text.dim)(recipe), text=text)


def _length(recipe: Recipe) -> int:
    if recipe.text is None:
        raise ValueError(f"Recipe {recipe.name} reads no captions; choose another recipe.")
    return recipe.text.length


# Without AXM each modality keeps gates of its own, as OSNet has them; no gates at all is a row of its own.
_APART = "separate"
_COMPONENTS = "Table 4, components"
_CALIBRATION = "Table 5, visual feature calibration"
_ALIGNMENT = "Table 6, alignment"
_EMBEDDING = "Table 7, text embedding"
_LOSSES = "main table, losses (384x128, BERT)"


def _aligned(*stages: int) -> tuple[str, ...]:
    """Modes of the six blocks, two to a stage, with shared gates in the named ones."""
    return tuple("shared" if stage in stages else _APART for stage in (1, 1, 2, 2, 3, 3))


def _components(*, axm: bool, vfc: bool, tsa: bool) -> Callable[[Recipe], Recipe]:
    return _net(align="shared" if axm else _APART, vfc=vfc, tsa="nonlocal" if tsa else "off")


VARIANTS: dict[str, Variant] = {
    "baseline": Variant(_COMPONENTS, "none of the three", 52.78, _components(axm=False, vfc=False, tsa=False)),
    "axm": Variant(_COMPONENTS, "shared gates", 55.90, _components(axm=True, vfc=False, tsa=False)),
    "vfc": Variant(_COMPONENTS, "strip calibration", 56.99, _components(axm=False, vfc=True, tsa=False)),
    "tsa": Variant(_COMPONENTS, "text self-attention", 53.25, _components(axm=False, vfc=False, tsa=True)),
    "axm-tsa": Variant(_COMPONENTS, "all but VFC", 56.27, _components(axm=True, vfc=False, tsa=True)),
    "axm-vfc": Variant(_COMPONENTS, "all but TSA", 58.59, _components(axm=True, vfc=True, tsa=False)),
    "all": Variant(_COMPONENTS, "AXM + VFC + TSA", 59.44, _components(axm=True, vfc=True, tsa=True)),
    "unified-visual": Variant(_COMPONENTS, "losses on V_G + V_P, not on each", None, _net(unified_visual=True)),
    "only-part-branch": Variant(_COMPONENTS, "V = V_P", 54.53, _net(global_branch=False, part_branch=True)),
    "single-stage": Variant(_COMPONENTS, "stage 2 from the start, epochs of both", 55.05, single_stage),
    "vfc-mlp-separate": Variant(_CALIBRATION, "a scaling MLP for each strip", 57.62, _net(vfc_mlp="separate")),
    "vfc-mlp-shared": Variant(_CALIBRATION, "one scaling MLP for all strips", 57.93, _net(vfc_mlp="shared")),
    "vfc-pool-average": Variant(
        _CALIBRATION, "average pooling in the part branch", 57.36, _net(strip_pooling="avg", part_pooling="avg")
    ),
    "vfc-pool-max": Variant(
        _CALIBRATION, "max pooling in the part branch", 58.82, _net(strip_pooling="max", part_pooling="max")
    ),
    "vfc-drop-random": Variant(_CALIBRATION, "drop a random block", 57.62, _net(feature_drop="block")),
    "vfc-drop-part": Variant(_CALIBRATION, "drop a random strip", 58.33, _net(feature_drop="strip")),
    "vfc-drop-none": Variant(_CALIBRATION, "drop nothing", 59.44, _net(feature_drop="none")),
    "fc-one": Variant(_CALIBRATION, "one FC layer in every branch", 58.45, _net(fc_layers="one")),
    "fc-two": Variant(_CALIBRATION, "two FC layers in every branch", 58.06, _net(fc_layers="two")),
    "fc-proposed": Variant(_CALIBRATION, "two in the global branch, else one", 59.44, _net(fc_layers="proposed")),
    "align-none": Variant(_ALIGNMENT, "no gates: streams are summed", 58.41, _net(align="none")),
    "align-separate": Variant(_ALIGNMENT, "gates of its own for each modality", 58.41, _net(align="separate")),
    "align-1-2": Variant(_ALIGNMENT, "shared gates in blocks 1 and 2", 59.16, _net(align=_aligned(1, 2))),
    "align-1-3": Variant(_ALIGNMENT, "shared gates in blocks 1 and 3", 59.24, _net(align=_aligned(1, 3))),
    "align-2-3": Variant(_ALIGNMENT, "shared gates in blocks 2 and 3", 59.41, _net(align=_aligned(2, 3))),
    "align-all": Variant(_ALIGNMENT, "shared gates in all blocks", 59.44, _net(align="shared")),
    "text-table": Variant(_EMBEDDING, "learned word table, in place of word2vec", 59.44, word_table),
    "text-bert": Variant(_EMBEDDING, "BERT", 61.27, bert),
    "loss-id": Variant(_LOSSES, "joint identity", 62.08, _losses(triplet=False, affinity=False)),
    "loss-id-affinity": Variant(_LOSSES, "identity + affinity", 62.80, _losses(triplet=False, affinity=True)),
    "loss-id-triplet": Variant(_LOSSES, "identity + triplet", 63.72, _losses(triplet=True, affinity=False)),
    "loss-all": Variant(_LOSSES, "identity + affinity + triplet", 64.44, _losses(triplet=True, affinity=True)),
}
