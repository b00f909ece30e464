"""Where a camera looks: ground, wall, kerbside objects, trees and light, and the "dead leaves" that replace them.

A scene belongs to a camera and never depends on who walks through it. Lengths are decimetres.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from model.synth.body import Floats

Vector = tuple[float, float, float]
GROUNDS, WALLS, MAX_BOXES, MAX_TREES = 10, 8, 8, 4
CRATE, CAR, GLASS = 3, 1, 2  # Box.kind, as in shaders.py; 0 is plain


@dataclass(frozen=True)
class Box:
    """An upright box standing about: a pillar, a kiosk, a part of a car."""

    center: Vector
    half: Vector
    color: Vector
    kind: int = 0


@dataclass(frozen=True)
class Scene:
    """The street behind, and the light on everything."""

    seed: float
    ground: int
    ground_a: Vector
    ground_b: Vector
    ground_yaw: float
    ground_scale: float
    wall: int
    wall_a: Vector
    wall_b: Vector
    wall_distance: float  # behind the scene's origin; negative means no wall
    wall_yaw: float
    horizon: Vector
    boxes: tuple[Box, ...]
    trees: tuple[tuple[float, float, float, float], ...]  # centre and radius of the crowns
    sun_direction: Vector  # unit, towards the sun
    sun_color: Vector
    sky_color: Vector
    bounce_color: Vector
    dapple: float  # how strongly leaves break the sunlight
    shade_edge: float  # a building's shadow begins this far from the origin, along shade_angle
    shade_angle: float


def _vector(values: NDArray[np.float64]) -> Vector:
    x, y, z = np.maximum(values, 0.01)
    return float(x), float(y), float(z)


def _surface_color(rng: np.random.Generator, low: float, high: float, tint: float) -> Vector:
    return _vector(rng.uniform(low, high) * rng.normal(1.0, tint, 3))


def _car(rng: np.random.Generator, x: float, z: float) -> list[Box]:
    lengthwise = rng.random() < 0.5
    paint = _vector(rng.uniform(0.05, 0.8) * rng.normal(1.0, 0.25, 3))

    def half(length: float, height: float, width: float) -> Vector:
        return (length, height, width) if lengthwise else (width, height, length)

    return [
        Box((x, 4.6, z), half(21.0, 3.1, 8.5), paint, CAR),
        Box((x, 9.9, z), half(11.0, 2.3, 7.4), paint, GLASS),
        Box((x, 12.4, z), half(10.0, 0.25, 7.0), paint),
    ]


def sample_scene(seed: int) -> Scene:
    """The scene of a camera. Three light regimes: sun, overcast, indoors or under a roof."""
    rng = np.random.default_rng(seed)
    regime = rng.choice(["sun", "overcast", "roofed"], p=[0.5, 0.3, 0.2])
    elevation, azimuth = np.radians(rng.uniform(25, 68)), rng.uniform(0.0, 2.0 * np.pi)
    sun = rng.uniform(0.8, 1.3) if regime == "sun" else rng.uniform(0.15, 0.5)
    sky = rng.uniform(0.42, 0.66) if regime == "sun" else rng.uniform(0.72, 1.1)
    warmth = rng.normal(0.03, 0.05)
    ground = int(rng.integers(0, GROUNDS))
    tone = _surface_color(rng, 0.18, 0.62, 0.05)
    ground_a = _vector(np.array(tone) * rng.uniform(0.7, 1.0))
    ground_b = _vector(np.array(tone) * rng.uniform(0.9, 1.3) * rng.normal(1.0, 0.04, 3))
    if ground == 2:
        ground_a, ground_b = (0.13, 0.20, 0.06), (0.36, 0.42, 0.17)
    if ground == 5:
        ground_b = _surface_color(rng, 0.2, 0.75, 0.1)
    boxes: list[Box] = []
    for _ in range(int(rng.integers(0, 5))):
        distance, angle = rng.uniform(16, 60), rng.uniform(-1.2, 1.2)
        x, z = float(distance * np.sin(angle)), float(-distance * np.cos(angle))
        match int(rng.integers(0, 4)):
            case 0 if len(boxes) <= MAX_BOXES - 3:
                boxes += _car(rng, x, z)
            case 1:
                boxes.append(Box((x, 18.0, z), (0.9, 18.0, 0.9), _surface_color(rng, 0.08, 0.7, 0.1)))
            case 2:
                boxes.append(Box((x, 5.0, z), (6.0, 5.0, 3.0), _surface_color(rng, 0.1, 0.75, 0.35), CRATE))
            case _:
                boxes.append(Box((x, 10.0, z), (8.0, 10.0, 6.0), _surface_color(rng, 0.1, 0.8, 0.25), CRATE))
    trees = []  # shrubs on the ground and crowns above
    for _ in range(int(rng.integers(0, MAX_TREES + 1)) if rng.random() < 0.6 else 0):
        radius = float(rng.uniform(4, 9))
        height = 0.6 * radius if rng.random() < 0.6 else float(rng.uniform(28, 45))
        trees.append((float(rng.uniform(-50, 50)), height, float(rng.uniform(-80, -24)), radius))
    in_sun = regime == "sun"
    return Scene(
        seed=float(rng.uniform(0.0, 60.0)),
        ground=ground,
        ground_a=ground_a,
        ground_b=ground_b,
        ground_yaw=float(rng.uniform(0.0, np.pi)),
        ground_scale=float(rng.uniform(0.75, 1.5)),
        wall=int(rng.integers(0, WALLS)),
        wall_a=_surface_color(rng, 0.18, 0.8, 0.12),
        wall_b=_surface_color(rng, 0.18, 0.8, 0.12),
        wall_distance=-1.0 if rng.random() < 0.12 else float(rng.uniform(18, 85)),
        wall_yaw=float(rng.normal(0.0, 0.45)),
        horizon=_vector(np.array([0.82, 0.9, 1.0]) * rng.uniform(0.75, 1.2)),
        boxes=tuple(boxes[:MAX_BOXES]),
        trees=tuple(trees),
        sun_direction=(
            float(np.cos(elevation) * np.sin(azimuth)),
            float(np.sin(elevation)),
            float(np.cos(elevation) * np.cos(azimuth)),
        ),
        sun_color=_vector(sun * np.array([1.0 + warmth, 1.0, 1.0 - 1.3 * warmth])),
        sky_color=_vector(sky * np.array([1.0 - warmth, 1.0, 1.0 + warmth])),
        bounce_color=_vector(sky * 0.6 * np.array([1.03, 1.0, 0.95])),
        dapple=float(rng.uniform(0.5, 0.95)) if in_sun and rng.random() < 0.28 else 0.0,
        shade_edge=float(rng.uniform(-14, 10)) if in_sun and rng.random() < 0.3 else -1e4,
        shade_angle=float(rng.uniform(0.0, 2.0 * np.pi)),
    )  # fmt: skip


def at_another_hour(scene: Scene, rng: np.random.Generator) -> Scene:
    """The same place under slightly different light: the sun has moved, a cloud passes."""
    x, y, z = scene.sun_direction
    turn, dim = rng.normal(0.0, 0.25), rng.uniform(0.7, 1.1)
    sun = (float(x * np.cos(turn) + z * np.sin(turn)), y, float(z * np.cos(turn) - x * np.sin(turn)))
    return replace(
        scene,
        sun_direction=sun,
        sun_color=_vector(np.array(scene.sun_color) * dim),
        sky_color=_vector(np.array(scene.sky_color) * (1.0 + 0.25 * (1.0 - dim))),
    )


def dead_leaves(height: int, width: int, rng: np.random.Generator, shapes: int = 150) -> Floats:
    """A backdrop (height, width, 3), linear light, of overlapping shapes with power-law sizes: statistics of natural
    images, meaning of none (Lee, Mumford and Huang 2001)."""
    base, spread = rng.uniform(0.25, 0.75) + rng.normal(0.0, 0.04, 3), rng.uniform(0.06, 0.2)

    def color() -> tuple[int, int, int]:
        shade = base + rng.normal(0.0, spread, 3) * 0.25 + rng.normal(0.0, spread)
        r, g, b = (255.0 * np.clip(shade, 0.02, 1.0)).astype(int)
        return int(r), int(g), int(b)

    image = Image.new("RGB", (width, height), color())
    draw = ImageDraw.Draw(image)
    for _ in range(shapes):
        radius = min(0.8 * width, 0.03 * width * (rng.random() + 1e-3) ** -0.6)
        x, y, kind = rng.uniform(0, width), rng.uniform(0, height), int(rng.integers(0, 7))
        if kind < 2:
            flat = radius * rng.uniform(0.3, 1.0)
            draw.ellipse((x - radius, y - flat, x + radius, y + flat), fill=color())
        elif kind == 2:
            end = (x + rng.normal(0, 0.1 * width), y + rng.uniform(0.1, 0.8) * height)
            draw.line((x, y, *end), fill=color(), width=max(1, int(0.15 * radius)))
        else:
            angle = 0.0 if rng.random() < 0.6 else rng.uniform(-0.5, 0.5)
            long, short = 0.7 * radius, radius * rng.uniform(0.2, 1.25)
            corners = np.array([[-long, -short], [long, -short], [long, short], [-long, short]])
            turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
            draw.polygon([(float(px), float(py)) for px, py in corners @ turn + [x, y]], fill=color())
    image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.003, 0.015)) * width))
    leaves = (np.asarray(image, np.float32) / 255.0) ** 1.6
    grain = rng.normal(1.0, rng.uniform(0.02, 0.10), (height, width, 1)).astype(np.float32)
    slope = np.linspace(rng.uniform(0.8, 1.2), rng.uniform(0.8, 1.2), height, dtype=np.float32)[:, None, None]
    return np.asarray(np.clip(leaves * grain * slope, 0.0, 1.3), np.float32)
