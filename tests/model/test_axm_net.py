"""AXM-Net: its published shapes and sizes, what may influence what, every switch, and supplied weights."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.batching import circular_shift
from model.checkpoint import save
from model.interface import Batch, TextNet, Tokens
from model.nets import build
from model.nets.axm_net import AXMNet, AXMNetConfig, NonLocal, PartBranch
from model.nets.backbones import ChannelGate
from model.preprocess import Preprocessing
from model.text import TextSpec
from tests.model.osnet_reference import OSNet, random_osnet

SMALL: dict[str, Any] = {"widths": [16, 64, 64, 64], "feature_dim": 32, "text_dim": 24}
HEADS: dict[str, Any] = {"num_ids": 5, "attributes": [["bag", 3], ["hat", 2]]}


def small_net(**settings: Any) -> AXMNet:
    torch.manual_seed(0)
    net = build("axm_net", SMALL | settings)
    assert isinstance(net, AXMNet)
    return net


def make_tokens(batch: int, channels: int = 24, length: int = 56, seed: int = 0) -> Tokens:
    """Random texts of 5, 6, … tokens, zero after the end."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(length) < torch.arange(5, 5 + batch)[:, None]
    ids = torch.randint(1, 30522, (batch, length), generator=generator) * mask
    return Tokens(ids, mask, torch.randn(batch, length, channels, generator=generator) * mask[:, :, None])


def make_images(batch: int, height: int = 96, width: int = 32, seed: int = 1) -> Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


def make_batch(batch: int = 6) -> Batch:
    attributes = torch.stack([torch.arange(batch) % 3, torch.arange(batch) % 2], dim=1)
    attributes[0] = -1
    return Batch(make_images(batch), make_tokens(batch), torch.arange(batch) // 2, attributes)


def count(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def wake(net: AXMNet) -> None:
    """Away from the start, where zero-initialised layers and hidden units below zero rightly have no gradient."""
    for module in net.modules():
        if isinstance(module, ChannelGate):
            module.reduce.weight.data.abs_()
        if isinstance(module, NonLocal):
            nn.init.ones_(module.norm.weight)
    if net.config.tsa == "gc":
        nn.init.normal_(net.attention.expand.weight)  # type: ignore[union-attr, arg-type]


@pytest.fixture(scope="module")
def full_net() -> AXMNet:
    torch.manual_seed(0)
    return AXMNet(AXMNetConfig()).eval()


# --- the eight acceptance tests -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((384, 128), [(64, 96, 32), (256, 48, 16), (384, 24, 8), (512, 24, 8), (512, 24, 8)]),
        ((224, 224), [(64, 56, 56), (256, 28, 28), (384, 14, 14), (512, 14, 14), (512, 14, 14)]),
    ],
)
@torch.no_grad()
def test_acceptance_1_shapes_of_table_1(
    full_net: AXMNet, size: tuple[int, int], expected: list[tuple[int, int, int]]
) -> None:
    stages = ["stem", "transitions.1", "transitions.3", "transitions.5", "final"]
    seen: list[tuple[int, ...]] = []
    hooks = [
        tower.get_submodule(stage).register_forward_hook(lambda _m, _i, out: seen.append(tuple(out.shape[1:])))
        for tower in (full_net.vision, full_net.text)
        for stage in stages
    ]
    image = full_net.encode_image(make_images(1, *size))
    text = full_net.encode_text(make_tokens(1, 768))
    for hook in hooks:
        hook.remove()
    assert seen[:5] == expected
    assert seen[5:] == [(64, 56), (256, 28), (384, 14), (512, 14), (512, 14)]
    assert image.shape == text.shape == (1, 512)


def test_acceptance_2_parameter_counts(full_net: AXMNet) -> None:
    assert count(full_net.vision) == 1_897_792
    assert count(full_net.gates) == 8_036
    assert count(full_net.vision, full_net.gates) == 1_905_828 == count(OSNet()) - count(OSNet().fc, OSNet().classifier)
    assert count(full_net.text) == 2_001_280
    assert count(full_net.text.stem) == 147_584  # type: ignore[arg-type]
    assert count(full_net.attention) == 526_080
    assert count(full_net.part_branch.scale_mlps) == 33_312
    for of_image, of_text in zip(full_net.vision_gates(), full_net.caption_gates(), strict=True):
        assert of_image is not None and of_image is of_text


