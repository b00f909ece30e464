"""The stages of AXM-Net, what each trains and by which losses, and that it learns."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from model.interface import Batch, Tokens
from tests.model.test_axm_net import HEADS, make_batch, make_images, make_tokens, small_net


def test_stage_1_can_have_the_losses_of_stage_0_beside_its_own() -> None:
    plain = small_net(**HEADS)
    dense = small_net(**HEADS, stage1_attribute_weight=0.5, stage1_info_nce_weight=2.0)
    dense.load_state_dict(plain.state_dict())
    plain.begin_stage(0)
    expected = {name: loss.item() for name, loss in plain(make_batch(), 0).items()}
    for net in (plain, dense):
        net.begin_stage(1)
        net.vision.train()  # the same batch statistics as in stage 0
    found = {name: loss.item() for name, loss in dense(make_batch(), 0).items()}
    assert found.keys() == {"identity", "attribute", "info_nce"}
    assert found["attribute"] == pytest.approx(0.5 * expected["attribute"], rel=1e-5)
    assert found["info_nce"] == pytest.approx(2.0 * expected["info_nce"], rel=1e-5)
    assert found["identity"] == pytest.approx(plain(make_batch(), 0)["identity"].item(), rel=1e-5)


def test_stages_choose_their_losses() -> None:
    net = small_net(**HEADS)
    expected = {0: {"attribute", "info_nce"}, 1: {"identity"}, 2: {"identity", "triplet", "affinity"}}
    for stage, names in expected.items():
        net.begin_stage(stage)
        assert set(net(make_batch(), 0)) == names
    with pytest.raises(ValueError, match="stages 0, 1 and 2, not 3"):
        net.begin_stage(3)


def test_losses_are_weighted_and_can_be_left_out() -> None:
    weights = {"identity_weight": 0.5, "triplet_weight": 0.0, "affinity_weight": 2.0}
    plain, weighted = small_net(**HEADS), small_net(**HEADS, **weights)
    weighted.load_state_dict(plain.state_dict())
    for net in (plain, weighted):
        net.begin_stage(2)
    a, b = plain(make_batch(), 0), weighted(make_batch(), 0)
    assert set(b) == {"identity", "affinity"}
    torch.testing.assert_close(b["identity"], 0.5 * a["identity"])
    torch.testing.assert_close(b["affinity"], 2.0 * a["affinity"])


def test_identity_loss_of_an_untrained_net_is_three_times_chance() -> None:
    net = small_net(num_ids=1000)
    net.begin_stage(1)
    assert net(make_batch(), 0)["identity"].item() == pytest.approx(3 * 6.9078, rel=0.02)  # 3 ln 1000


def test_images_alone_train_the_vision_tower_alone() -> None:
    settings = {"triplet_weight": 0.0, "affinity_weight": 0.0, "stage2_attribute_weight": 1.0, "label_smoothing": 0.0}
    net = small_net(**HEADS, **settings)
    net.begin_stage(2)
    batch = replace(make_batch(), tokens=None)
    losses = net(batch, 0)
    torch.stack(list(losses.values())).sum().backward()
    assert set(losses) == {"identity", "attribute"}
    visual = net._image_features(net._vision_map(batch.images))
    logits = [torch.log_softmax(net.heads.identity(v), dim=1) for v in visual]
    by_hand = [
        -torch.stack([row[label] for row, label in zip(rows, batch.labels, strict=True)]).mean() for rows in logits
    ]
    torch.testing.assert_close(losses["identity"], torch.stack(by_hand).sum())
    assert all(p.grad is not None for p in net.vision.parameters())
    assert all(p.grad is None for p in [*net.text.parameters(), *net.text_project.parameters()])
    net.begin_stage(0)
    with pytest.raises(ValueError, match="InfoNCE losses need texts"):
        net(batch, 0)


def test_stage_1_freezes_the_vision_tower_and_its_statistics() -> None:
    net = small_net(**HEADS)
    net.begin_stage(1)
    net.train()
    before = {name: tensor.clone() for name, tensor in net.vision.state_dict().items()}
    text_before = {name: tensor.clone() for name, tensor in net.text.state_dict().items()}
    net(make_batch(), 0)["identity"].backward()
    assert all(torch.equal(before[name], tensor) for name, tensor in net.vision.state_dict().items())
    assert any(not torch.equal(text_before[name], t) for name, t in net.text.state_dict().items())
    assert all(p.grad is None and not p.requires_grad for p in [*net.vision.parameters(), *net.gates.parameters()])
    assert all(p.grad is not None for p in net.text.parameters())
    net.begin_stage(2)
    assert all(p.requires_grad for p in net.parameters())
    assert net.vision.training


@pytest.mark.parametrize(("stage", "scale"), [(0, 1.0), (1, None), (2, 0.1)])
def test_param_groups_hold_every_trained_parameter_once(stage: int, scale: float | None) -> None:
    net = small_net(**HEADS)
    net.begin_stage(stage)
    groups = net.param_groups(0.01)
    trained = [id(p) for p in net.parameters() if p.requires_grad]
    assert sorted(id(p) for group in groups for p in group["params"]) == sorted(trained)
    rates = {group["name"].removesuffix("_no_decay"): group["lr"] for group in groups}
    assert rates == ({"branches": 0.01} | ({} if scale is None else {"backbone": pytest.approx(0.01 * scale)}))
    for group in groups:
        assert all((p.dim() <= 1) == (group.get("weight_decay") == 0.0) for p in group["params"])


def test_serving_needs_no_heads() -> None:
    trained, serving = small_net(**HEADS), small_net()
    kept = {name: t for name, t in trained.state_dict().items() if not name.startswith("heads.")}
    assert len(kept) < len(trained.state_dict())
    serving.load_state_dict(kept)
    assert serving.heads is None
    with pytest.raises(ValueError, match="built with num_ids or attributes"):
        serving(make_batch(), 0)
    attributes_only = small_net(attributes=HEADS["attributes"])
    with pytest.raises(ValueError, match="its batches need attributes"):
        attributes_only(replace(make_batch(), attributes=None), 0)
    attributes_only.begin_stage(1)
    with pytest.raises(ValueError, match="identity loss needs a net built with num_ids"):
        attributes_only(make_batch(), 0)


def test_wrong_tokens_are_refused() -> None:
    tokens = make_tokens(2)
    with pytest.raises(ValueError, match="carry no states"):
        small_net().encode_text(Tokens(tokens.ids, tokens.mask, None))
    with pytest.raises(ValueError, match="have 24 channels; this net reads 768"):
        small_net(text_dim=768).encode_text(tokens)


def test_losses_stay_in_float32_under_mixed_precision() -> None:
    net = small_net(**HEADS)
    net.begin_stage(2)
    with torch.autocast("cpu", torch.bfloat16):
        losses = net(make_batch(), 0)
    assert all(loss.dtype == torch.float32 and torch.isfinite(loss) for loss in losses.values())


def test_small_learned_tables_fold_ids_but_keep_padding_zero() -> None:
    net = small_net(text_input="learned", vocabulary_size=10).eval()
    ids = torch.tensor([[1, 10, 9, 0, 30521]])
    states = net._text_input(Tokens(ids, ids > 0, None)).transpose(1, 2)[0]
    assert torch.equal(states[0], states[1])  # 1 and 10 share row 1 of the rows 1 to 9
    assert not torch.equal(states[0], states[2])
    assert not states[3].any()


@pytest.mark.parametrize("stage", [0, 2])
def test_four_people_are_learned_by_heart(stage: int) -> None:
    net = small_net(num_ids=4, attributes=[["a", 4]], widths=[16, 32, 48, 64])
    net.begin_stage(stage)
    net.train()
    images, tokens = make_images(4), make_tokens(4)
    batch = Batch(images, tokens, torch.arange(4), torch.arange(4)[:, None])
    optimizer = torch.optim.AdamW(net.param_groups(3e-3))
    first = last = 0.0
    for step in range(30):
        loss = torch.stack(list(net(batch, 0).values())).sum()
        first, last = (loss.item() if step == 0 else first), loss.item()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert last < 0.8 * first
    with torch.no_grad():
        for layer in net.modules():
            if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
                # Thirty steps of moving weights leave running averages behind: take those of the final weights.
                layer.reset_running_stats()
                layer.momentum = None
        net.pair_features(images, tokens)
        net.eval()
        similarity = net.encode_text(tokens) @ net.encode_image(images).T
    assert similarity.argmax(dim=1).tolist() == [0, 1, 2, 3]
    assert similarity.argmax(dim=0).tolist() == [0, 1, 2, 3]
