"""A checkpoint is one safetensors file that can rebuild its network and says where it came from.

The JSON under the metadata key "person_search" holds the net's name and config, the preprocessing, the text encoder,
the recipe, the data and the validation result. A checkpoint's id is a hash of its content, so two files with one id
give the same vectors. Optimizer state is not kept here: see train.py.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from model.errors import ModelError
from model.interface import Net
from model.nets import build

FORMAT = 1
METADATA_KEY = "person_search"
HEADS = "heads."  # names of training-only tensors
_WITHOUT_HEADS: dict[str, Any] = {"num_ids": 0, "attributes": []}
_REQUIRED = ("format", "net", "net_config", "preprocessing", "text", "id")


class CheckpointError(ModelError):
    """The file is not a checkpoint of ours, or is damaged. The message says which, and what to do."""


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint. ``info`` is the JSON of its metadata; ``net`` is in eval mode, on the CPU, in float32."""

    id: str
    path: Path
    net: Net
    info: dict[str, Any]


def default_checkpoint() -> Path:
    """The checkpoint shipped with the package, trained by us on rendered pedestrians."""
    return Path(__file__).parent / "weights" / "axm_net_synth.safetensors"


def infrared_checkpoint() -> Path:
    """The one shipped beside it, for searches across visible and infrared light; it reads no text."""
    return Path(__file__).parent / "weights" / "mcja_synth.safetensors"


def shipped(name: Path | str) -> Path:
    """The file of the shipped checkpoint "default" or "infrared"; any other name is the path of a file itself."""
    return {"default": default_checkpoint, "infrared": infrared_checkpoint}.get(str(name), lambda: Path(name))()


def save(path: Path | str, net: Net, info: dict[str, Any], *, half: bool = False, heads: bool = True) -> str:
    """Write a checkpoint in one step, so that a reader never meets half a file; returns its id.

    info: net, net_config, preprocessing and text (dataclasses or dicts), recipe, data, validation, vocabulary.
    half: matrices and kernels as float16; norms, biases and statistics stay float32, where rounding would show.
    heads: with False the training-only classifiers are left out and the config is that of a net without them.
    """
    assert isinstance(net, nn.Module)
    tensors = {name: _stored(value, half) for name, value in net.state_dict().items()}
    described = {key: _plain(value) for key, value in info.items()}
    if not heads:
        tensors = {name: value for name, value in tensors.items() if not name.startswith(HEADS)}
        config = described["net_config"]
        described["net_config"] = config | {key: none for key, none in _WITHOUT_HEADS.items() if key in config}
    described = {"created": datetime.now(UTC).isoformat(timespec="seconds"), **described, "format": FORMAT}
    described["id"] = content_id(tensors, described)
    write_atomically(Path(path), save_tensors(tensors, metadata={METADATA_KEY: _canonical(described)}))
    return str(described["id"])


def load(path: Path | str) -> Checkpoint:
    """Rebuild the net of a checkpoint. Raises `CheckpointError` for anything but a whole, unchanged file of ours."""
    path = Path(path)
    info, tensors = _read(path)
    try:
        net = build(info["net"], info["net_config"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} needs the net {info['net']!r} as this version does not know it ({error}). "
            f"Use the version of person-search that wrote the checkpoint, or a later one."
        ) from error
    assert isinstance(net, nn.Module)
    widened = {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}
    try:
        net.load_state_dict(widened)
    except RuntimeError as error:
        raise CheckpointError(f"The weights in {path} do not fit the net that it describes: {error}") from error
    return Checkpoint(str(info["id"]), path, net.eval(), info)


def describe(path: Path | str) -> dict[str, Any]:
    """What a checkpoint says of itself, with its size; the file is verified but no network is built."""
    path = Path(path)
    info, tensors = _read(path)
    return {**info, "parameters": sum(value.numel() for value in tensors.values()), "bytes": path.stat().st_size}


def content_id(tensors: dict[str, Tensor], info: dict[str, Any]) -> str:
    """First 16 hex digits of the SHA-256 over names, types, shapes and bytes of all tensors and the JSON without id."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.view(-1).numpy().tobytes())
    digest.update(_canonical({key: value for key, value in info.items() if key != "id"}).encode())
    return digest.hexdigest()[:16]


def write_atomically(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data`` so that after a crash either the old or the new file is there, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename itself
    finally:
        os.close(folder)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise CheckpointError(f"There is no checkpoint at {path}. Check the path.") from error
    except OSError as error:
        raise CheckpointError(f"The checkpoint {path} cannot be read ({error.strerror}).") from error
    try:
        tensors = load_tensors(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(f"{path} is not a whole safetensors file ({error}). Copy it again.") from error
    text = (header.get("__metadata__") or {}).get(METADATA_KEY)
    if text is None:
        raise CheckpointError(f"{path} is a safetensors file of another program, not a person-search checkpoint.")
    try:
        info = json.loads(text)
    except ValueError as error:
        raise CheckpointError(f"The description inside {path} is damaged. Copy or download it again.") from error
    if not isinstance(info, dict) or any(key not in info for key in _REQUIRED):
        raise CheckpointError(f"The description inside {path} is incomplete. Copy or download it again.")
    if info["format"] != FORMAT:
        raise CheckpointError(
            f"{path} has checkpoint format {info['format']}; this version reads format {FORMAT}. Update person-search."
        )
    if content_id(tensors, info) != info["id"]:
        raise CheckpointError(f"{path} was changed after it was written: its content does not match its id.")
    return info, tensors


def _stored(value: Tensor, half: bool) -> Tensor:
    value = value.detach().cpu()
    if not value.is_floating_point():
        return value.contiguous()
    return value.to(torch.float16 if half and value.ndim > 1 else torch.float32).contiguous()


def _plain(value: Any) -> Any:
    """The value as JSON gives it back, so that the id of what is written equals the id of what is read."""
    return json.loads(json.dumps(asdict(value) if is_dataclass(value) and not isinstance(value, type) else value))


def _canonical(info: dict[str, Any]) -> str:
    return json.dumps(info, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
