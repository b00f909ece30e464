"""One identity: a body in its clothes, built once from attributes and a seed, then posed for every image.

The renderer draws what ``Person.posed`` returns. Body shape and skin tone are drawn here and described nowhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sparse

from model.synth import accessories
from model.synth.attributes import COLORS, HAIR_COLORS, Attributes
from model.synth.body import Body, BodyShape, Floats, Ints, rotation, vertex_normals, walking_pose
from model.synth.garments import HAIR, OUTER, UPPER, Color, Material, Tailor, clothe, tinted

SKIN_TONES: dict[str, Color] = {
    "asian": (0.70, 0.505, 0.38),
    "caucasian": (0.75, 0.545, 0.435),
    "african": (0.33, 0.20, 0.14),
}
FACE_TARGETS = (
    "head/head-oval", "head/head-round", "head/head-square", "head/head-rectangular", "head/head-diamond",
    "head/head-fat-incr", "head/head-scale-horiz-decr", "head/head-scale-vert-incr", "nose/nose-scale-horiz-incr",
    "nose/nose-scale-depth-incr", "nose/nose-hump-incr", "chin/chin-width-incr", "chin/chin-prominent-incr",
)  # fmt: skip
STRIDES = {"standing": (0.08,), "walking": (0.75, 1.0)}  # by activity


@dataclass(frozen=True)
class PosedPerson:
    """World-space triangles of one person in one image."""

    vertices: Floats  # (n, 11): position, normal, template position, arm membership and position
    faces: Ints  # (f, 3)
    draws: Sequence[tuple[int, int, Material]]  # first index, index count, material; innermost first
    framed: Floats  # (m, 3): the points a crop is fitted around
    feet: Floats  # (3,): where the person stands


class Person:
    """A dressed body in rest pose. The same attributes and seed give the same person on any machine."""

    def __init__(self, body: Body, attributes: Attributes, seed: int) -> None:
        self.body, self.attributes = body, attributes
        rng = np.random.default_rng(seed)
        ancestry = str(rng.choice(list(SKIN_TONES), p=[0.5, 0.34, 0.16]))
        rest = body.morph(_body_shape(attributes, ancestry, rng))
        self.heads = body.bone_heads(rest)
        tone = np.array(SKIN_TONES[ancestry]) * (1.0 + rng.normal(0.0, 0.10)) * (1.0 + rng.normal(0.0, 0.02, 3))
        red, green, blue = np.clip(tone, 0.08, 0.9)
        tailor = Tailor(body, rest, attributes, rng)
        clothe(tailor, (float(red), float(green), float(blue)))
        solids, bag_color = self._solids(rest, tailor, rng)
        self._join(tailor, solids)
        self._held = accessories.held_items(attributes, _prop_color(attributes, rng), bag_color)

    def _solids(self, rest: Floats, tailor: Tailor, rng: np.random.Generator) -> tuple[list[accessories.Solid], Color]:
        body, a = self.body, self.attributes
        cloth = {part.material.kind: part.material for part in tailor.parts}
        bag_color = cloth[OUTER if a.outer else UPPER].strap_color  # a bag matches its strap
        if a.bag == "handbag" and a.bag_color:
            bag_color = tinted(COLORS[a.bag_color], rng)
        hair = cloth[HAIR].color if HAIR in cloth else HAIR_COLORS[a.hair_color]
        solids = accessories.hair_solids(body, rest, a, hair, tailor.seed)
        solids += accessories.hat_solids(body, rest, a, rng)
        solids += accessories.eyewear_solids(body, rest, a)
        if a.upper:
            solids += accessories.collar_solids(body, rest, a.upper, cloth[UPPER], outer=False)
        if a.outer:
            solids += accessories.collar_solids(body, rest, a.outer, cloth[OUTER], outer=True)
        return solids + accessories.bag_solids(body, rest, self.heads, a, bag_color, rng), bag_color

    def _join(self, tailor: Tailor, solids: list[accessories.Solid]) -> None:
        """One vertex array for all parts, without the vertices that no triangle uses."""
        vertices, normals, static, weights = [], [], [], []
        faces: list[Ints] = []
        for part in tailor.parts:
            used = np.unique(part.faces)
            vertices.append(part.vertices[used])
            normals.append(vertex_normals(part.vertices, part.faces)[used])
            static.append(np.concatenate([part.template, part.arm], 1)[used])
            weights.append(part.weights[used])
            faces.append(np.searchsorted(used, part.faces).astype(np.int32))
        head = self.heads[self.body.bone_index["head"]]
        for solid in solids:
            points, triangles = solid.mesh
            vertices.append(points)
            normals.append(vertex_normals(points, triangles))
            local = points - head if solid.material.kind == HAIR else points
            static.append(np.concatenate([local, np.zeros((len(points), 2), np.float32)], 1))
            row = np.zeros((1, len(self.body.bones)), np.float32)
            for bone, weight in solid.bones:
                row[0, self.body.bone_index[bone]] = weight
            weights.append(sparse.csr_matrix(np.repeat(row, len(points), 0)))
            faces.append(triangles)
        materials = [part.material for part in tailor.parts] + [solid.material for solid in solids]
        starts = np.cumsum([0, *(len(v) for v in vertices)])
        self._vertices, self._normals = np.concatenate(vertices), np.concatenate(normals)  # (n, 3)
        self._static = np.concatenate(static).astype(np.float32)  # (n, 5): template position, arm
        self._weights = sparse.vstack(weights).tocsr().astype(np.float32)  # (n, bones)
        self._faces = np.concatenate([f + s for f, s in zip(faces, starts[:-1], strict=True)]).astype(np.int32)
        self._draws: list[tuple[int, int, Material]] = []
        first = 0
        for triangles, material in zip(faces, materials, strict=True):
            self._draws.append((first, triangles.size, material))
            first += triangles.size

    def carrying(self, rng: np.random.Generator) -> dict[str, str]:
        """What each arm does, for ``walking_pose``."""
        carry = {}
        for side, (thing, _) in self._held.items():
            carry[side] = {"umbrella": "raise", "phone": "ear" if rng.random() < 0.5 else "read"}.get(thing, "hang")
        if self.attributes.bag in ("backpack", "shoulder bag") and rng.random() < 0.15:
            carry.setdefault("l", "strap")
        return carry

    def posed(
        self,
        rng: np.random.Generator,
        yaw: float,
        position: tuple[float, float] = (0.0, 0.0),
        activity: str = "walking",
    ) -> PosedPerson:
        """The person at ``position`` (x, z) on the ground, turned by ``yaw`` (0 faces +z), at a random gait phase.

        ``activity`` is a key of STRIDES.
        """
        stride, phase = float(rng.choice(STRIDES[activity])), rng.uniform(0.0, 2.0 * np.pi)
        pose = walking_pose(self.body, self.heads, phase, stride, self.carrying(rng), rng)
        bones = self.body.bone_transforms(self.heads, pose)  # (B, 3, 4)
        transforms = (self._weights @ bones.reshape(len(bones), 12)).reshape(-1, 3, 4)
        points = np.einsum("nij,nj->ni", transforms[:, :, :3], self._vertices) + transforms[:, :, 3]
        normals = np.einsum("nij,nj->ni", transforms[:, :, :3], self._normals)
        place = np.array([position[0], 0.0, position[1]], np.float32)
        lift = np.array([0.0, -points[:, 1].min(), 0.0], np.float32)  # the lower foot touches the ground
        turn = rotation((0.0, 1.0, 0.0), yaw).astype(np.float32).T
        rows, faces, draws = [np.concatenate([points, normals, self._static], 1)], [self._faces], list(self._draws)
        framed, count = [points], len(points)
        for mesh_points, mesh_faces, material, is_framed in self._held_meshes(bones):
            static = np.concatenate([mesh_points, np.zeros((len(mesh_points), 2), np.float32)], 1)
            rows.append(np.concatenate([mesh_points, vertex_normals(mesh_points, mesh_faces), static], 1))
            draws.append((draws[-1][0] + draws[-1][1], mesh_faces.size, material))
            faces.append(mesh_faces + np.int32(count))
            count += len(mesh_points)
            if is_framed:
                framed.append(mesh_points)
        vertices = np.concatenate(rows).astype(np.float32)
        vertices[:, :3] = (vertices[:, :3] + lift) @ turn + place
        vertices[:, 3:6] = vertices[:, 3:6] @ turn
        outline = (np.concatenate(framed) + lift) @ turn + place
        return PosedPerson(vertices, np.concatenate(faces), draws, outline.astype(np.float32), place)

    def _held_meshes(self, bones: Floats) -> list[tuple[Floats, Ints, Material, bool]]:
        """What hands hold, moved to the palms (vertices, triangles, material, whether framed)."""
        meshes = []
        for side, (_, items) in self._held.items():
            hand, fore_arm = self.body.bone_index[f"hand_{side}"], self.body.bone_index[f"lowerarm_{side}"]
            rest_palm = self.heads[hand] + 0.28 * (self.heads[hand] - self.heads[fore_arm])
            palm = bones[hand, :, :3] @ rest_palm + bones[hand, :, 3]
            for item in items:
                points, faces = item.mesh
                material = replace(item.material, bottom=item.material.bottom + float(palm[1]))
                meshes.append(((points + palm).astype(np.float32), faces, material, item.framed))
        return meshes


def _prop_color(a: Attributes, rng: np.random.Generator) -> Color:
    cover = tinted(COLORS[str(rng.choice(["white", "blue", "brown", "red", "gray"]))], rng)
    match a.prop:
        case "phone":
            return 0.02, 0.02, 0.025
        case "bottle":
            return 0.55, 0.68, 0.74
        case "umbrella" if a.prop_color:
            return tinted(COLORS[a.prop_color], rng)
    return cover


def _body_shape(a: Attributes, ancestry: str, rng: np.random.Generator) -> BodyShape:
    weight = {"thin": -0.4, "average": 0.0, "heavy": 0.65}[a.build] + rng.normal(0.0, 0.08)
    chosen = rng.choice(len(FACE_TARGETS), size=4, replace=False)
    return BodyShape(
        male=1.0 if a.gender == "male" else 0.0,
        old={"young": 0.0, "adult": float(rng.uniform(0.0, 0.3)), "old": 0.9}[a.age],
        muscle=float(np.clip(rng.normal(0.0, 0.25), -0.8, 0.8)),
        weight=float(np.clip(weight, -0.9, 0.95)),
        height=float(np.clip(rng.normal(0.0, 0.3), -0.8, 0.8)),
        ancestry=((ancestry, 1.0),),
        details=tuple((FACE_TARGETS[i], float(rng.uniform(0.1, 0.7))) for i in chosen),
    )
