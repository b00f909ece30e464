"""What a person wears or holds that is no shell around the body: collars, hoods, hats, glasses, bags, props.

Functions return ``Solid``s: small closed meshes in rest pose (decimetres) tied to one or two bones. What hands hold
is built around the palm instead, since it hangs down whatever the arm does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from model.synth.attributes import COLORS, Attributes
from model.synth.body import BODY_VERTICES, Body, Floats, Ints
from model.synth.garments import HAIR, SOLID, Color, Material, reflectance, tinted

Mesh = tuple[Floats, Ints]  # vertices (n, 3), triangles (f, 3)
Bones = tuple[tuple[str, float], ...]  # bones with their weights
BAG_STYLE, PANEL_STYLE, TWO_COLOR_STYLE = 1, 2, 3  # Material.style of a SOLID, as in shaders.py
HEAD: Bones = (("head", 1.0),)
NECK: Bones = (("neck_01", 0.5), ("spine_03", 0.5))
HIP: Bones = (("pelvis", 0.7), ("spine_01", 0.3))


@dataclass(frozen=True)
class Solid:
    """A mesh in rest pose and the bones that carry it."""

    mesh: Mesh
    bones: Bones
    material: Material


@dataclass(frozen=True)
class HeldItem:
    """A mesh around the palm; ``framed`` says whether the crop is fitted around it, too."""

    mesh: Mesh
    material: Material
    framed: bool = True


@cache
def _grid(rows: int, columns: int) -> Ints:
    """Triangles of a (rows, columns) grid of vertices that closes around its columns."""
    i, j = np.meshgrid(np.arange(rows - 1), np.arange(columns), indexing="ij")
    a, b = (i * columns + j).ravel(), (i * columns + (j + 1) % columns).ravel()
    lower, upper = np.stack([a, a + columns, b], 1), np.stack([b, a + columns, b + columns], 1)
    return np.concatenate([lower, upper]).astype(np.int32)


def superellipsoid(center: ArrayLike, radii: ArrayLike, roundness: float = 0.4) -> Mesh:
    """A box with soft edges: ``roundness`` 1 is an ellipsoid, towards 0 a box."""

    def power(w: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.sign(w) * np.abs(w) ** roundness

    latitude = np.linspace(-np.pi / 2, np.pi / 2, 13)[:, None]
    longitude = np.linspace(-np.pi, np.pi, 20, endpoint=False)[None]
    x = power(np.cos(latitude)) * power(np.cos(longitude))
    y = power(np.sin(latitude)) * np.ones_like(longitude)
    z = power(np.cos(latitude)) * power(np.sin(longitude))
    points = np.stack([x, y, z], -1).reshape(-1, 3) * np.asarray(radii) + np.asarray(center)
    return points.astype(np.float32), _grid(13, 20)


def tube(path: ArrayLike, radius: ArrayLike, sides: int = 8) -> Mesh:
    """A tube along ``path`` (n, 3) with one radius or one per point."""
    points = np.asarray(path, np.float64)
    radii = np.broadcast_to(np.asarray(radius, np.float64), len(points))
    direction = np.gradient(points, axis=0)
    direction /= np.maximum(np.linalg.norm(direction, axis=1, keepdims=True), 1e-9)
    first = np.cross(direction, [0.31, 0.12, 1.0])
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    second = np.cross(direction, first)
    turn = np.linspace(0.0, 2.0 * np.pi, sides, endpoint=False)
    ring = np.cos(turn)[None, :, None] * first[:, None] + np.sin(turn)[None, :, None] * second[:, None]
    vertices = points[:, None] + radii[:, None, None] * ring
    return vertices.reshape(-1, 3).astype(np.float32), _grid(len(points), sides)


def lathe(center: ArrayLike, profile: ArrayLike, stretch: float = 1.0, sides: int = 20) -> Mesh:
    """A surface of revolution about a vertical axis: ``profile`` (n, 2) of radius and height, z scaled."""
    rings = np.asarray(profile, np.float64)
    turn = np.linspace(0.0, 2.0 * np.pi, sides, endpoint=False)
    x = rings[:, :1] * np.cos(turn)
    z = rings[:, :1] * np.sin(turn) * stretch
    y = np.repeat(rings[:, 1:], sides, 1)
    return (np.stack([x, y, z], -1).reshape(-1, 3) + np.asarray(center)).astype(np.float32), _grid(len(rings), sides)


def _dimmed(color: Color, factor: float) -> Color:
    return factor * color[0], factor * color[1], factor * color[2]


def _head_box(body: Body, vertices: Floats) -> tuple[Floats, Floats]:
    """Lowest and highest corner (3,) of the head, chin to crown."""
    weight = np.asarray(body.weights[:BODY_VERTICES, body.bone_index["head"]].todense()).ravel()
    skull = vertices[:BODY_VERTICES][(weight > 0.5) & (body.template[:BODY_VERTICES, 1] > 6.35)]
    return np.asarray(skull.min(0)), np.asarray(skull.max(0))


def hair_solids(body: Body, vertices: Floats, a: Attributes, color: Color, seed: float) -> list[Solid]:
    """Ponytail or bun."""
    low, high = _head_box(body, vertices)
    back = np.array([0.0, (low[1] + 2 * high[1]) / 3.0 - 0.05, low[2] + 0.12])
    strands = Material(
        HAIR, style=1, color=color, gloss=0.16, seed=seed, heat=0.6, reflectance=(0.24, 0.24, 0.24), top=-99.0
    )
    if a.hair == "ponytail":
        path = back + np.array([[0, 0.1, 0.1], [0, 0.0, -0.35], [0, -0.7, -0.55], [0, -1.6, -0.45], [0, -2.2, -0.3]])
        return [Solid(tube(path, [0.16, 0.3, 0.3, 0.2, 0.04], 10), HEAD, strands)]
    if a.hair == "bun":
        return [Solid(superellipsoid(np.add(back, (0, 0.35, -0.15)), (0.42, 0.4, 0.4), 1.0), HEAD, strands)]
    return []


def hat_solids(body: Body, vertices: Floats, a: Attributes, rng: np.random.Generator) -> list[Solid]:
    """A cap with its peak, or a brimmed hat with a band."""
    if a.hat is None or a.hat_color is None:
        return []
    low, high = _head_box(body, vertices)
    width, depth, middle = (high[0] - low[0]) / 2 + 0.16, (high[2] - low[2]) / 2 + 0.12, (high[2] + low[2]) / 2 - 0.06
    color, top, widen = tinted(COLORS[a.hat_color], rng), high[1], np.array([width, 1.0])
    felt = Material(SOLID, PANEL_STYLE, color, gloss=0.03, fold=0.15, reflectance=reflectance(rng), heat=0.5)
    if a.hat == "cap":
        profile = np.array([(1.0, 0.0), (1.0, 0.35), (0.9, 0.72), (0.6, 0.96), (0.02, 1.04)]) * widen
        crown = lathe((0, top - 0.86, middle), profile, depth / width)
        turn = np.linspace(-1.0, 1.0, 9)
        inner = np.stack([np.sin(1.15 * turn) * width * 0.95, -0.04 - 0.10 * turn**2, np.cos(1.15 * turn) * depth], 1)
        outer = inner + np.stack([0 * turn, 0 * turn - 0.06, 0.85 * np.cos(1.2 * turn)], 1)
        thickness = np.array([0.0, 0.05, 0.0])
        rows = [inner, outer, outer - thickness, inner - thickness]
        faces = np.array([
            [9 * row + k + corner for corner in triangle]
            for row in range(3) for k in range(8) for triangle in ((0, 1, 9), (1, 10, 9))
        ], np.int32)  # fmt: skip
        peak = np.add(np.concatenate(rows), (0.0, top - 0.8, middle)).astype(np.float32)
        return [
            Solid(crown, HEAD, felt),
            Solid((peak, faces), HEAD, replace(felt, style=0, color=_dimmed(color, 0.85))),
        ]
    profile = [(1.75, -0.12), (1.7, -0.02), (1.02, 0.0), (1.0, 0.4), (0.93, 0.8), (0.8, 0.95), (0.02, 0.9)] * widen
    crown = lathe((0, top - 0.78, middle), profile, depth / width)
    banded = replace(felt, style=TWO_COLOR_STYLE, color=_dimmed(color, 0.6), color2=color, bottom=float(top) - 0.55)
    return [Solid(crown, HEAD, banded)]


def eyewear_solids(body: Body, vertices: Floats, a: Attributes) -> list[Solid]:
    """Round frames, or dark lenses, with a bridge and temples."""
    if a.eyewear is None:
        return []
    frame = Material(SOLID, color=(0.02, 0.02, 0.02), gloss=0.2, reflectance=(0.1, 0.1, 0.1), heat=0.5)
    low, high = _head_box(body, vertices)
    turn = np.linspace(0.0, 2.0 * np.pi, 13)
    meshes: list[Mesh] = []
    for side, sign in (("l", 1.0), ("r", -1.0)):
        eye = np.add(body.joint(vertices, f"{side}-eye"), (0.03 * sign, -0.03, 0.37))
        if a.eyewear == "sunglasses":
            meshes.append(superellipsoid(eye, (0.28, 0.22, 0.05), 0.8))
        else:
            ring = np.stack([0.26 * np.cos(turn), 0.20 * np.sin(turn), -0.10 * np.abs(np.cos(turn))], 1)
            meshes.append(tube(eye + ring, 0.04, 5))
        hinge = np.add(eye, (0.28 * sign, 0.06, -0.08))
        corner = (sign * max(abs(hinge[0]) + 0.12, high[0] - 0.25), hinge[1], hinge[2] - 0.3)
        ear = (sign * (high[0] - 0.12), eye[1] + 0.04, (low[2] + high[2]) / 2 - 0.1)
        meshes.append(tube(np.array([hinge, corner, ear]), 0.035, 5))
    _, y, z = body.joint(vertices, "l-eye")
    meshes.append(tube([(0.09, y, z + 0.40), (0.0, y + 0.03, z + 0.45), (-0.09, y, z + 0.40)], 0.035, 5))
    return [Solid(mesh, HEAD, frame) for mesh in meshes]


def collar_solids(body: Body, vertices: Floats, garment: str | None, cloth: Material, outer: bool) -> list[Solid]:
    """Turned-down collars of shirts, polos and coats, stand-up collars of jackets, the hood of a hoodie."""
    template = body.template[:BODY_VERTICES]
    ring = (body.arm_weight[:BODY_VERTICES] < 0.3) & (np.abs(template[:, 1] - 5.85) < 0.15)
    neck = vertices[:BODY_VERTICES][ring & (np.abs(template[:, 0]) < 1.0)]
    low, high = neck.min(0), neck.max(0)
    x, z = (high[0] - low[0]) / 2 + 0.1, (high[2] - low[2]) / 2 + 0.1
    middle = np.array([0.0, neck[:, 1].mean(), (low[2] + high[2]) / 2])
    material = replace(cloth, kind=SOLID, style=0, pattern=0, fold=0.1, bottom=-99.0, top=99.0, strap=0)
    if garment == "hoodie":
        hood = superellipsoid(np.add(middle, (0, -0.38, -z - 0.28)), (0.98, 0.62, 0.42), 0.9)
        turn = np.linspace(0.0, 2.0 * np.pi, 25)
        roll = [(x + 0.16) * np.cos(turn), -0.18 - 0.30 * np.sin(turn), (z + 0.2) * np.sin(turn)]
        return [
            Solid(hood, (("spine_03", 1.0),), material),
            Solid(tube(np.stack(roll, 1) + middle, 0.2, 8), NECK, material),
        ]
    profile = {
        "shirt": [(1.12, -0.35), (1.0, 0.12), (1.04, 0.2), (1.1, 0.16), (1.22, -0.13)],
        "coat": [(1.12, -0.35), (1.0, 0.12), (1.04, 0.2), (1.1, 0.16), (1.22, -0.40)],
        "jacket": [(1.16, -0.3), (1.08, 0.12), (1.12, 0.24), (1.18, 0.2), (1.24, -0.3)],
    }.get("shirt" if garment == "polo shirt" else garment or "")
    if profile is None:
        return []
    grow, columns = 0.16 if outer else 0.0, 26
    rings = np.array(profile) * [x + grow, 1.0]
    turn = np.linspace(0.13, 2 * np.pi - 0.13, columns) + np.pi / 2  # open at the throat
    droop = 0.30 * (0.5 + 0.5 * np.sin(turn)) ** 2  # the throat lies lower than the nape
    depth = np.sin(turn) * (z + grow) / (x + grow)
    points = np.stack([rings[:, :1] * np.cos(turn), rings[:, 1:] - droop, rings[:, :1] * depth - 0.02], -1)
    faces = _grid(len(rings), columns)
    column = faces % columns
    seam = (column == 0).any(1) & (column == columns - 1).any(1)
    # Wound so that the turned-down outside is the front face.
    mesh = ((points.reshape(-1, 3) + middle).astype(np.float32), np.ascontiguousarray(faces[~seam][:, ::-1]))
    return [Solid(mesh, NECK, material)]


def bag_solids(
    body: Body, vertices: Floats, heads: Floats, a: Attributes, color: Color, rng: np.random.Generator
) -> list[Solid]:
    """A backpack, or a bag at the hip with the lower ends of its strap; a handbag is held (see ``held_items``)."""
    if a.bag not in ("backpack", "shoulder bag", "crossbody bag"):
        return []
    tights = np.unique(body.faces["helper-tights"])
    trunk = tights[body.arm_weight[tights] < 0.5]
    height, shape = body.template[trunk, 1], vertices[trunk]
    size = float(rng.uniform(0.85, 1.12))
    leather = Material(SOLID, BAG_STYLE, color, gloss=0.08, fold=0.18, heat=0.35, reflectance=reflectance(rng))
    trim = replace(leather, color=_dimmed(color, 0.8))
    if a.bag == "backpack":
        back = shape[(height > 2.5) & (height < 5.0), 2].min()
        center = np.array([0.0, heads[body.bone_index["spine_03"], 1] - 0.5, back - 0.75 * size - 0.2])
        handle = np.array([[-0.3, 1.7, 0.5], [-0.2, 2.0, 0.5], [0.2, 2.0, 0.5], [0.3, 1.7, 0.5]]) * [1, size, size]
        pocket = center + np.array([0.0, -0.75, -0.8]) * size
        y = float(center[1])
        spine: Bones = (("spine_03", 1.0),)
        trim = replace(trim, bottom=y - 0.45)
        return [
            Solid(
                superellipsoid(center, np.array([1.3, 1.85, 0.8]) * size, 0.45),
                spine,
                replace(leather, bottom=y + 0.75 * size),
            ),
            Solid(superellipsoid(pocket, np.array([0.95, 0.8, 0.34]) * size, 0.45), spine, trim),
            Solid(tube(center + handle, 0.07, 6), spine, trim),
        ]
    side = 1.0 if a.bag_side == "left" else -1.0
    hip = shape[np.abs(height - 0.6) < 0.5, 0].max()
    center = np.array([side * (hip + 0.5), heads[body.bone_index["pelvis"], 1] - 0.1, -0.1])
    reach = (1.0 if a.bag == "shoulder bag" else 0.75) * side * (hip + 0.28)
    y = float(center[1])
    strap = np.array([[center[0], y + 0.8 * size, center[2] + 0.8], [reach, y + 1.9, 0.75]])
    behind = strap * [1, 1, -1] + [0, 0, -0.15]
    bag = superellipsoid(center, np.array([0.42, 0.95, 1.2]) * size, 0.4)
    cord = Material(SOLID, color=trim.color, reflectance=leather.reflectance, heat=0.35)
    return [
        Solid(bag, (("pelvis", 1.0),), replace(leather, bottom=y + 0.3 * size)),
        Solid(tube(strap, 0.09, 6), HIP, cord),
        Solid(tube(behind, 0.09, 6), HIP, cord),
    ]


def held_items(a: Attributes, prop_color: Color, bag_color: Color) -> dict[str, tuple[str, list[HeldItem]]]:
    """What hands hold, by side "l" or "r": the name of the thing and its meshes around the palm."""
    held: dict[str, tuple[str, list[HeldItem]]] = {}
    if a.bag == "handbag":
        leather = Material(SOLID, BAG_STYLE, bag_color, bottom=-1.2, gloss=0.14, fold=0.1, heat=0.35)
        bag = superellipsoid((0, -1.6, 0), (0.42, 0.88, 1.25), 0.4)
        handle = tube([(0, -0.8, -0.7), (0, -0.1, -0.32), (0, 0.0, 0), (0, -0.1, 0.32), (0, -0.8, 0.7)], 0.075, 6)
        held["l" if a.bag_side == "left" else "r"] = ("handbag", [HeldItem(bag, leather), HeldItem(handle, leather)])
    if a.prop is None:
        return held
    plain = Material(SOLID, color=prop_color, gloss=0.12, heat=0.4)
    match a.prop:
        case "umbrella":
            profile = [(0.02, 0.1), (1.5, 0.0), (3.0, -0.4), (4.2, -0.95), (4.8, -1.5)]
            canopy = lathe((0, 6.2, -0.5), profile, sides=8)
            pole = tube([(0, -0.5, 0.05), (0, 6.2, -0.5)], 0.06, 6)
            metal = Material(SOLID, color=(0.2, 0.2, 0.2), gloss=0.3, heat=0.3)
            items = [HeldItem(canopy, replace(plain, gloss=0.05), framed=False), HeldItem(pole, metal, framed=False)]
        case "phone":
            items = [HeldItem(superellipsoid((0, 0.25, 0.12), (0.34, 0.68, 0.07), 0.3), plain)]
        case "bottle":
            profile = [(0.02, 0.0), (0.3, 0.02), (0.3, 1.2), (0.12, 1.55), (0.12, 1.8), (0.02, 1.8)]
            items = [HeldItem(lathe((0, -0.9, 0.1), profile, sides=12), replace(plain, gloss=0.4))]
        case _:  # a book
            items = [HeldItem(superellipsoid((0, 0, 0.15), (0.16, 1.1, 0.8), 0.25), plain)]
    held["l" if "r" in held else "r"] = (a.prop, items)
    return held
