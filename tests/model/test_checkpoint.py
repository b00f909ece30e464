"""A checkpoint comes back as it was saved, and anything else than a whole one of ours is refused with a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from model import checkpoint
from model.checkpoint import CheckpointError, describe, load, save
from model.nets import build
from model.recipes import axm_net_tiny, to_dict
from tests.helpers import make_tiny_checkpoint


def net_and_info(**config: Any) -> tuple[Any, dict[str, Any]]:
    recipe = axm_net_tiny()
    settings = {**to_dict(recipe)["net_config"], **config}
    torch.manual_seed(0)
    net = build("axm_net", settings)
    info = {
        "net": "axm_net",
        "net_config": settings,
        "preprocessing": recipe.preprocessing,
        "text": recipe.text,
        "recipe": to_dict(recipe),
        "data": {"train": {"images": 3}},
        "validation": {"rank1": 12.5},
        "vocabulary": ["a", "b"],
        "created": "2026-01-01T00:00:00+00:00",
    }
    return net, info


def metadata(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return json.loads(header["__metadata__"]["person_search"])


def rewrite(path: Path, info: dict[str, Any]) -> None:
    """The same tensors under another description, as someone with a text editor would leave it."""
    save_file(load_file(path), path, metadata={"person_search": json.dumps(info)})


def test_round_trip_in_full_precision_is_exact(tmp_path: Path) -> None:
    net, info = net_and_info(num_ids=5, attributes=[["bag", 3]])
    saved_id = save(tmp_path / "a.safetensors", net, info)
    loaded = load(tmp_path / "a.safetensors")
    assert loaded.id == saved_id == loaded.info["id"] and len(saved_id) == 16
    assert loaded.info["validation"] == {"rank1": 12.5} and loaded.info["text"]["kind"] == "learned"
    theirs = loaded.net.state_dict()
    assert theirs.keys() == net.state_dict().keys()
    assert all(torch.equal(theirs[name], value) for name, value in net.state_dict().items())
    assert not loaded.net.training


def test_half_precision_rounds_matrices_only_and_loads_as_float32(tmp_path: Path) -> None:
    net, info = net_and_info()
    save(tmp_path / "full.safetensors", net, info)
    save(tmp_path / "half.safetensors", net, info, half=True)
    assert (tmp_path / "half.safetensors").stat().st_size < 0.6 * (tmp_path / "full.safetensors").stat().st_size
    for name, value in load(tmp_path / "half.safetensors").net.state_dict().items():
        original = net.state_dict()[name]
        assert value.dtype == original.dtype
        expected = original.half().float() if original.ndim > 1 else original
        assert torch.equal(value, expected), name


def test_a_serving_checkpoint_has_no_heads_and_the_same_vectors(tmp_path: Path) -> None:
    net, info = net_and_info(num_ids=5, attributes=[["bag", 3]])
    save(tmp_path / "serving.safetensors", net, info, heads=False)
    assert not any(name.startswith("heads.") for name in load_file(tmp_path / "serving.safetensors"))
    loaded = load(tmp_path / "serving.safetensors")
    assert loaded.info["net_config"]["num_ids"] == 0 and loaded.info["net_config"]["attributes"] == []
    images = torch.randn(2, 3, 64, 32)
    with torch.inference_mode():
        assert torch.equal(loaded.net.encode_image(images), net.eval().encode_image(images))


def test_the_id_is_of_the_content(tmp_path: Path) -> None:
    net, info = net_and_info()
    first = save(tmp_path / "a.safetensors", net, info)
    assert save(tmp_path / "elsewhere.safetensors", net, info) == first
    assert save(tmp_path / "b.safetensors", net, {**info, "validation": None}) != first
    with torch.no_grad():
        next(net.parameters()).add_(1)
    assert save(tmp_path / "c.safetensors", net, info) != first


def test_the_tiny_checkpoint_of_the_tests_is_always_the_same(tmp_path: Path) -> None:
    torch.manual_seed(123)
    before = torch.random.get_rng_state()
    first = make_tiny_checkpoint(tmp_path / "a.safetensors")
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(99)
    assert make_tiny_checkpoint(tmp_path / "b.safetensors") == first
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_describe_counts_without_building(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "build", None)
    found = describe(tiny_checkpoint)
    assert found["net"] == "axm_net" and found["bytes"] == tiny_checkpoint.stat().st_size
    assert found["parameters"] == sum(value.numel() for value in load_file(tiny_checkpoint).values())


def test_what_is_not_a_checkpoint_is_refused(tmp_path: Path, tiny_checkpoint: Path) -> None:
    data = tiny_checkpoint.read_bytes()
    files = {
        "text.safetensors": b"just some text, no tensors at all",
        "empty.safetensors": b"",
        "truncated.safetensors": data[: len(data) // 2],
        "header.safetensors": data[:20],
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match="not a whole safetensors file"):
            load(tmp_path / name)
    with pytest.raises(CheckpointError, match=r"There is no checkpoint at .*gone"):
        load(tmp_path / "gone.safetensors")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load(tmp_path)
    save_file({"x": torch.zeros(2)}, tmp_path / "foreign.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="of another program"):
        load(tmp_path / "foreign.safetensors")
    save_file({"x": torch.zeros(2)}, tmp_path / "bad.safetensors", metadata={"person_search": "{"})
    with pytest.raises(CheckpointError, match=r"description inside .* is damaged"):
        load(tmp_path / "bad.safetensors")


def test_a_changed_weight_or_description_is_noticed(tmp_path: Path, tiny_checkpoint: Path) -> None:
    data = bytearray(tiny_checkpoint.read_bytes())
    data[-100] ^= 1
    (tmp_path / "weight.safetensors").write_bytes(data)
    with pytest.raises(CheckpointError, match="was changed after it was written"):
        load(tmp_path / "weight.safetensors")
    path = tmp_path / "described.safetensors"
    path.write_bytes(tiny_checkpoint.read_bytes())
    rewrite(path, {**metadata(path), "validation": {"rank1": 99.0}})
    with pytest.raises(CheckpointError, match="was changed after it was written"):
        describe(path)


def test_incomplete_and_future_files_are_refused(tmp_path: Path, tiny_checkpoint: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(tiny_checkpoint.read_bytes())
    info = metadata(path)
    rewrite(path, {key: value for key, value in info.items() if key != "net_config"})
    with pytest.raises(CheckpointError, match="is incomplete"):
        load(path)
    rewrite(path, {**info, "format": 2})
    with pytest.raises(CheckpointError, match=r"has checkpoint format 2.*Update person-search"):
        load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"net": "axm_net_2"}, "as this version does not know it"),
        ({"net_config": {"colour": 1}}, "as this version does not know it"),
        ({"net_config": {}}, "do not fit the net"),
    ],
)
def test_a_net_this_version_cannot_build_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    net, info = net_and_info()
    save(tmp_path / "a.safetensors", net, {**info, **change})  # whole and with a right id
    with pytest.raises(CheckpointError, match=message):
        load(tmp_path / "a.safetensors")


def test_a_failing_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net, info = net_and_info()
    path = tmp_path / "a.safetensors"
    first = save(path, net, info)

    def full_disk(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save(path, net, {**info, "validation": None})
    monkeypatch.undo()
    assert load(path).id == first
    assert [child.name for child in tmp_path.iterdir()] == ["a.safetensors"]
