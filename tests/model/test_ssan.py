"""SSAN: its published shapes and sizes, every part of it against a naive loop, its switches and its weights."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from model.batching import shift_tokens
from model.checkpoint import save
from model.interface import Batch, TextNet, Tokens
from model.losses import similarity_matrix
from model.losses_ssan import adaptive_margin, compound_ranking_loss
from model.nets import build
from model.nets.resnet import ResNet
from model.nets.ssan import SSAN, Features, SSANConfig
from model.preprocess import Preprocessing
from model.text import TextSpec

SMALL: dict[str, Any] = {
    "width": 4,
    "depths": [1, 1, 1, 1],
    "last_stride": 1,
    "parts": 3,
    "feature_dim": 24,
    "relation_dim": 12,
    "vocabulary_size": 50,
    "word_dim": 16,
}
HEADS: dict[str, Any] = {"num_ids": 5, "attributes": [["bag", 3], ["hat", 2]]}
LENGTH = 20


def small_net(**settings: Any) -> SSAN:
    torch.manual_seed(0)
    net = build("ssan", SMALL | settings)
    assert isinstance(net, SSAN)
    return net


def make_tokens(batch: int, seed: int = 0, words: int = 50) -> Tokens:
    """Random texts of 4, 6, 8, … words, zero after the end."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(LENGTH) < 4 + 2 * torch.arange(batch)[:, None]
    return Tokens(torch.randint(1, words, (batch, LENGTH), generator=generator) * mask, mask, None)


def make_images(batch: int, height: int = 96, width: int = 32, seed: int = 1) -> Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


def make_batch(batch: int = 6) -> Batch:
    attributes = torch.stack([torch.arange(batch) % 3, torch.arange(batch) % 2], dim=1)
    attributes[0] = -1
    labels = torch.arange(batch) // 2
    return Batch(make_images(batch), make_tokens(batch), labels, attributes, make_tokens(batch, seed=9))


