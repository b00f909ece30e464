"""MCJA: its published sizes, its losses against loops and a soft rank of another hand, and what may influence what."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.checkpoint import load, save
from model.interface import Batch, Net, TextNet
from model.losses_mcja import cmr_loss, contrast, rank_deviation, soft_rank
from model.nets import build
from model.nets.mcja import MCJA, MDA, GeM, MCJAConfig
from model.nets.resnet import ResNet
from model.preprocess import Preprocessing

SMALL: dict[str, Any] = {"width": 8, "depths": [1, 1, 1, 1]}
ATTENTIVE: dict[str, Any] = {"width": 8, "depths": [1, 4, 6, 1], "mda_masks": 3}


def small_net(**settings: Any) -> MCJA:
    torch.manual_seed(0)
    net = build("mcja", SMALL | settings)
    assert isinstance(net, MCJA)
    return net


def make_images(batch: int, height: int = 96, width: int = 64, seed: int = 1) -> Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


def make_batch(batch: int = 8) -> Batch:
    """Four images of each person, every other one infrared."""
    numbers = torch.arange(batch)
    return Batch(make_images(batch), None, numbers // 4, numbers[:, None] % 3, modalities=numbers % 2)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def wake(net: MCJA) -> None:
    """Away from the start, where attention rightly has no gradient."""
    for module in net.attention.values():
        assert isinstance(module, MDA)
        nn.init.ones_(module.norm.weight)


# --- sizes and shapes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("masks", "more"), [(2, 32_778), (12, 114_748)])
def test_attention_adds_what_is_published(masks: int, more: int) -> None:
    with torch.device("meta"):
        plain, attentive = MCJA(MCJAConfig()), MCJA(MCJAConfig(mda_masks=masks))
    assert count(attentive) - count(plain) == more == count(attentive.attention)
    sizes = [module.norm.num_features for module in attentive.attention.values() if isinstance(module, MDA)]
    assert sizes == [512, 512, 1024, 1024, 1024]
    assert list(attentive.attention) == ["layer2_2", "layer2_3", "layer3_3", "layer3_4", "layer3_5"]


@torch.no_grad()
def test_shapes_are_those_of_resnet_50() -> None:
    with torch.device("meta"):
        net = MCJA(MCJAConfig(num_ids=395))
        images = torch.empty(2, 3, 384, 192)
        assert net.feature_map(images).shape == (2, 2048, 12, 6)
        assert net.encode_image(images).shape == (2, 2048)
    assert count(net.vision) == 23_508_032  # ResNet-50 without its classifier
    assert count(net) == 23_508_032 + 2 * 2048 + 395 * 2048
    assert not net.neck.bias.requires_grad
    assert net.heads is not None and net.heads.identity.bias is None


@torch.no_grad()
def test_the_backbone_is_the_resnet_where_attention_is_the_identity() -> None:
    net, images = small_net(**ATTENTIVE).double().eval(), make_images(2).double()
    torch.testing.assert_close(net.feature_map(images), net.vision(images))
    wake(net)
    assert not torch.allclose(net.feature_map(images), net.vision(images), atol=1e-3)


@torch.no_grad()
def test_pooling_equals_a_loop() -> None:
    x = torch.rand(2, 3, 4, 2)
    x[0, 0] = 0
    found = GeM(3.0, 1e-12)(x)
    for b, c in product(range(2), range(3)):
        cubes = [float(x[b, c, h, w]) ** 3 for h, w in product(range(4), range(2))]
        assert float(found[b, c]) == pytest.approx((sum(cubes) / 8 + 1e-12) ** (1 / 3), rel=1e-5)
    torch.testing.assert_close(GeM(1.0, 1e-12)(x), x.mean(dim=(2, 3)))


@torch.no_grad()
def test_attention_equals_a_loop() -> None:
    block = MDA(5, 2)
    block.start()
    nn.init.normal_(block.aggregate)
    nn.init.normal_(block.masks.weight)
    nn.init.normal_(block.norm.weight)
    nn.init.normal_(block.norm.bias)
    x = torch.randn(3, 5, 4, 2)
    gates = torch.zeros(3, 5)
    block.eval()
    for b in range(3):
        descriptors = torch.zeros(2, 5)
        for j in range(2):
            logits = [
                float((block.masks.weight[j, :, 0, 0] * x[b, :, h, w]).sum() + block.masks.bias[j])  # type: ignore[index]
                for h, w in product(range(4), range(2))
            ]
            weights = [math.exp(logit) / sum(map(math.exp, logits)) for logit in logits]
            for (h, w), weight in zip(product(range(4), range(2)), weights, strict=True):
                descriptors[j] += weight * x[b, :, h, w]
        gates[b] = sum(block.aggregate[:, j] * descriptors[j] for j in range(2))
    gates = 1 / (1 + torch.exp(-block.gate_norm(gates)))
    expected = x + block.norm(gates[:, :, None, None] * x)
    torch.testing.assert_close(block(x), expected, atol=1e-5, rtol=1e-5)


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="must be positive"):
        MCJAConfig(cmr_strength=0.0)
    with pytest.raises(ValueError, match="0 for no attention, not -1"):
        MCJAConfig(mda_masks=-1)
    with pytest.raises(ValueError, match="blocks that depths"):
        MCJAConfig(mda_masks=2, depths=(1, 1, 1, 1))
    with pytest.raises(ValueError, match="stages 0 and 1, not 2"):
        small_net().begin_stage(2)


# --- the contract of every net ------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, ATTENTIVE, {"last_stride": 1}, {"width": 5}], ids=str)
@torch.no_grad()
def test_a_vector_is_unit_and_depends_on_nothing_but_its_image(settings: dict[str, Any]) -> None:
    net, images = small_net(**settings).eval(), make_images(4)
    wake(net)
    assert isinstance(net, Net) and not isinstance(net, TextNet)
    rows = net.encode_image(images)
    assert rows.shape == (4, net.embedding_dim)
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(4))
    for n in range(4):
        torch.testing.assert_close(net.encode_image(images[n : n + 1])[0], rows[n], atol=1e-5, rtol=1e-5)
    mixed = net.encode_image(torch.cat([make_images(3, seed=9), images]))
    torch.testing.assert_close(mixed[3:], rows, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({}, ("identity", "cmr")),
        (ATTENTIVE, ("identity", "cmr")),
        ({"cmr_strength": 0.02}, ("identity", "cmr")),
        ({"identity_weight": 0.0, "attribute_weight": 0.5, "attributes": [["bag", 3]]}, ("cmr", "attribute")),
        ({"cmr_weight": 0.0}, ("identity",)),
    ],
    ids=str,
)
def test_losses_are_finite_and_reach_every_trained_parameter(settings: dict[str, Any], names: tuple[str, ...]) -> None:
    net = small_net(num_ids=2, **settings)
    wake(net)
    net.train()
    net.begin_stage(1)
    losses = net(make_batch(), 0)
    assert losses.keys() == set(names)
    assert all(loss.dim() == 0 and torch.isfinite(loss) for loss in losses.values())
    torch.stack(list(losses.values())).sum().backward()
    groups = net.param_groups(0.1)
    trained = {id(p) for group in groups for p in group["params"]}
    for name, parameter in net.named_parameters():
        assert (id(parameter) in trained) == (name != "neck.bias")
        if name.startswith("heads.identity") and "identity" not in names:
            continue
        if id(parameter) in trained:
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
            # The bias of a mask is cancelled by its softmax.
            assert parameter.grad.any() or name.endswith("masks.bias"), name


def test_losses_are_weighted() -> None:
    plain = small_net(num_ids=2, attributes=[["bag", 3]], attribute_weight=1.0)
    weights = {"identity_weight": 0.5, "cmr_weight": 3.0, "attribute_weight": 2.0}
    weighted = small_net(num_ids=2, attributes=[["bag", 3]], **weights)
    weighted.load_state_dict(plain.state_dict())
    a, b = plain(make_batch(), 0), weighted(make_batch(), 0)
    for name in a:
        torch.testing.assert_close(b[name], weights[f"{name}_weight"] * a[name])
    z = plain.features(make_batch().images)
    assert plain.heads is not None
    logits = plain.heads.identity(z)
    expected = torch.stack([logits[n].logsumexp(0) - logits[n, n // 4] for n in range(8)]).mean()
    torch.testing.assert_close(plain(make_batch(), 0)["identity"], expected)  # no smoothing, after the neck


def test_a_batch_must_say_what_it_is() -> None:
    with pytest.raises(ValueError, match="built with num_ids"):
        small_net()(make_batch(), 0)
    with pytest.raises(ValueError, match="knows its images' modalities"):
        small_net(num_ids=2)(replace(make_batch(), modalities=None), 0)
    with pytest.raises(ValueError, match="batches need attributes"):
        small_net(num_ids=2, attribute_weight=1.0, attributes=[["a", 3]])(replace(make_batch(), attributes=None), 0)


def test_losses_stay_in_float32_under_mixed_precision() -> None:
    net = small_net(num_ids=2)
    with torch.autocast("cpu", torch.bfloat16):
        losses = net(make_batch(), 0)
    assert all(loss.dtype == torch.float32 and torch.isfinite(loss) for loss in losses.values())


def test_four_images_are_learned_by_heart() -> None:
    net = small_net(num_ids=2).train()
    batch = Batch(make_images(4), None, torch.tensor([0, 0, 1, 1]), modalities=torch.tensor([0, 1, 0, 1]))
    optimizer = torch.optim.AdamW(net.param_groups(3e-3))
    first = last = 0.0
    for step in range(30):
        losses = net(batch, 0)
        loss = losses["identity"] + losses["cmr"]
        first, last = (loss.item() if step == 0 else first), loss.item()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert last < 0.5 * first
    with torch.no_grad():
        for layer in net.modules():
            if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
                # Thirty steps of moving weights leave running averages behind: take those of the final weights.
                layer.reset_running_stats()
                layer.momentum = None
        net.features(batch.images)
        rows = net.eval().encode_image(batch.images)
    similarity = rows[[0, 2]] @ rows[[1, 3]].T
    assert similarity.argmax(dim=1).tolist() == [0, 1]


def test_a_checkpoint_gives_the_same_vectors_and_no_heads(tmp_path: Path) -> None:
    net = small_net(num_ids=5, **ATTENTIVE).eval()
    wake(net)
    info = {"net": "mcja", "net_config": net.config, "preprocessing": Preprocessing(96, 64), "text": None}
    save(tmp_path / "whole.safetensors", net, info)
    save(tmp_path / "serving.safetensors", net, info, heads=False)
    images = make_images(2)
    for name, heads in (("whole", True), ("serving", False)):
        loaded = load(tmp_path / f"{name}.safetensors").net
        assert isinstance(loaded, MCJA) and (loaded.heads is not None) == heads
        assert torch.equal(loaded.encode_image(images), net.encode_image(images))
    assert asdict(build("mcja", json.loads(json.dumps(asdict(net.config)))).config) == asdict(net.config)  # type: ignore[attr-defined]


@torch.no_grad()
def test_imagenet_weights_come_from_a_file(tmp_path: Path) -> None:
    torch.manual_seed(3)
    resnet = ResNet(8, (1, 4, 6, 1)).eval()
    torch.save({**resnet.state_dict(), "fc.weight": torch.zeros(10, 256)}, tmp_path / "resnet.pth")
    net = small_net(**ATTENTIVE).eval()
    images = make_images(1)
    assert not torch.allclose(net.feature_map(images), resnet(images), atol=1e-3)
    net.load_vision_weights(tmp_path / "resnet.pth")
    torch.testing.assert_close(net.feature_map(images), resnet(images), atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="another width or depth"):
        small_net(width=16, depths=[1, 4, 6, 1]).load_vision_weights(tmp_path / "resnet.pth")


# --- the loss of ranks --------------------------------------------------------------------------------------------


def pav_soft_rank(values: list[float], strength: float) -> tuple[list[float], int]:
    """Soft ranks by pooling adjacent violators, straight from the definition; and the number of blocks."""
    n = len(values)
    theta = [value / strength for value in values]
    order = sorted(range(n), key=lambda i: -theta[i])
    s = [theta[i] for i in order]
    y = [s[i] - (n - i) for i in range(n)]
    blocks: list[list[float]] = []
    for value in y:
        blocks.append([value, 1])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] < blocks[-1][0] / blocks[-1][1]:
            total, size = blocks.pop()
            blocks[-1][0] += total
            blocks[-1][1] += size
    v = [total / size for total, size in blocks for _ in range(int(size))]
    ranks = [0.0] * n
    for place, i in enumerate(order):
        ranks[i] = s[place] - v[place]
    return ranks, len(blocks)


def draw_cosines(rng: np.random.Generator, n: int) -> np.ndarray[Any, Any]:
    """Of a mild, a wide or an extreme distribution, ties included."""
    kind = rng.integers(3)
    if kind == 0:
        return rng.normal(0.3, 0.1, n).clip(-1, 1)
    return rng.uniform(-1, 1, n) if kind == 1 else rng.choice([-1.0, 1.0], n)


def test_the_closed_form_is_the_loss_of_soft_ranks() -> None:
    rng = np.random.default_rng(0)
    for _ in range(600):
        n = int(rng.integers(5, 100))
        cosines, match = draw_cosines(rng, n), np.zeros(n, bool)
        match[rng.permutation(n)[: rng.integers(1, n)]] = True
        ranks, blocks = pav_soft_rank([(1 - c) / 2 for c in cosines], 0.5)
        assert blocks == 1
        expected = sum(abs(r - (1 if m else n)) for r, m in zip(ranks, match, strict=True)) / n
        found = contrast(torch.tensor(cosines)[None], torch.tensor(match)[None])
        assert abs(float(found) - expected) < 1e-9


@pytest.mark.parametrize("strength", [1.0, 0.5, 0.1, 0.02, 0.01, 1e-4])
def test_soft_ranks_equal_another_implementation(strength: float) -> None:
    rng = np.random.default_rng(1)
    pooled = set()
    for n in (1, 2, 3, 7, 64):
        values = rng.uniform(0, 1, (20, n))
        values[0] = 0.5  # all alike
        found = soft_rank(torch.tensor(values), strength)
        for row, own in zip(values.tolist(), found.tolist(), strict=True):
            expected, blocks = pav_soft_rank(row, strength)
            assert own == pytest.approx(expected, abs=1e-9)
            pooled.add(blocks)
    assert (max(pooled) > 1) == (strength < 1)
    with pytest.raises(ValueError, match="must be positive"):
        soft_rank(torch.zeros(1, 3), 0.0)


def test_soft_ranks_at_their_limits_and_their_gradient() -> None:
    values = torch.tensor([[0.3, 0.9, 0.1, 0.5]], dtype=torch.float64)
    torch.testing.assert_close(soft_rank(values, 1e-3), torch.tensor([[2.0, 4.0, 1.0, 3.0]], dtype=torch.float64))
    torch.testing.assert_close(soft_rank(values, 10.0), 2.5 + (values - values.mean()) / 10)
    spread = torch.rand(3, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: soft_rank(v, 0.07), (spread,))


@pytest.mark.parametrize("strength", [0.5, 0.3, 0.02])
@pytest.mark.parametrize("sizes", [(3, 2, 4, 1), (1, 1, 1, 1), (2, 1, 0, 3), (6, 6, 7, 5)])
def test_cmr_equals_a_double_loop(strength: float, sizes: tuple[int, int, int, int]) -> None:
    """sizes: visible images of person 0 and 1, infrared ones of person 0 and 1; some galleries are too small for one
    block, and some queries have no match."""
    modalities = [0] * (sizes[0] + sizes[1]) + [1] * (sizes[2] + sizes[3])
    labels = [0] * sizes[0] + [1] * sizes[1] + [0] * sizes[2] + [1] * sizes[3]
    z = torch.randn(len(labels), 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    of_modality: list[float] = []
    for modality in (0, 1):
        terms: list[float] = []
        for q in range(len(labels)):
            gallery = [g for g in range(len(labels)) if modalities[g] != modality]
            right = [labels[g] == labels[q] for g in gallery]
            if modalities[q] != modality or not any(right) or all(right):
                continue
            distances = [(1 - float(F.cosine_similarity(z[q], z[g], dim=0))) / 2 for g in gallery]
            ranks, _ = pav_soft_rank(distances, strength)
            targets = [1 if match else len(gallery) for match in right]
            terms += [abs(rank - target) for rank, target in zip(ranks, targets, strict=True)]
        if terms:
            of_modality.append(sum(terms) / len(terms))
    found = cmr_loss(z, torch.tensor(labels), torch.tensor(modalities), strength)
    assert float(found) == pytest.approx(sum(of_modality) / len(of_modality), abs=1e-9)


def test_cmr_pulls_every_match_alike() -> None:
    """The finding of the closed form: -2 m / n^2 for a match and 2 p / n^2 for another, wherever they rank."""
    similarity = torch.tensor([[0.9, 0.1, -0.4, 0.8, 0.2, 0.0]], dtype=torch.float64, requires_grad=True)
    match = torch.tensor([[True, True, False, False, False, False]])
    rank_deviation(similarity, match, 0.5).sum().backward()
    expected = torch.tensor([[-2 * 4 / 36] * 2 + [2 * 2 / 36] * 4], dtype=torch.float64)
    torch.testing.assert_close(similarity.grad, expected)
    aware = similarity.detach().clone().requires_grad_()
    rank_deviation(aware, match, 0.1).sum().backward()
    assert aware.grad is not None and len(set(aware.grad[0, 2:].tolist())) > 1


def test_cmr_of_one_modality_is_zero_with_a_gradient() -> None:
    z = torch.randn(4, 3, requires_grad=True)
    loss = cmr_loss(z, torch.tensor([0, 0, 1, 1]), torch.zeros(4, dtype=torch.int64))
    assert loss.item() == 0
    loss.backward()
    assert z.grad is not None and not z.grad.any()