@pytest.mark.parametrize("size", [(160, 64), (96, 80)])
@torch.no_grad()
def test_acceptance_3_the_vision_tower_is_osnet(full_net: AXMNet, tmp_path: Path, size: tuple[int, int]) -> None:
    reference = random_osnet()
    torch.save(reference.state_dict(), tmp_path / "osnet.pth")
    net = AXMNet(AXMNetConfig()).eval()
    net.load_vision_weights(tmp_path / "osnet.pth")
    images = make_images(2, *size)
    expected = reference.maps(images)
    assert float(expected.std()) > 0.1
    torch.testing.assert_close(net.vision(images, net.vision_gates()), expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_acceptance_4_a_vector_depends_on_nothing_but_its_item() -> None:
    net = small_net().eval()
    images, tokens = make_images(4), make_tokens(4)
    vectors, texts = net.encode_image(images), net.encode_text(tokens)
    close = {"atol": 1e-6, "rtol": 1e-5}
    for i in range(4):
        alone = Tokens(tokens.ids[i : i + 1], tokens.mask[i : i + 1], tokens.states[i : i + 1])  # type: ignore[index]
        torch.testing.assert_close(net.encode_image(images[i : i + 1])[0], vectors[i], **close)
        torch.testing.assert_close(net.encode_text(alone)[0], texts[i], **close)
    mixed = net.encode_image(torch.cat([make_images(3, seed=9), images]))
    torch.testing.assert_close(mixed[3:], vectors, **close)
    # Beside any captions: the features that the losses see are those that are indexed.
    for seed in (0, 5):
        (v_global, v_part), _ = net.pair_features(images, make_tokens(4, seed=seed))
        assert v_global is not None
        torch.testing.assert_close(F.normalize(v_global + v_part), vectors, **close)


@pytest.mark.parametrize("stage", [1, 2])
def test_acceptance_5_captions_move_the_image_gates_in_stage_2_only(stage: int) -> None:
    net, images = small_net(num_ids=5), make_images(4)
    wake(net)
    net.begin_stage(stage)
    net.train()
    before_gates = [p.detach().clone() for p in net.gates.parameters()]
    before_image = net.eval().encode_image(images).detach()
    net.train()
    optimizer = torch.optim.SGD(net.param_groups(0.1), lr=0.1, momentum=0.9, weight_decay=5e-4)
    assert net.heads is not None and net.heads.identity is not None
    text_only = F.cross_entropy(net.heads.identity(net.encode_text(make_tokens(4))), torch.arange(4))
    optimizer.zero_grad()
    (100 * text_only).backward()
    optimizer.step()
    moved = [not torch.equal(a, b) for a, b in zip(before_gates, net.gates.parameters(), strict=True)]
    after_image = net.eval().encode_image(images).detach()
    if stage == 2:
        assert all(moved)
        assert float((after_image - before_image).abs().max()) > 1e-6
    else:
        assert not any(moved)
        assert torch.equal(after_image, before_image)


@torch.no_grad()
def test_acceptance_6_gates_are_strictly_inside_0_and_1(full_net: AXMNet) -> None:
    seen: list[Tensor] = []
    gates = [*full_net.vision_gates(), *full_net.part_branch.scale_mlps]
    assert len(gates) == 7
    hooks = [gate.register_forward_hook(lambda _m, _i, out: seen.append(out)) for gate in gates if gate is not None]
    full_net.encode_image(make_images(2))
    full_net.encode_text(make_tokens(2, 768))
    for hook in hooks:
        hook.remove()
    assert len(seen) == 13  # six blocks of two modalities, and the strips
    assert all(((out > 0) & (out < 1)).all() for out in seen)
    assert any(float(out.std()) > 0 for out in seen)


@pytest.mark.parametrize("tsa", ["nonlocal", "gc"])
@torch.no_grad()
def test_acceptance_6_attention_starts_as_the_identity(tsa: str) -> None:
    net, y = small_net(tsa=tsa).eval(), torch.randn(3, 64, 14)
    assert torch.equal(net.attention(y), y)
    wake(net)
    assert not torch.equal(net.attention(y), y)


@torch.no_grad()
def test_acceptance_6_part_branch_without_scaling_is_convolution_and_pooling() -> None:
    branch = small_net().eval().part_branch
    x = torch.randn(2, 64, 7, 3)
    for mlp in branch.scale_mlps:
        nn.init.zeros_(mlp.expand.weight)  # type: ignore[union-attr, arg-type]
        nn.init.constant_(mlp.expand.bias, 50.0)  # type: ignore[union-attr, arg-type]  # sigmoid(50) is 1
    plain = branch.project(branch.fuse(x).flatten(2).max(dim=2).values)
    torch.testing.assert_close(branch(x), plain, atol=1e-5, rtol=1e-5)
    off = small_net(vfc=False).eval().part_branch
    off.load_state_dict({name: t for name, t in branch.state_dict().items() if not name.startswith("scale_mlps")})
    torch.testing.assert_close(off(x), plain, atol=1e-5, rtol=1e-5)


def test_acceptance_8_circular_shift_undoes_itself() -> None:
    x, shifts = torch.randn(5, 56, 3), torch.tensor([0, 1, 20, 55, 7])
    shifted = circular_shift(x, shifts)
    assert torch.equal(shifted[2, 25], x[2, 5])
    assert torch.equal(circular_shift(shifted, 56 - shifts), x)


# --- parts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", ["max", "avg"])
@pytest.mark.parametrize("mlp", ["shared", "separate"])
@torch.no_grad()
def test_strip_scalings_equal_a_loop_over_strips(pooling: str, mlp: str) -> None:
    branch = small_net(strip_pooling=pooling, vfc_mlp=mlp, parts=4).part_branch
    for height, rows in ((8, [2, 2, 2, 2]), (10, [3, 3, 2, 2]), (4, [1, 1, 1, 1])):
        x = torch.randn(2, 64, height, 3)
        scaling, top = branch.scalings(x), 0
        assert scaling.shape == (2, 64, height, 1)
        for k, size in enumerate(rows):
            strip = x[:, :, top : top + size].flatten(2)
            pooled = strip.max(dim=2).values if pooling == "max" else strip.mean(dim=2)
            expected = branch.scale_mlps[0 if mlp == "shared" else k](pooled)
            for row in range(top, top + size):
                torch.testing.assert_close(scaling[:, :, row, 0], expected)
            top += size


def test_too_few_rows_for_the_strips_are_refused() -> None:
    with pytest.raises(ValueError, match="5 rows, too few for 6 strips: use images at least 96 pixels high"):
        small_net().eval().encode_image(make_images(1, 80, 32))


@pytest.mark.parametrize(("drop", "share"), [("strip", 2 / 12), ("block", 4 * 2 / (12 * 4))])
@torch.no_grad()
def test_feature_drop_zeroes_one_region_in_training_only(drop: str, share: float) -> None:
    branch: PartBranch = small_net(feature_drop=drop).part_branch
    x = torch.rand(50, 64, 12, 4) + 0.5
    keep = branch.random_keep(x).expand(50, 1, 12, 4)
    assert set(keep.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close((1 - keep).mean(dim=(1, 2, 3)), torch.full((50,), share))
    assert len({tuple(sample.flatten().tolist()) for sample in keep}) > 2  # drawn per sample
    branch.eval()
    assert torch.equal(branch(x), branch(x))
    branch.train()
    branch.project.eval()
    branch.fuse.eval()
    assert not torch.equal(branch(x), branch(x))


@torch.no_grad()
def test_non_local_block_equals_a_loop_over_positions() -> None:
    for scaled in (False, True):
        block = small_net(tsa_scaled=scaled).eval().attention
        assert isinstance(block, NonLocal)
        nn.init.ones_(block.norm.weight)
        y = torch.randn(1, 64, 5)
        q, k, v = (layer(y)[0] for layer in (block.query, block.key, block.value))
        rows = []
        for i in range(5):
            logits = torch.stack([q[:, i] @ k[:, j] for j in range(5)]) / (32**0.5 if scaled else 1)
            weights = torch.exp(logits) / torch.exp(logits).sum()
            rows.append(sum(weights[j] * v[:, j] for j in range(5)))
        expected = y + block.norm(block.out(torch.stack(rows, dim=1)[None]))
        torch.testing.assert_close(block(y), expected, atol=1e-5, rtol=1e-5)


# --- switches -----------------------------------------------------------------------------------------------------

SWITCHES: list[dict[str, Any]] = [
    {},
    *({"align": mode} for mode in ("none", "separate", "joint")),
    {"align": [True, True, False, False, True, True]},
    {"align": ["none", "separate", "shared", "joint", "shared", "none"]},
    {"vfc": False},
    {"vfc": False, "vfc_fuse": "vector"},
    {"vfc_fuse": "vector", "part_pooling": "avg", "parts": 4},
    {"vfc_mlp": "separate", "strip_pooling": "avg"},
    *({"parts": parts} for parts in (1, 2, 3)),
    *({"feature_drop": drop} for drop in ("block", "strip")),
    {"global_branch": False},
    {"global_pooling": "max"},
    *({"tsa": tsa} for tsa in ("gc", "off")),
    {"tsa_scaled": True},
    *({"fc_layers": layers} for layers in ("one", "two")),
    {"unified_visual": True},
    {"unified_visual": True, "global_branch": False},
    {"text_stem": "separable"},
    {"text_input": "learned", "vocabulary_size": 100},
    {"negatives": "random", "positives": "hardest", "affinity_mean": "plain"},
    {"negatives": "semi_hard", "margin": 2.0},
    {"part_branch": False},
    {"part_branch": False, "align": "separate", "text_tower": "bag"},
    {"align": "none", "text_tower": "bag", "text_input": "learned", "vocabulary_size": 100},
]


@pytest.mark.parametrize("switch", SWITCHES, ids=lambda s: json.dumps(s).replace('"', "") if s else "default")
def test_every_switch_builds_encodes_and_trains_all_its_parameters(switch: dict[str, Any]) -> None:
    net = small_net(**switch, **HEADS, stage2_attribute_weight=1.0, stage2_info_nce_weight=1.0)
    rebuilt = build("axm_net", json.loads(json.dumps(asdict(net.config))))
    assert isinstance(rebuilt, AXMNet) and rebuilt.config == net.config
    assert isinstance(net, TextNet)
    net.eval()
    images, tokens = make_images(3), make_tokens(3)
    if "joint" not in net.config.align_modes:
        for rows in (net.encode_image(images), net.encode_text(tokens)):
            assert rows.shape == (3, net.embedding_dim)
            torch.testing.assert_close(rows.norm(dim=1), torch.ones(3))
    assert net.pair_similarity(images, tokens).abs().max() <= 1 + 1e-6

    net.train()
    wake(net)
    net.begin_stage(2)
    losses = net(make_batch(), epoch=0)
    assert set(losses) == {"identity", "triplet", "affinity", "attribute", "info_nce"}
    assert all(loss.dim() == 0 and torch.isfinite(loss) for loss in losses.values())
    torch.stack(list(losses.values())).sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        # Biases of keys and values are cancelled by the softmax and by batch norm: only weights must move.
        assert parameter.dim() < 2 or parameter.grad.any(), name


@pytest.mark.parametrize("size", [(384, 128), (224, 224), (256, 96), (192, 64), (160, 64)])
@torch.no_grad()
def test_every_size_with_six_rows_encodes(size: tuple[int, int]) -> None:
    rows = small_net().eval().encode_image(make_images(2, *size))
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(2))


@torch.no_grad()
def test_one_gate_or_two() -> None:
    shared, separate, none = small_net(), small_net(align="separate"), small_net(align="none")
    assert count(separate) == count(shared) + count(shared.gates)
    assert count(none) == count(shared) - count(shared.gates)
    for of_image, of_text in zip(separate.vision_gates(), separate.caption_gates(), strict=True):
        assert of_image is not of_text


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="no net called 'ssam'"):
        build("ssam", {})
    with pytest.raises(ValueError, match="has no setting called kernel"):
        build("axm_net", {"kernel": 3})
    with pytest.raises(ValueError, match="tsa must be one of nonlocal, gc, off, not 'yes'"):
        AXMNetConfig(tsa="yes")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="align must be one or 6 of"):
        AXMNetConfig(align=(True, False))
    with pytest.raises(ValueError, match="parts must be at least 1"):
        AXMNetConfig(parts=0)
    with pytest.raises(ValueError, match="widths must be four"):
        AXMNetConfig(widths=(64, 256))  # type: ignore[arg-type]