def count(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


# --- sizes and shapes ---------------------------------------------------------------------------------------------


def test_published_sizes() -> None:
    with torch.device("meta"):
        net = SSAN(SSANConfig(vocabulary_size=5000))
        trained = SSAN(SSANConfig(num_ids=11_000))
    assert count(net) == 97_858_624
    assert count(net.vision) == 23_508_032
    assert count(net.text.lstm) == 41_943_040
    assert count(net.text) - count(net.text.lstm) == 2 * 5000 * 512
    assert count(net.parts) == 12_582_912
    assert count(net.whole) == 2_097_152
    assert count(net.word_attention) == 12_288
    assert trained.heads is not None and trained.heads.identity is not None
    assert count(trained.heads.identity) == 112_783_000
    assert net.embedding_dim == 1024 + 6144 + 3072 == 10_240
    with torch.device("meta"):  # the formula prints a bare matrix where the code has a norm
        assert count(SSAN(SSANConfig(relation_norm=False))) == 97_858_624 - 6 * 1024 * 2


@torch.no_grad()
def test_shapes_at_the_published_size() -> None:
    net = small_net(width=64, last_stride=2, parts=6, feature_dim=32, relation_dim=16).eval()
    seen: list[tuple[int, ...]] = []
    net.vision.register_forward_hook(lambda _m, _i, out: seen.append(tuple(out.shape)))
    net.text.register_forward_hook(lambda _m, _i, out: seen.extend(tuple(states.shape) for states in out))
    image, text = net.image_features(make_images(1, 384, 128)), net.text_features(make_tokens(2))
    assert seen == [(1, 2048, 12, 4), (2, 6, 2048), (2, 6, 2048), (2, 6)]
    assert [tuple(level.shape) for level in image] == [(1, 32), (1, 6, 32), (1, 6, 16)]
    assert [tuple(level.shape) for level in text] == [(2, 32), (2, 6, 32), (2, 6, 16)]


def test_too_few_rows_for_the_parts_are_refused() -> None:
    with pytest.raises(ValueError, match="2 rows, too few for 3 parts: use images at least 48 pixels high"):
        small_net().eval().encode_image(make_images(1, 32, 32))


# --- features -----------------------------------------------------------------------------------------------------


def leaky(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, x / 4)


@torch.no_grad()
def test_image_levels_equal_loops_over_cells() -> None:
    net = small_net().eval()
    images = make_images(2)
    feature_map = net.vision(images)  # (2, 128, 6, 2)
    assert feature_map.shape[2:] == (6, 2)
    features = net.image_features(images)
    for b in range(2):
        largest = torch.stack([feature_map[b, :, row, column] for row in range(6) for column in range(2)]).amax(dim=0)
        torch.testing.assert_close(features.whole[b], net.whole.weight @ largest)
        for k in range(3):
            cells = [feature_map[b, :, row, column] for row in (2 * k, 2 * k + 1) for column in range(2)]
            part = leaky(net.parts.weight[k].T @ torch.stack(cells).amax(dim=0))
            torch.testing.assert_close(features.parts[b, k], part)


@pytest.mark.parametrize("max_sees_padding", [False, True])
@torch.no_grad()
def test_text_levels_equal_loops_over_words(max_sees_padding: bool) -> None:
    """Each text alone, through an LSTM that is packed to its length."""
    net = small_net(max_sees_padding=max_sees_padding).eval()
    tokens = make_tokens(9)  # the last text fills all the room there is
    assert tokens.mask[-1].all() and not tokens.mask[-2].all()
    features = net.text_features(tokens)
    for b in range(9):
        length = int(tokens.mask[b].sum())
        states = []
        for table in (net.text.words_of_whole, net.text.words_of_parts):
            packed = pack_padded_sequence(table(tokens.ids[b : b + 1]), torch.tensor([length]), batch_first=True)
            both = pad_packed_sequence(net.text.lstm(packed)[0], batch_first=True)[0][0]
            states.append((both[:, :128] + both[:, 128:]) / 2)  # (length, 128)
        whole, parts = states
        largest = whole.amax(dim=0)
        if max_sees_padding and length < LENGTH:
            largest = torch.stack([largest, torch.zeros(128)]).amax(dim=0)
        close = {"atol": 1e-5, "rtol": 1e-4}
        torch.testing.assert_close(features.whole[b], net.whole.weight @ largest, **close)
        for k in range(3):
            looks = [1 / (1 + torch.exp(-net.word_attention.weight[k] @ word)) for word in parts]
            seen = torch.stack([look * word for look, word in zip(looks, parts, strict=True)]).amax(dim=0)
            torch.testing.assert_close(features.parts[b, k], leaky(net.parts.weight[k].T @ seen), **close)
            attention = net.attention(tokens)[b, :, k]
            torch.testing.assert_close(attention[:length], torch.stack(looks), **close)
            assert not attention[length:].any()


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("values", ["plain", "unit"])
@torch.no_grad()
def test_related_parts_equal_a_loop_over_pairs(values: str, norm: bool) -> None:
    block = small_net(relation_values=values, relation_norm=norm).eval().relation
    if block.norm is not None:
        block.norm.running_mean.normal_()
        block.norm.running_var.uniform_(0.5, 2)
    x = torch.randn(2, 3, 24)
    found = block(x)
    for b in range(2):
        query = [leaky(block.query.weight[k].T @ x[b, k]) for k in range(3)]
        key = [leaky(block.key.weight[k].T @ x[b, k]) for k in range(3)]
        contexts = []
        for k in range(3):
            others = [i for i in range(3) if i != k]
            weights = torch.stack([torch.exp(F.cosine_similarity(query[k], key[i], dim=0)) for i in others])
            taken = [key[i] / key[i].norm() if values == "unit" else key[i] for i in others]
            total = sum(w * v for w, v in zip(weights / weights.sum(), taken, strict=True))
            contexts.append(block.gather.weight[k].T @ total)
        for k, context in enumerate(contexts):
            if block.norm is not None:
                channels = slice(24 * k, 24 * (k + 1))
                mean, var = block.norm.running_mean[channels], block.norm.running_var[channels]
                context = leaky((context - mean) / torch.sqrt(var + 1e-5))
            expected = block.out.weight[k].T @ (x[b, k] + context)
            torch.testing.assert_close(found[b, k], expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_the_index_vector_adds_up_the_three_cosines() -> None:
    net = small_net().eval()
    images, tokens = make_images(3), make_tokens(4)
    image, text = net.image_features(images), net.text_features(tokens)
    found = net.encode_image(images) @ net.encode_text(tokens).T
    for i in range(3):
        for j in range(4):
            levels = zip(image, text, strict=True)
            cosines = [F.cosine_similarity(a[i].flatten(), b[j].flatten(), dim=0) for a, b in levels]
            assert float(found[i, j]) == pytest.approx(float(sum(cosines)) / 3, abs=1e-5)


@torch.no_grad()
def test_texts_without_words_are_unit_and_all_alike() -> None:
    net = small_net().eval()
    tokens = make_tokens(3)
    nothing = Tokens(torch.zeros_like(tokens.ids), torch.zeros_like(tokens.mask), None)
    rows = net.encode_text(nothing)
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(3))
    assert torch.equal(rows[0], rows[2])
    beside = Tokens(torch.cat([tokens.ids, nothing.ids]), torch.cat([tokens.mask, nothing.mask]), None)
    torch.testing.assert_close(net.encode_text(beside)[3:], rows)


@torch.no_grad()
def test_a_circular_shift_that_does_not_break_a_text_changes_nothing() -> None:
    net = small_net().eval()
    tokens = make_tokens(3)
    shifted = shift_tokens(tokens, torch.tensor([0, 5, 12]))
    assert shifted.mask[2, 12:].all() and not shifted.mask[2, :12].any()
    torch.testing.assert_close(net.encode_text(shifted), net.encode_text(tokens))


def test_words_beyond_the_table_are_refused() -> None:
    with pytest.raises(ValueError, match="knows 50 words: it reads texts by a vocabulary of its own"):
        small_net().encode_text(make_tokens(2, words=30_000))


def test_parts_and_words_of_padding_stay_zero_in_training() -> None:
    net = small_net(**HEADS)
    net.begin_stage(1)
    torch.stack(list(net(make_batch(), 0).values())).sum().backward()
    for table in (net.text.words_of_whole, net.text.words_of_parts):
        assert not table.weight[0].any()
        assert table.weight.grad is not None and not table.weight.grad[0].any()


# --- switches -----------------------------------------------------------------------------------------------------

SWITCHES: list[dict[str, Any]] = [
    {},
    {"relation_values": "unit"},
    {"relation_norm": False},
    {"max_sees_padding": True},
    {"encoder_dim": 40},
    {"parts": 6},
    {"depths": [1, 2, 1, 1]},
    *({"negatives": negatives, "reduction": "mean"} for negatives in ("hardest", "random")),
    {"weak_negatives": "weak", "absolute_margin": True, "least_weak_margin": 0.16, "fixed_margin_epochs": 5},
    {"label_smoothing": 0.1, "part_weight": 1.0, "dropout": 0.0},
]


@pytest.mark.parametrize("switch", SWITCHES, ids=lambda s: json.dumps(s).replace('"', "") if s else "default")
def test_every_switch_builds_encodes_and_trains_all_its_parameters(switch: dict[str, Any]) -> None:
    dense = {"stage1_attribute_weight": 1.0, "stage1_info_nce_weight": 1.0}
    net = small_net(**({"margin": 2.0} | dense | HEADS | switch))
    rebuilt = build("ssan", json.loads(json.dumps(asdict(net.config))))
    assert isinstance(rebuilt, SSAN) and rebuilt.config == net.config
    assert isinstance(net, TextNet)
    net.eval()
    for rows in (net.encode_image(make_images(3)), net.encode_text(make_tokens(3))):
        assert rows.shape == (3, net.embedding_dim)
        torch.testing.assert_close(rows.norm(dim=1), torch.ones(3))
    net.train()
    losses = net(make_batch(), epoch=0)
    assert set(losses) == {"identity", "ranking", "attribute", "info_nce"}
    assert all(loss.dim() == 0 and torch.isfinite(loss) for loss in losses.values())
    torch.stack(list(losses.values())).sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"parts": 1}, "parts must be at least 2"),
        ({"vocabulary_size": 1}, "room for a word"),
        ({"relation_values": "norm"}, "relation_values must be one of plain, unit"),
        ({"last_stride": 3}, "last_stride must be one of 1, 2"),
        ({"negatives": "easy"}, "negatives must be one of hardest"),
    ],
)
def test_impossible_settings_are_refused(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_net(**setting)


# --- losses -------------------------------------------------------------------------------------------------------


def features_of(net: SSAN, batch: Batch) -> list[Features]:
    assert batch.tokens is not None and batch.weak is not None
    return [net.image_features(batch.images), net.text_features(batch.tokens), net.text_features(batch.weak)]


@torch.no_grad()
def test_identity_loss_equals_a_loop_over_slots() -> None:
    net = small_net(num_ids=5).eval()
    batch = make_batch()
    assert net.heads is not None and net.heads.identity is not None
    for head in net.heads.identity:
        nn.init.normal_(head.weight)  # type: ignore[arg-type]
        nn.init.normal_(head.bias)  # type: ignore[arg-type]
    expected = 0.0
    for one in features_of(net, batch)[:2]:  # weak captions are not classified
        slots = ([one.whole], one.parts.unbind(1), one.related.unbind(1))
        for factor, head, level in zip((1.0, 0.5, 0.5), net.heads.identity, slots, strict=True):
            for k, slot in enumerate(level):
                for i, label in enumerate(batch.labels.tolist()):
                    log_p = torch.log_softmax(slot[i] @ head.weight[k] + head.bias[k], dim=0)  # type: ignore[index]
                    expected -= factor * float(log_p[label]) / len(level) / 6
    assert float(net(batch, 0)["identity"]) == pytest.approx(expected, rel=1e-5)


def test_identity_loss_of_an_untrained_net_is_four_times_chance() -> None:
    """Two modalities, and levels that count 1 + 0.5 + 0.5."""
    assert small_net(num_ids=1000)(make_batch(), 0)["identity"].item() == pytest.approx(4 * 6.9078, rel=0.02)


@torch.no_grad()
def test_ranking_adds_up_the_levels() -> None:
    net = small_net(num_ids=5, negatives="hardest", ranking_weight=3.0).eval()
    batch = make_batch()
    image, text, weak = features_of(net, batch)
    expected = 0.0
    for factor, a, b, w in zip((1.0, 0.5, 0.5), image.flat(), text.flat(), weak.flat(), strict=True):
        s, other = similarity_matrix(a, b), similarity_matrix(a, w)
        expected += factor * float(compound_ranking_loss(s, other, batch.labels, negatives="hardest"))
    assert float(net(batch, 0)["ranking"]) == pytest.approx(3 * expected, rel=1e-5)


@torch.no_grad()
def test_the_published_margin_of_weak_captions_starts_fixed() -> None:
    published = {"fixed_margin_epochs": 5, "absolute_margin": True, "least_weak_margin": 0.16}
    net = small_net(num_ids=5, negatives="hardest", **published).eval()
    batch = make_batch()
    image, text, weak = features_of(net, batch)
    for epoch in (4, 5):
        expected = 0.0
        for factor, a, b, w in zip((1.0, 0.5, 0.5), image.flat(), text.flat(), weak.flat(), strict=True):
            s, other = similarity_matrix(a, b), similarity_matrix(a, w)
            margins = torch.full((6,), 0.1) if epoch < 5 else adaptive_margin(s, other, absolute=True)
            least = 0.0 if epoch < 5 else 0.16
            loss = compound_ranking_loss(
                s, other, batch.labels, weak_margin=margins, least_margin=least, negatives="hardest"
            )
            expected += factor * float(loss)
        assert float(net(batch, epoch)["ranking"]) == pytest.approx(expected, rel=1e-5)
    assert float(net(batch, 4)["ranking"]) != pytest.approx(float(net(batch, 5)["ranking"]), rel=1e-4)


def test_weak_captions_are_needed_where_they_weigh() -> None:
    batch = replace(make_batch(), weak=None)
    with pytest.raises(ValueError, match="set weak_captions in the stage of the recipe, or leave them out"):
        small_net(num_ids=5)(batch, 0)
    assert set(small_net(num_ids=5, weak_weight=0.0)(batch, 0)) == {"identity", "ranking"}
    assert set(small_net(num_ids=5, ranking_weight=0.0)(batch, 0)) == {"identity"}


def test_stages_choose_their_losses() -> None:
    net = small_net(**HEADS)
    expected = {0: {"attribute", "info_nce"}, 1: {"identity", "ranking"}}
    for stage, names in expected.items():
        net.begin_stage(stage)
        assert set(net(make_batch(), 0)) == names
    net.begin_stage(0)
    assert set(net(replace(make_batch(), weak=None), 0)) == expected[0]  # nothing is ranked yet
    with pytest.raises(ValueError, match="stages 0 and 1, not 2"):
        net.begin_stage(2)


def test_training_needs_heads_and_labels() -> None:
    with pytest.raises(ValueError, match="built with num_ids or attributes"):
        small_net()(make_batch(), 0)
    with pytest.raises(ValueError, match="identity loss needs a net built with num_ids"):
        small_net(attributes=HEADS["attributes"])(make_batch(), 0)
    net = small_net(**HEADS)
    net.begin_stage(0)
    with pytest.raises(ValueError, match="its batches need attributes"):
        net(replace(make_batch(), attributes=None), 0)


def test_losses_stay_in_float32_under_mixed_precision() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        losses = small_net(**HEADS, stage1_info_nce_weight=1.0)(make_batch(), 0)
    assert all(loss.dtype == torch.float32 and torch.isfinite(loss) for loss in losses.values())


# --- weights ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("stage", "scale"), [(0, 1.0), (1, 0.1)])
def test_param_groups_hold_every_parameter_once(stage: int, scale: float) -> None:
    net = small_net(**HEADS)
    net.begin_stage(stage)
    groups = net.param_groups(0.01)
    assert sorted(id(p) for group in groups for p in group["params"]) == sorted(id(p) for p in net.parameters())
    rates = {group["name"].removesuffix("_no_decay"): group["lr"] for group in groups}
    assert rates == {"branches": 0.01, "backbone": pytest.approx(0.01 * scale)}
    assert all((p.dim() <= 1) == (group.get("weight_decay") == 0.0) for group in groups for p in group["params"])


def test_serving_needs_no_heads() -> None:
    trained, serving = small_net(**HEADS), small_net()
    kept = {name: t for name, t in trained.state_dict().items() if not name.startswith("heads.")}
    assert len(kept) < len(trained.state_dict())
    serving.load_state_dict(kept)
    assert serving.heads is None


def test_the_resnet_starts_from_a_file_or_from_a_checkpoint(tmp_path: Path) -> None:
    torch.manual_seed(3)
    resnet = ResNet(4, (1, 1, 1, 1))
    torch.save(resnet.state_dict(), tmp_path / "resnet.pth")
    trained = build("ssan", SMALL | HEADS)
    assert isinstance(trained, SSAN)
    info = {"net": "ssan", "net_config": trained.config, "preprocessing": Preprocessing(96, 32), "text": TextSpec()}
    save(tmp_path / "ssan.safetensors", trained, info)
    for file, source in (("resnet.pth", resnet), ("ssan.safetensors", trained.vision)):
        net = small_net()
        before = {name: value.clone() for name, value in net.state_dict().items()}
        net.load_vision_weights(tmp_path / file)
        theirs = source.state_dict()
        for name, value in net.state_dict().items():
            own = name.removeprefix("vision.")
            assert torch.equal(value, theirs[own] if name.startswith("vision.") else before[name]), name
