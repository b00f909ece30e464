"""What every network keeps to, whatever it is made of: see model/interface.py. A new one enters by a line in SMALL."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from model.checkpoint import load, save
from model.interface import Batch, Net, PairNet, TextNet, Tokens
from model.nets import NETS, build
from model.preprocess import Preprocessing
from tests.model import test_axm_net

HEIGHT, WIDTH, LENGTH, WORDS, TEXT_DIM = 96, 32, 24, 50, 24

# A small net of each kind: fit for images of 96 x 32 and texts of 24 words out of 50.
SMALL: dict[str, dict[str, Any]] = {
    "axm_net": {
        "widths": [16, 64, 64, 64],
        "feature_dim": 32,
        "text_dim": TEXT_DIM,
        "stage1_attribute_weight": 1.0,
        "stage1_info_nce_weight": 1.0,
        "stage2_attribute_weight": 1.0,
        "stage2_info_nce_weight": 1.0,
    },
    "ssan": {
        "width": 8,
        "depths": [1, 1, 1, 1],
        "last_stride": 1,
        "parts": 3,
        "feature_dim": 24,
        "relation_dim": 12,
        "vocabulary_size": WORDS,
        "word_dim": 16,
        "dropout": 0.0,
        "stage1_attribute_weight": 1.0,
        "stage1_info_nce_weight": 1.0,
    },
    "mcja": {"width": 8, "depths": [1, 1, 1, 1], "attribute_weight": 1.0},
    "mmet": {
        "image_size": [HEIGHT, WIDTH],
        "width": 32,
        "attention_heads": 2,
        "hidden": 48,
        "image_layers": 2,
        "text_layers": 2,
        "fusion_layers": 1,
        "vocabulary_size": 1200,
        "positions": LENGTH + 2,
        "poolers": False,
        "image_target": "kmeans",
        "image_codes": 12,
        "image_mask": 0.4,
        "text_mask": 0.3,
        "objectives": "all",
        "neck_input": "projection",
        "triplet_across": True,
        "attribute_weight": 1.0,
        "stage2_contrastive_weight": 1.0,
    },
}
HEADS: dict[str, Any] = {"num_ids": 4, "attributes": [["bag", 3], ["hat", 2]]}
# The stages of each net, and the one with all of its losses.
STAGES: dict[str, tuple[int, ...]] = {"axm_net": (0, 1, 2), "ssan": (0, 1), "mcja": (1,), "mmet": (1, 2)}
LAST: dict[str, int] = {name: stages[-1] for name, stages in STAGES.items()}


def awake(name: str) -> Any:
    """A net that has left its start, where layers that begin at zero rightly let no gradient pass."""
    net = make(name, **HEADS)
    if name == "axm_net":
        test_axm_net.wake(net)
    return net


def make(name: str, seed: int = 0, **settings: Any) -> Any:
    torch.manual_seed(seed)
    net = build(name, SMALL[name] | settings)
    assert isinstance(net, nn.Module)
    return net


def images_of(count: int, seed: int = 1) -> Tensor:
    return torch.randn(count, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(seed))


def tokens_of(count: int, seed: int = 0) -> Tokens:
    """Texts of 5, 7, … words with frozen states, zero after their ends."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(LENGTH) < 5 + 2 * torch.arange(count)[:, None]
    ids = torch.randint(1, WORDS, (count, LENGTH), generator=generator) * mask
    return Tokens(ids, mask, torch.randn(count, LENGTH, TEXT_DIM, generator=generator) * mask[:, :, None])


def row(tokens: Tokens, n: int) -> Tokens:
    assert tokens.states is not None
    return Tokens(tokens.ids[n : n + 1], tokens.mask[n : n + 1], tokens.states[n : n + 1])


def batch_of(count: int = 8) -> Batch:
    """Pairs of images of one person each, with all that any net may ask for."""
    labels = torch.arange(count) // 2
    attributes = torch.stack([labels % 3, labels % 2], dim=1)
    attributes[0] = -1
    modalities = torch.arange(count) % 2
    return Batch(images_of(count), tokens_of(count), labels, attributes, tokens_of(count, seed=5), modalities)


every_net = pytest.mark.parametrize("name", sorted(NETS))


def test_every_net_is_held_to_the_contract() -> None:
    assert SMALL.keys() == STAGES.keys() == NETS.keys()


@every_net
@torch.no_grad()
def test_a_batch_of_one_gives_one_unit_row(name: str) -> None:
    net = make(name).eval()
    assert isinstance(net, Net)
    vectors = [net.encode_image(images_of(1))]
    if isinstance(net, TextNet):
        vectors.append(net.encode_text(tokens_of(1)))
    if isinstance(net, PairNet):
        vectors.append(net.encode_pair(images_of(1), tokens_of(1)))
    for vector in vectors:
        assert vector.shape == (1, net.embedding_dim)
        assert vector.dtype == torch.float32
        torch.testing.assert_close(vector.norm(dim=1), torch.ones(1))