# --- the plain baseline -------------------------------------------------------------------------------------------


@torch.no_grad()
def test_without_the_part_branch_an_image_is_its_global_feature() -> None:
    net, whole = small_net(part_branch=False).eval(), small_net().eval()
    assert net.part_branch is None
    assert not any(name.startswith("part_branch") for name in net.state_dict())
    kept = {name: tensor for name, tensor in whole.state_dict().items() if not name.startswith("part_branch.")}
    net.load_state_dict(kept)
    images = make_images(2)
    features, _ = whole.pair_features(images, make_tokens(2))
    torch.testing.assert_close(net.encode_image(images), F.normalize(features[0], dim=1))
    with pytest.raises(ValueError, match="global branch, the part branch, or both"):
        AXMNetConfig(global_branch=False, part_branch=False)


@torch.no_grad()
def test_a_bag_of_words_is_blind_to_their_order_and_to_padding() -> None:
    bag, tower = small_net(text_tower="bag", align="separate").eval(), small_net(align="separate").eval()
    tokens = make_tokens(3)
    order = torch.randperm(56, generator=torch.Generator().manual_seed(2))
    assert tokens.states is not None
    shuffled = Tokens(tokens.ids[:, order], tokens.mask[:, order], tokens.states[:, order])
    torch.testing.assert_close(bag.encode_text(shuffled), bag.encode_text(tokens))
    assert not torch.allclose(tower.encode_text(shuffled), tower.encode_text(tokens), atol=1e-3)
    words = tokens.states[0, :5].mean(dim=0, keepdim=True)  # the first text has five words
    torch.testing.assert_close(bag.encode_text(tokens)[:1], F.normalize(bag.text_project(words), dim=1))
    assert bag.text is None and not len(bag.text_gates)


