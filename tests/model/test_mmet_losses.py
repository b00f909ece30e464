"""MMET's losses against loops over its own parts: both stages, what is hidden, and captions torn from their images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from model import masking
from model.image_tokens import normalized_pixels
from model.interface import Tokens
from model.nets import mmet
from model.nets.mmet import BRANCHES, CLS, SEP
from tests.model.test_mmet import HEADS, PATCHES, make_batch, make_images, small_net


@contextmanager
def fixed_masks(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Tensor, Callable[[Tensor], masking.MaskedText]]]:
    """The same patches and pieces hidden whatever is drawn."""
    hidden = torch.rand(6, PATCHES, generator=torch.Generator().manual_seed(3)) < 0.4

    def hide(ids: Tensor) -> masking.MaskedText:
        gone = (torch.arange(ids.shape[1]) % 3 == 1) & (ids != 0) & (ids != CLS) & (ids != SEP)
        return masking.MaskedText(torch.where(gone, masking.MASK, ids), gone)

    monkeypatch.setattr(mmet, "image_masks", lambda *_: hidden)
    monkeypatch.setattr(mmet, "mask_text", lambda ids, *_, **__: hide(ids))
    yield hidden, hide


def cross_entropy(logits: Tensor, target: int) -> float:
    return -math.log(torch.softmax(logits.double(), dim=0)[target].item())


def test_pre_training_losses_equal_loops_over_pairs_and_places(monkeypatch: pytest.MonkeyPatch) -> None:
    net = small_net(**HEADS, fusion_sees_padding=False).eval()  # k-means keeps still
    heads = net.heads
    assert heads is not None and heads.codebook is not None and heads.attributes is not None
    heads.codebook.learn(make_images(6), net.config.grid)
    batch = make_batch()
    source, matched = torch.tensor([0, 1, 4, 3, 4, 0]), torch.tensor([1, 1, 0, 1, 1, 0], dtype=torch.bool)
    assert batch.tokens is not None and batch.attributes is not None
    torn = Tokens(batch.tokens.ids[source], batch.tokens.mask[source], None)
    monkeypatch.setattr(net, "_tear_pairs", lambda *_: (torn, matched))
    with fixed_masks(monkeypatch) as (hidden, hide), torch.no_grad():
        found = {name: loss.item() for name, loss in net(batch, 0).items()}
        codes = heads.codebook.codes(batch.images, net.config.grid)
        ids, mask = net._pieces(torn)
        read = hide(ids)
        terms: dict[str, list[float]] = {name: [] for name in ("itm", "mmm_image", "mmm_text", "mim", "mlm")}
        vectors: dict[str, list[Tensor]] = {"image": [], "text": []}
        for n in range(6):
            one = slice(n, n + 1)
            image, text = net.image.embed(batch.images[one], hidden[one]), net.text.embed(read.ids[one], mask[one])
            alone = {"image": net.image.norm(image)[0], "text": net.text.norm(text)[0]}
            fused = net.fusion.norm(net.fusion.embed(image, text, mask[one]))[0]
            terms["itm"].append(cross_entropy(heads.itm(fused[0]), int(matched[n])))
            for place in range(PATCHES):
                if hidden[n, place]:
                    code = int(codes[n, place])
                    terms["mim"].append(cross_entropy(heads.mim(alone["image"][1 + place]), code))
                    if matched[n]:
                        terms["mmm_image"].append(cross_entropy(heads.mmm_image(fused[2 + place]), code))
            for place in range(22):
                if read.hidden[n, place]:
                    row = 999 + (int(ids[n, place]) - 999) % 201 if ids[n, place] >= 1200 else int(ids[n, place])
                    terms["mlm"].append(cross_entropy(heads.mlm(alone["text"][place]), row))
                    if matched[n]:
                        terms["mmm_text"].append(cross_entropy(heads.mmm_text(fused[2 + PATCHES + place]), row))
            vectors["image"].append(net.image_projection(net.image.norm(net.image.embed(batch.images[one]))[0, 0]))
            vectors["text"].append(net.text_projection(net.text.norm(net.text.embed(ids[one], mask[one]))[0, 0]))
        for name, values in terms.items():
            assert found[name] == pytest.approx(np.mean(values), rel=1e-5), name

        true = [n for n in range(6) if matched[n]]
        loss = 0.0
        for here, there in (("image", "text"), ("text", "image")):
            for n, anchor in enumerate(true):
                similar = [
                    F.cosine_similarity(vectors[here][anchor], vectors[there][other], dim=0) / 0.07 for other in true
                ]
                loss += cross_entropy(torch.stack(similar), n) / len(true) / 2
        assert found["contrastive"] == pytest.approx(loss, rel=1e-4)

        total = 0.0
        for branch in ("image", "text"):
            for column, (start, classes) in enumerate(((0, 3), (3, 2))):
                values = []
                for n in range(6):
                    known = int(batch.attributes[n, column])
                    if known >= 0 and (branch == "image" or matched[n]):
                        logits = heads.attributes(vectors[branch][n])[start : start + classes]
                        values.append(cross_entropy(logits, known))
                total += np.mean(values) / 2
        assert found["attribute"] == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("across", [False, True])
def test_losses_of_re_identification_equal_loops(across: bool) -> None:
    net = small_net(num_ids=5, triplet_across=across, stage2_contrastive_weight=0.5)
    net.begin_stage(2)
    with torch.no_grad():
        for neck in net.necks.values():
            neck.weight.copy_(torch.rand(32) + 0.5)  # type: ignore[operator]
    batch = make_batch()
    assert net.heads is not None and net.heads.identity is not None
    with torch.no_grad():
        found = {name: loss.item() for name, loss in net(batch, 0).items()}
        states = net.branch_states(BRANCHES, batch.images, batch.tokens)
        labels = batch.labels.tolist()
        rows: dict[str, Tensor] = {}
        for branch in BRANCHES:
            cls = states[branch][:, 0].double()
            normal = (cls - cls.mean(dim=0)) / (cls.var(dim=0, correction=0) + 1e-5).sqrt()
            rows[branch] = normal * net.necks[branch].weight.double()  # type: ignore[union-attr, operator]
        weight = net.heads.identity.weight.double()
        expected = sum(
            np.mean([cross_entropy(weight @ v, pid) for v, pid in zip(r, labels, strict=True)]) for r in rows.values()
        )
        assert found["identity"] == pytest.approx(expected, rel=1e-4)

        pools = [(torch.cat(list(rows.values())), labels * 3)] if across else [(r, labels) for r in rows.values()]
        triplet = 0.0
        for vectors, pids in pools:
            terms = []
            for a in range(len(pids)):
                distances = [math.dist(vectors[a].tolist(), v.tolist()) for v in vectors]
                farthest = max(d for b, d in enumerate(distances) if pids[b] == pids[a] and a != b)
                nearest = min(d for b, d in enumerate(distances) if pids[b] != pids[a])
                terms.append(math.log1p(math.exp(farthest - nearest)))
            triplet += float(np.mean(terms))
        assert found["triplet"] == pytest.approx(triplet, rel=1e-4)

        loss = 0.0
        for other in ("text", "fusion"):
            for here, there in ((rows["image"], rows[other]), (rows[other], rows["image"])):
                for a in range(6):
                    similar = torch.stack([F.cosine_similarity(here[a], v, dim=0) / 0.07 for v in there])
                    right = [b for b in range(6) if labels[b] == labels[a]]
                    loss += float(np.mean([cross_entropy(similar, b) for b in right])) / 6 / 2
        assert found["contrastive"] == pytest.approx(0.5 * loss, rel=1e-4)


def test_a_step_of_the_published_kind_has_one_sort_of_loss() -> None:
    net = small_net(num_ids=5, objectives="drawn")
    kinds = {"mim": 0, "mlm": 0, "itm": 0}
    for seed in range(60):
        torch.manual_seed(seed)
        losses = net(make_batch(), 0)
        kind = next(iter(losses))
        kinds[kind] += 1
        assert set(losses) == ({"itm", "mmm_image", "mmm_text", "contrastive"} if kind == "itm" else {kind})
    assert min(kinds.values()) > 8


def test_pixels_are_painted_where_there_is_no_codebook(monkeypatch: pytest.MonkeyPatch) -> None:
    net = small_net(num_ids=5, image_target="pixels", wrong_captions=0.0).eval()
    assert net.heads is not None and net.heads.codebook is None
    batch = make_batch()
    with fixed_masks(monkeypatch) as (hidden, _), torch.no_grad():
        found = net(batch, 0)["mim"].item()
        states = net.image.norm(net.image.embed(batch.images, hidden))[:, 1:]
        painted, real = net.heads.mim(states), normalized_pixels(batch.images, (4, 2))
    errors = [((painted[n, p] - real[n, p]) ** 2).mean().item() for n in range(6) for p in range(8) if hidden[n, p]]
    assert found == pytest.approx(np.mean(errors), rel=1e-5)


def test_captions_are_torn_from_their_images_only_for_those_of_others() -> None:
    net = small_net(num_ids=5, wrong_captions=0.5)
    batch, rng = make_batch(), np.random.default_rng(0)
    assert batch.tokens is not None
    torn = 0
    for _ in range(100):
        tokens, matched = net._tear_pairs(batch.tokens, batch.labels, rng)
        for n in range(6):
            same = [m for m in range(6) if torch.equal(tokens.ids[n], batch.tokens.ids[m])]
            assert torch.equal(tokens.mask[n], batch.tokens.mask[same[0]])
            assert same == [n] if matched[n] else batch.labels[same[0]] != batch.labels[n]
        torn += int((~matched).sum())
    assert torn / 600 == pytest.approx(0.5, abs=0.06)
    _, matched = net._tear_pairs(batch.tokens, torch.zeros(6, dtype=torch.long), rng)
    assert matched.all()  # nobody else's caption is there


def test_a_batch_without_a_true_pair_has_finite_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    net = small_net(num_ids=5)
    batch = make_batch()
    monkeypatch.setattr(net, "_tear_pairs", lambda tokens, *_: (tokens, torch.zeros(6, dtype=torch.bool)))
    losses = net(batch, 0)
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert losses["contrastive"].item() == losses["mmm_image"].item() == losses["mmm_text"].item() == 0
    torch.stack(list(losses.values())).sum().backward()