@every_net
@torch.no_grad()
def test_a_row_depends_on_its_own_item_alone(name: str) -> None:
    net = make(name).eval()
    close = {"atol": 1e-6, "rtol": 1e-4}
    images = images_of(4)
    rows = net.encode_image(images)
    assert (rows[0] - rows[1]).abs().max() > 1e-4  # what is the same for all would be independent as well
    for n in range(4):
        torch.testing.assert_close(net.encode_image(images[n : n + 1])[0], rows[n], **close)
    torch.testing.assert_close(net.encode_image(torch.cat([images_of(3, seed=9), images]))[3:], rows, **close)
    if not isinstance(net, TextNet):
        return
    tokens = tokens_of(4)
    texts = net.encode_text(tokens)
    assert (texts[0] - texts[1]).abs().max() > 1e-4
    for n in range(4):
        torch.testing.assert_close(net.encode_text(row(tokens, n))[0], texts[n], **close)
    if not isinstance(net, PairNet):
        return
    pairs = net.encode_pair(images, tokens)
    assert (pairs - rows).abs().max() > 1e-4 and (pairs - texts).abs().max() > 1e-4
    for n in range(4):
        torch.testing.assert_close(net.encode_pair(images[n : n + 1], row(tokens, n))[0], pairs[n], **close)


@every_net
@torch.no_grad()
def test_a_row_depends_on_its_own_modality_alone(name: str) -> None:
    """Whatever was read before, and whatever the net is trained or judged on in between."""
    net = make(name, **HEADS).eval()
    net.begin_stage(LAST[name])
    images, tokens = images_of(3), tokens_of(3)
    rows = net.encode_image(images)
    texts = net.encode_text(tokens) if isinstance(net, TextNet) else None
    net(replace(batch_of(), tokens=tokens_of(8, seed=7)), 0)
    assert torch.equal(net.encode_image(images), rows)
    if texts is not None:
        net.encode_image(images_of(2, seed=8))
        assert torch.equal(net.encode_text(tokens), texts)


@every_net
def test_losses_are_named_finite_numbers_in_every_stage(name: str) -> None:
    for stage in STAGES[name]:
        net = make(name, **HEADS)
        net.begin_stage(stage)
        net.train()
        losses = net(batch_of(), 0)
        assert losses
        assert all(isinstance(key, str) for key in losses)
        assert all(loss.dim() == 0 and torch.isfinite(loss) and loss.requires_grad for loss in losses.values())


@every_net
def test_every_trained_parameter_has_a_gradient_and_is_in_one_group(name: str) -> None:
    for stage in STAGES[name]:
        net = awake(name)
        net.begin_stage(stage)
        net.train()
        grouped = [id(parameter) for group in net.param_groups(0.01) for parameter in group["params"]]
        assert sorted(grouped) == sorted(id(p) for p in net.parameters() if p.requires_grad)
        torch.stack(list(net(batch_of(), 0).values())).sum().backward()
        unmoved = []
        for key, parameter in net.named_parameters():
            if not parameter.requires_grad:
                assert parameter.grad is None, key
            elif parameter.grad is not None:
                assert torch.isfinite(parameter.grad).all(), key
            # A bias may be cancelled by what follows it, as by a norm: only weights must move.
            if parameter.requires_grad and parameter.dim() > 1 and (parameter.grad is None or not parameter.grad.any()):
                unmoved.append(key)
        if stage == LAST[name]:
            assert unmoved == []
        else:  # classifiers of losses that come later may wait
            assert all(key.startswith("heads.") for key in unmoved), unmoved


@every_net
def test_four_samples_are_learned_by_heart(name: str) -> None:
    net = make(name, num_ids=4, attributes=[["look", 4]])
    net.begin_stage(LAST[name])
    net.train()
    images, tokens, labels = images_of(4), tokens_of(4), torch.arange(4)
    batch = Batch(images, tokens, labels, labels[:, None], weak=tokens, modalities=labels % 2)
    optimizer = torch.optim.AdamW(net.param_groups(3e-3))
    seen = []
    for _ in range(40):
        loss = torch.stack(list(net(batch, 0).values())).sum()
        seen.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert seen[-1] < 0.7 * seen[0]
    if not isinstance(net, TextNet):
        return
    with torch.no_grad():
        # Forty steps of moving weights leave running averages behind: take those of the final weights.
        for layer in net.modules():
            if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
                layer.reset_running_stats()
                layer.momentum = None
        net(batch, 0)
        net.eval()
        similarity = net.encode_text(tokens) @ net.encode_image(images).T
    assert similarity.argmax(dim=1).tolist() == [0, 1, 2, 3]
    assert similarity.argmax(dim=0).tolist() == [0, 1, 2, 3]


@every_net
@torch.no_grad()
def test_a_checkpoint_gives_the_same_vectors(name: str, tmp_path: Path) -> None:
    net = make(name, seed=4, **HEADS)
    for value in net.state_dict().values():  # statistics too are more than they were made with
        if value.is_floating_point() and value.dim() == 1:
            value.add_(0.1 * torch.rand_like(value))
    net.eval()
    info = {"net": name, "net_config": net.config, "preprocessing": Preprocessing(HEIGHT, WIDTH), "text": None}
    encodings: list[Callable[[Any], Tensor]] = [lambda one: one.encode_image(images_of(3))]
    if isinstance(net, TextNet):
        encodings.append(lambda one: one.encode_text(tokens_of(3)))
    if isinstance(net, PairNet):
        encodings.append(lambda one: one.encode_pair(images_of(3), tokens_of(3)))
    for heads in (True, False):
        save(tmp_path / "net.safetensors", net, info, heads=heads)
        loaded = load(tmp_path / "net.safetensors").net
        assert isinstance(loaded, nn.Module)
        assert heads == any(key.startswith("heads.") for key in loaded.state_dict())
        for encode in encodings:
            assert torch.equal(encode(loaded), encode(net))