@pytest.mark.parametrize("align", ["shared", "joint", ("separate",) * 5 + ("shared",)])
def test_a_bag_of_words_shares_no_gates(align: Any) -> None:
    with pytest.raises(ValueError, match="no blocks to align"):
        AXMNetConfig(text_tower="bag", align=align)


# --- joint: a diagnostic --------------------------------------------------------------------------------------------


@torch.no_grad()
def test_joint_refuses_what_could_be_indexed_and_scores_pairs() -> None:
    net = small_net(align="joint").eval()
    images, tokens = make_images(2), make_tokens(2)
    with pytest.raises(ValueError, match=r"encode_image is impossible with align=.*pair_similarity"):
        net.encode_image(images)
    with pytest.raises(ValueError, match="encode_text is impossible"):
        net.encode_text(tokens)
    here, there = net.pair_features(images, tokens), net.pair_features(images, make_tokens(2, seed=5))
    assert not torch.allclose(here[1], there[1])  # the image's own vector has changed with its caption


@torch.no_grad()
def test_pair_similarity_is_the_inner_product_of_the_encodings() -> None:
    net = small_net().eval()
    images, tokens = make_images(3), make_tokens(3)
    expected = (net.encode_image(images) * net.encode_text(tokens)).sum(dim=1)
    torch.testing.assert_close(net.pair_similarity(images, tokens), expected)


