"""MMET: FLAVA's size and outputs, what may influence what, and its details."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.checkpoint import load, save
from model.interface import Batch, PairNet, Tokens
from model.nets import build
from model.nets.mmet import BRANCHES, CLS, MMET, SEP, MMETConfig
from model.preprocess import Preprocessing
from model.text import TextSpec

SMALL: dict[str, Any] = {
    "image_size": [64, 32],
    "patch": 16,
    "width": 32,
    "attention_heads": 2,
    "hidden": 48,
    "image_layers": 2,
    "text_layers": 2,
    "fusion_layers": 2,
    "vocabulary_size": 1200,
    "positions": 24,
    "poolers": False,
    "image_target": "kmeans",
    "image_codes": 12,
    "image_mask": 0.4,
    "text_mask": 0.3,
    "objectives": "all",
}
HEADS: dict[str, Any] = {"num_ids": 5, "attributes": [["bag", 3], ["hat", 2]], "attribute_weight": 1.0}
PATCHES = 8


def small_net(**settings: Any) -> MMET:
    torch.manual_seed(0)
    net = build("mmet", SMALL | settings)
    assert isinstance(net, MMET)
    return net


def make_images(batch: int, seed: int = 1) -> Tensor:
    return torch.randn(batch, 3, 64, 32, generator=torch.Generator().manual_seed(seed))


def make_tokens(batch: int, seed: int = 0, length: int = 20) -> Tokens:
    """Random texts of 5, 6, … pieces, zero after the end."""
    mask = torch.arange(length) < torch.arange(5, 5 + batch)[:, None]
    ids = torch.randint(1000, 30522, (batch, length), generator=torch.Generator().manual_seed(seed))
    return Tokens(ids * mask, mask, None)


def make_batch(batch: int = 6) -> Batch:
    attributes = torch.stack([torch.arange(batch) % 3, torch.arange(batch) % 2], dim=1)
    attributes[0] = -1
    return Batch(make_images(batch), make_tokens(batch), torch.arange(batch) // 2, attributes)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def encodings(net: MMET, images: Tensor, tokens: Tokens) -> dict[str, Tensor]:
    with torch.no_grad():
        return {
            "image": net.encode_image(images),
            "text": net.encode_text(tokens),
            "fusion": net.encode_pair(images, tokens),
        }


def served(stage: int, **settings: Any) -> MMET:
    """A net whose necks have seen a few batches, as after training; in eval mode."""
    net = small_net(**(HEADS | settings))
    net.begin_stage(stage)
    for _ in range(3):
        net(make_batch(), 0)
    return net.eval()


# --- size and FLAVA's weights ------------------------------------------------------------------------------------


def test_at_the_published_size_it_has_flavas_parameters() -> None:
    with torch.device("meta"):
        net = MMET(MMETConfig())
    assert count(net.image) == 86_390_016  # 86.4 M
    assert count(net.text) == 109_483_776  # 109.5 M
    entrance = count(net.fusion.from_image) + count(net.fusion.from_text)
    assert count(net.fusion) - entrance == 43_120_128  # 43.1 M
    projections = count(net.image_projection) + count(net.text_projection)
    assert entrance == projections == 2 * (768 * 768 + 768)
    assert count(net) - count(net.necks) == 241_356_288  # 241.4 M
    assert net.image.positions.shape == (197, 768) and net.embedding_dim == 768


def make_flava(folder: Path, *, heads: bool, size: int = 64) -> Any:
    """A small random FLAVA of transformers, saved to ``folder``; every tensor away from zero and one."""
    from transformers import FlavaConfig, FlavaForPreTraining, FlavaModel

    layers = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    config = FlavaConfig(
        image_config={**layers, "image_size": size, "patch_size": 16, "vocab_size": 12},
        text_config={**layers, "vocab_size": 1200, "max_position_embeddings": 30},
        multimodal_config=layers,
        image_codebook_config={"hidden_size": 4, "num_blocks_per_group": 1, "vocab_size": 12},
        hidden_size=32,
        projection_dim=32,
        init_codebook=False,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    model = (FlavaForPreTraining if heads else FlavaModel)(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    return model


SQUARE: dict[str, Any] = {"image_size": [64, 64], "poolers": True}


@torch.no_grad()
def test_the_branches_equal_flava_of_transformers(tmp_path: Path) -> None:
    theirs = make_flava(tmp_path, heads=False)
    net = small_net(**SQUARE, fusion_sees_padding=False).eval()
    net.load_vision_weights(tmp_path)
    images = torch.randn(3, 3, 64, 64)
    tokens = make_tokens(3)
    tokens = replace(tokens, ids=tokens.ids % 1200)
    ids = torch.zeros(3, 22, dtype=torch.long)
    attention = torch.zeros(3, 22, dtype=torch.long)
    for row, words in enumerate([5, 6, 7]):
        ids[row, : words + 2] = torch.tensor([CLS, *tokens.ids[row, :words].tolist(), SEP])
        attention[row, : words + 2] = 1
    found = net.branch_states(BRANCHES, images, tokens)
    expected = theirs(input_ids=ids, pixel_values=images, attention_mask=attention)
    torch.testing.assert_close(found["image"], expected.image_embeddings, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found["text"], expected.text_embeddings, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found["fusion"], expected.multimodal_embeddings, atol=1e-5, rtol=1e-4)
    published = small_net(**SQUARE, fusion_sees_padding=True).eval()
    published.load_vision_weights(tmp_path)
    last = (expected.image_output.hidden_states[-1], expected.text_output.hidden_states[-1])
    both = torch.cat([theirs.image_to_mm_projection(last[0]), theirs.text_to_mm_projection(last[1])], dim=1)
    unmasked = theirs.multimodal_model(both).last_hidden_state
    seen = published.branch_states(("fusion",), images, tokens)["fusion"]
    torch.testing.assert_close(seen, unmasked, atol=1e-5, rtol=1e-4)
    features = theirs.get_image_features(images).pooler_output[:, 0]
    torch.testing.assert_close(net.encode_image(images), F.normalize(features, dim=1), atol=1e-5, rtol=1e-4)
    features = theirs.get_text_features(ids, attention).pooler_output[:, 0]
    torch.testing.assert_close(net.encode_text(tokens), F.normalize(features, dim=1), atol=1e-5, rtol=1e-4)
    hidden = torch.rand(3, 16) < 0.4
    masked = theirs.image_model(images, bool_masked_pos=hidden).last_hidden_state
    torch.testing.assert_close(net.image.norm(net.image.embed(images, hidden)), masked, atol=1e-5, rtol=1e-4)
    state = theirs.state_dict()
    assert torch.equal(net.fusion.pooler.weight, state["multimodal_model.pooler.dense.weight"])  # type: ignore[union-attr]


@torch.no_grad()
def test_heads_come_along_where_they_fit(tmp_path: Path) -> None:
    theirs = make_flava(tmp_path, heads=True)
    net = small_net(**SQUARE, **HEADS)
    net.load_vision_weights(tmp_path / "model.safetensors")
    assert net.heads is not None
    states = torch.randn(2, 4, 32)
    for name in ("mim", "mlm", "mmm_image", "mmm_text"):
        expected = getattr(theirs, f"{name}_head")(states)
        torch.testing.assert_close(getattr(net.heads, name)(states), expected, atol=1e-4, rtol=1e-3)  # other epsilon
    torch.testing.assert_close(net.heads.itm(states[:, 0]), theirs.itm_head(states))
    assert torch.equal(net.heads.log_scale, theirs.flava.logit_scale)

    other = small_net(**SQUARE, **HEADS, image_target="pixels")
    before = {name: tensor.clone() for name, tensor in other.heads.state_dict().items()}  # type: ignore[union-attr]
    other.load_vision_weights(tmp_path)
    for name, tensor in other.heads.state_dict().items():  # type: ignore[union-attr]
        stays = name.startswith(("mim", "mmm_image", "identity", "attributes"))
        assert torch.equal(tensor, before[name]) == stays, name


@torch.no_grad()
def test_positions_of_another_grid_are_interpolated(tmp_path: Path) -> None:
    theirs = make_flava(tmp_path, heads=False)
    net = small_net(poolers=True)  # 4 x 2 patches instead of 4 x 4
    net.load_vision_weights(tmp_path)
    square = theirs.image_model.embeddings.position_embeddings
    assert torch.equal(net.image.positions[0], square[0, 0])
    grid = square[0, 1:].reshape(1, 4, 4, 32).permute(0, 3, 1, 2)
    expected = F.interpolate(grid, (4, 2), mode="bicubic", align_corners=False)
    for row in range(4):
        for column in range(2):
            torch.testing.assert_close(net.image.positions[1 + 2 * row + column], expected[0, :, row, column])


def test_unfit_weights_are_refused_and_change_nothing(tmp_path: Path) -> None:
    make_flava(tmp_path, heads=False)
    for settings, message in (
        ({"hidden": 64}, r"intermediate\.dense\.weight is of shape \(48, 32\), but this net needs \(64, 32\)"),
        ({"image_layers": 3}, r"image_model\.encoder\.layer\.2\.\S+ is missing"),
        ({"positions": 40}, r"position_embeddings\.weight is of shape \(30, 32\)"),
    ):
        net = small_net(**SQUARE | settings)
        before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
        with pytest.raises(ValueError, match=message):
            net.load_vision_weights(tmp_path)
        assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    with pytest.raises(ValueError, match="There is no weights file"):
        small_net().load_vision_weights(tmp_path / "nothing")


# --- the contract ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", [1, 2])
def test_rows_are_unit_and_a_batch_of_one_will_do(stage: int) -> None:
    net = served(stage)
    assert isinstance(net, PairNet) and net.embedding_dim == 32
    for rows in encodings(net, make_images(1), make_tokens(1)).values():
        assert rows.shape == (1, 32) and rows.dtype == torch.float32
        torch.testing.assert_close(rows.norm(dim=1), torch.ones(1))


@pytest.mark.parametrize("stage", [1, 2])
def test_a_row_depends_on_its_own_input_alone(stage: int) -> None:
    net = served(stage)
    images, tokens = make_images(4), make_tokens(4)
    together = encodings(net, images, tokens)
    for n in range(4):
        alone = encodings(net, images[n : n + 1], Tokens(tokens.ids[n : n + 1], tokens.mask[n : n + 1], None))
        for branch, rows in together.items():
            torch.testing.assert_close(alone[branch][0], rows[n], atol=1e-6, rtol=1e-5)
    other = encodings(net, make_images(4, seed=9), make_tokens(4, seed=9))
    mixed = encodings(net, images, make_tokens(4, seed=9))
    assert torch.equal(mixed["image"], together["image"]) and torch.equal(mixed["text"], other["text"])
    for name in ("image", "text", "fusion"):
        assert (other[name] - together[name]).abs().max() > 1e-3
    assert (mixed["fusion"] - together["fusion"]).abs().max() > 1e-3  # a pair reads both
    assert (mixed["fusion"] - other["fusion"]).abs().max() > 1e-3


@pytest.mark.parametrize("stage", [1, 2])
def test_losses_are_finite_and_reach_every_trained_parameter(stage: int) -> None:
    net = small_net(**HEADS, stage2_contrastive_weight=1.0, neck_input="projection")
    net.begin_stage(stage)
    losses = net(make_batch(), 0)
    assert all(loss.dtype == torch.float32 and torch.isfinite(loss) for loss in losses.values())
    torch.stack(list(losses.values())).sum().backward()
    for name, parameter in net.named_parameters():
        reached = parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
        assert reached == parameter.requires_grad, name
    groups = net.param_groups(0.01)
    trained = [id(p) for p in net.parameters() if p.requires_grad]
    assert sorted(id(p) for group in groups for p in group["params"]) == sorted(trained)
    for group in groups:
        assert group["lr"] == 0.01
        assert all((p.dim() <= 1) == (group.get("weight_decay") == 0.0) for p in group["params"])


@pytest.mark.parametrize("branches", [("image",), ("text",), ("fusion",), ("image", "text")])
def test_a_branch_alone_trains_what_it_reads(branches: tuple[str, ...]) -> None:
    net = small_net(**HEADS, branches=list(branches))
    net.begin_stage(2)
    torch.stack(list(net(make_batch(), 0).values())).sum().backward()
    for name, parameter in net.named_parameters():
        reached = parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
        assert reached == parameter.requires_grad, name
    read = {"image", "text", "fusion"} if "fusion" in branches else set(branches)
    assert {branch for branch in BRANCHES if any(p.requires_grad for p in getattr(net, branch).parameters())} == read


@pytest.mark.parametrize("stage", [1, 2])
def test_saved_and_loaded_it_gives_the_same_rows(stage: int, tmp_path: Path) -> None:
    net = served(stage)
    info = {
        "net": "mmet",
        "net_config": net.config,
        "preprocessing": Preprocessing(64, 32),
        "text": TextSpec("learned"),
    }
    save(tmp_path / "net.safetensors", net, info, heads=False)
    again = load(tmp_path / "net.safetensors").net
    assert isinstance(again, MMET) and again.heads is None and int(again.stage) == stage
    images, tokens = make_images(3), make_tokens(3)
    expected = encodings(net, images, tokens)
    for branch, rows in encodings(again, images, tokens).items():
        assert torch.equal(rows, expected[branch])
    assert json.loads(json.dumps(asdict(net.config)))["branches"] == list(BRANCHES)


@pytest.mark.parametrize("stage", [1, 2])
def test_four_people_are_learned_by_heart(stage: int) -> None:
    net = small_net(
        num_ids=4,
        attributes=[],
        wrong_captions=0.0,
        neck_input="projection",
        triplet_across=True,
        stage2_contrastive_weight=1.0,
    )
    net.begin_stage(stage)
    batch = Batch(make_images(4), make_tokens(4), torch.arange(4))
    optimizer = torch.optim.AdamW(net.param_groups(2e-3))
    first = last = 0.0
    for step in range(60):
        loss = torch.stack(list(net(batch, 0).values())).sum()
        first, last = (loss.item() if step == 0 else first), loss.item()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert last < 0.8 * first
    for neck in net.necks.values():
        # Sixty steps of moving weights leave running averages behind: take those of the final weights.
        neck.reset_running_stats()  # type: ignore[operator]
        neck.momentum = None
    with torch.no_grad():
        net._vectors(BRANCHES, batch.images, batch.tokens)
    rows = encodings(net.eval(), make_images(4), make_tokens(4))
    for name in ("text", "fusion"):
        assert (rows[name] @ rows["image"].T).argmax(dim=1).tolist() == [0, 1, 2, 3]


# --- details -----------------------------------------------------------------------------------------------------


def test_texts_stand_between_their_special_pieces() -> None:
    mask = torch.tensor([[True, True, False], [False, False, False], [True, True, True]])
    ids = torch.tensor([[1500, 1501, 7], [7, 7, 7], [1, 2, 3]])  # what stands over padding is not read
    found, real = small_net()._pieces(Tokens(ids, mask, None))
    assert found.tolist() == [[CLS, 1500, 1501, SEP, 0], [CLS, SEP, 0, 0, 0], [CLS, 1, 2, 3, SEP]]
    assert real.tolist() == [[True] * 4 + [False], [True] * 2 + [False] * 3, [True] * 5]


@torch.no_grad()
def test_padding_is_read_by_the_fusion_transformer_alone_and_only_as_published() -> None:
    short, long = make_tokens(2, length=12), make_tokens(2, length=18)
    long.ids[:, :12], long.mask[:, :12] = short.ids, short.mask
    images = make_images(2)
    for sees in (False, True):
        net = served(2, fusion_sees_padding=sees)
        a, b = encodings(net, images, short), encodings(net, images, long)
        torch.testing.assert_close(a["text"], b["text"], atol=1e-6, rtol=1e-5)
        assert torch.allclose(a["fusion"], b["fusion"], atol=1e-5) != sees


@torch.no_grad()
def test_pieces_beyond_a_small_vocabulary_share_rows_but_special_ones_do_not() -> None:
    text = small_net().text
    ids = torch.tensor([[0, CLS, 998, 999, 1199, 1200, 1200 + 201]])
    assert text.fold(ids).tolist() == [[0, CLS, 998, 999, 1199, 999, 999]]
    assert torch.equal(MMET(MMETConfig(**_small_config())).text.fold(ids % 1200), ids % 1200)


def _small_config() -> dict[str, Any]:
    return {**SMALL, "image_size": (64, 32), "vocabulary_size": 30522}


@torch.no_grad()
def test_vectors_come_from_the_stage_last_begun() -> None:
    net = served(2)
    images, tokens = make_images(2), make_tokens(2)
    cls = {name: states[:, 0] for name, states in net.branch_states(BRANCHES, images, tokens).items()}
    rows = encodings(net, images, tokens)
    for branch in BRANCHES:
        torch.testing.assert_close(rows[branch], F.normalize(net.necks[branch](cls[branch]), dim=1))
    net.begin_stage(1)
    rows = encodings(net, images, tokens)
    image, text = F.normalize(net.image_projection(cls["image"])), F.normalize(net.text_projection(cls["text"]))
    torch.testing.assert_close(rows["image"], image)
    torch.testing.assert_close(rows["text"], text)
    torch.testing.assert_close(rows["fusion"], F.normalize(image + text))  # halfway: no place in the space yet

    net = served(2, neck_input="projection", branches=["image", "text"])
    cls = {name: states[:, 0] for name, states in net.branch_states(BRANCHES, images, tokens).items()}
    rows = encodings(net, images, tokens)
    torch.testing.assert_close(rows["image"], F.normalize(net.necks["image"](net.image_projection(cls["image"]))))
    torch.testing.assert_close(rows["fusion"], F.normalize(rows["image"] + rows["text"]))


def test_necks_have_no_bias_to_learn() -> None:
    net = served(2)
    for neck in net.necks.values():
        assert not neck.bias.requires_grad and not neck.bias.any()  # type: ignore[union-attr, operator]


def test_losses_stay_in_float32_under_mixed_precision() -> None:
    net = small_net(**HEADS)
    for stage in (1, 2):
        net.begin_stage(stage)
        with torch.autocast("cpu", torch.bfloat16):
            losses = net(make_batch(), 0)
        assert all(loss.dtype == torch.float32 and torch.isfinite(loss) for loss in losses.values())


def test_serving_needs_no_heads_and_training_needs_them() -> None:
    net = small_net()
    assert net.heads is None
    with pytest.raises(ValueError, match="built with num_ids or attributes"):
        net(make_batch(), 0)
    net = small_net(**HEADS)
    with pytest.raises(ValueError, match="its batches need attributes"):
        net(replace(make_batch(), attributes=None), 0)
    with pytest.raises(ValueError, match="stages 1 and 2, not 3"):
        net.begin_stage(3)
    without = small_net(attributes=HEADS["attributes"])
    without.begin_stage(2)
    with pytest.raises(ValueError, match="needs a net built with num_ids"):
        without(make_batch(), 0)
    published = small_net(num_ids=5, image_target="dvae")
    with pytest.raises(ValueError, match="There is no image codebook"):
        published(make_batch(), 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_target": "colours"}, "image_target must be one of dvae, kmeans, pixels"),
        ({"objectives": "some"}, "objectives must be one of drawn, all"),
        ({"branches": ["sound"]}, "branches must be some of image, text, fusion"),
        ({"branches": []}, "branches must be some of"),
        ({"image_size": [60, 32]}, "does not divide into patches of 16"),
        ({"attention_heads": 3}, "does not divide among 3 attention heads"),
        ({"vocabulary_size": 500}, "must be more than 999"),
        ({"wrong_captions": 1.0}, r"wrong_captions is a share in \[0, 1\)"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_net(**settings)


def test_inputs_of_another_size_are_refused() -> None:
    net = small_net().eval()
    with pytest.raises(ValueError, match=r"reads images of 64 x 32 pixels, not \(32, 32\)"):
        net.encode_image(torch.zeros(1, 3, 32, 32))
    with pytest.raises(ValueError, match="Texts of 23 pieces are too long for 24 positions"):
        net.encode_text(make_tokens(1, length=23))