@torch.no_grad()
def test_two_towers_in_step_equal_two_towers_apart() -> None:
    """The joint path with the image's and the text's gates block-diagonal in one joint gate is AXM-Net itself."""
    shared, joint = small_net().eval(), small_net(align="joint").eval()
    state = shared.state_dict()
    for name, target in joint.state_dict().items():
        if not name.startswith("gates."):
            target.copy_(state[name])
        elif name.endswith("weight"):
            target.copy_(torch.block_diag(state[name], state[name]))
        else:
            target.copy_(torch.cat([state[name], state[name]]))
    images, tokens = make_images(2), make_tokens(2)
    expected = shared.pair_similarity(images, tokens)
    torch.testing.assert_close(joint.pair_similarity(images, tokens), expected, atol=1e-5, rtol=1e-5)


# --- supplied weights ---------------------------------------------------------------------------------------------


def test_osnet_files_come_with_prefixes_and_wrappers(tmp_path: Path) -> None:
    reference = random_osnet(1, (16, 64, 64, 64))
    wrapped = {"state_dict": {f"module.{name}": tensor for name, tensor in reference.state_dict().items()}, "epoch": 9}
    torch.save(wrapped, tmp_path / "wrapped.pth.tar")
    net = small_net().eval()
    net.load_vision_weights(tmp_path / "wrapped.pth.tar")
    images = make_images(1)
    torch.testing.assert_close(net.vision(images, net.vision_gates()), reference.maps(images), atol=1e-5, rtol=1e-5)
    small_net(align="none").load_vision_weights(tmp_path / "wrapped.pth.tar")  # gates are left aside
    small_net(align="joint").load_vision_weights(tmp_path / "wrapped.pth.tar")


def test_unfit_osnet_files_are_refused_and_change_nothing(tmp_path: Path) -> None:
    net = small_net()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    torch.save(OSNet((16, 64, 96, 64)).state_dict(), tmp_path / "wide.pth")
    with pytest.raises(ValueError, match=r"conv3\.0\.conv1\.conv\.weight has shape .* but this net needs"):
        net.load_vision_weights(tmp_path / "wide.pth")
    state = OSNet((16, 64, 64, 64)).state_dict()
    del state["conv5.bn.running_var"]
    torch.save(state, tmp_path / "short.pth")
    with pytest.raises(ValueError, match=r"lacks conv5\.bn\.running_var"):
        net.load_vision_weights(tmp_path / "short.pth")
    (tmp_path / "noise.pth").write_bytes(b"not weights at all")
    with pytest.raises(ValueError, match="cannot be read as safetensors or PyTorch weights"):
        net.load_vision_weights(tmp_path / "noise.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="does not hold a dictionary of named tensors"):
        net.load_vision_weights(tmp_path / "list.pth")
    with pytest.raises(ValueError, match="There is no weights file"):
        net.load_vision_weights(tmp_path / "none.pth")
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


def test_a_checkpoint_gives_its_vision_tower_and_nothing_else(tmp_path: Path) -> None:
    torch.manual_seed(3)
    trained = build("axm_net", SMALL | HEADS)
    assert isinstance(trained, AXMNet)
    info = {"net": "axm_net", "net_config": trained.config, "preprocessing": Preprocessing(96, 32), "text": TextSpec()}
    save(tmp_path / "tower.safetensors", trained, info)
    net = small_net(num_ids=7)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    net.load_vision_weights(tmp_path / "tower.safetensors")
    theirs = trained.state_dict()
    for name, tensor in net.state_dict().items():
        taken = name.startswith(("vision.", "gates."))
        assert torch.equal(tensor, theirs[name] if taken else before[name]), name
    different = [name for name in before if not torch.equal(before[name], net.state_dict()[name])]
    assert len(different) > 50
    images = make_images(2)
    net.eval()
    trained.eval()
    with torch.no_grad():
        torch.testing.assert_close(
            net.vision(images, net.vision_gates()), trained.vision(images, trained.vision_gates())
        )

    without = small_net(align="none")
    without.load_vision_weights(tmp_path / "tower.safetensors")
    assert torch.equal(without.state_dict()["vision.final.0.weight"], theirs["vision.final.0.weight"])


def test_a_tower_of_another_width_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    wide = build("axm_net", SMALL | {"widths": [16, 64, 96, 64]})
    info = {"net": "axm_net", "net_config": wide.config, "preprocessing": Preprocessing(96, 32), "text": TextSpec()}  # type: ignore[attr-defined]
    save(tmp_path / "wide.safetensors", wide, info)
    net = small_net()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with pytest.raises(ValueError, match=r"wide\.safetensors: \S+ is of shape .* but this net needs"):
        net.load_vision_weights(tmp_path / "wide.safetensors")
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
