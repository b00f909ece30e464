"""Clothes as shells around the body: skin, trousers, tops, coats, skirts, shoes and hair, cut by the fragment shader.

A garment is the mesh's helper "tights" (or "skirt", "hair"), smoothed, pushed away from the skin and widened; where
it ends and what is printed on it is a ``Material`` that the shader evaluates in template coordinates. Things that
are not shells (collars, bags, hats, what hands hold) are in accessories.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
import scipy.sparse as sparse
from numpy.typing import ArrayLike

from model.synth.attributes import COLORS, HAIR_COLORS, LOWERS, OUTERS, SHOES, UPPERS, Attributes
from model.synth.body import BODY_VERTICES, Body, Floats, Ints, vertex_normals

Color = tuple[float, float, float]
SKIN, LOWER, UPPER, OUTER, SHOE, SKIRT, HAIR, SOLID, EYE = range(9)  # Material.kind, as in shaders.py
PATTERN_CODES = {"plain": 0, "striped": 1, "plaid": 3, "polka dot": 4, "logo": 5, "two-tone": 6, "floral": 7}
BLOCK_CODE, ROUND_LOGO_CODE, DENIM_CODE = 8, 9, 10
DRESS_STYLE = len(UPPERS)  # Material.style of a dress's upper half
SKIRT_BOTTOM = {"short": -2.3, "knee-length": -3.8, "long": -6.3}
BLACK, WHITE = COLORS["black"], COLORS["white"]


@dataclass(frozen=True)
class Material:
    """What the fragment shader needs to draw one part; the names are its uniforms. Heights are template y."""

    kind: int
    style: int = 0  # index into UPPERS, OUTERS, LOWERS or SHOES
    color: Color = WHITE
    color2: Color = WHITE
    color3: Color = BLACK
    pattern: int = 0
    scale: float = 1.0  # of the pattern; for a colour block its height
    bottom: float = -99.0
    top: float = 99.0
    sleeve: float = 1.0  # where sleeves end: 0 shoulder, 1 wrist
    neckline: float = 0.0  # depth below the base of the neck
    opening: float = 0.0  # half width of an open front
    fold: float = 0.0
    gloss: float = 0.0
    seed: float = 0.0
    strap: int = 0  # 1 backpack; 2, 3 across the chest from the left, right shoulder; 4, 5 on the left, right
    strap_color: Color = BLACK
    beard: float = 0.0
    lips: float = 0.0
    belt: float = 0.0
    parting: float = 0.0
    behind: float = 0.0  # loose hair worn behind the shoulders
    heat: float = 0.45  # thermal radiance
    reflectance: Color = (0.5, 0.4, 0.3)  # near infrared, in place of the three colours


@dataclass(frozen=True)
class Part:
    """A piece of the person in rest pose, with the bones that move it."""

    vertices: Floats  # (n, 3)
    template: Floats  # (n, 3)
    arm: Floats  # (n, 2): how much it belongs to an arm, and where along it
    faces: Ints  # (f, 3)
    weights: sparse.csr_matrix  # (n, bones)
    material: Material
    framed: bool = True  # whether the crop is fitted around it


def tinted(color: Color, rng: np.random.Generator, spread: float = 0.06) -> Color:
    """A shade of a named colour: no two shops dye alike."""
    shade = np.array(color) * (1.0 + rng.normal(0.0, 1.6 * spread)) * (1.0 + rng.normal(0.0, 0.5 * spread, 3))
    shade += rng.uniform(0.0, 0.25 * spread)  # lifts the dark ones, which vary by more than a few per cent
    r, g, b = np.clip(shade, 0.012, 0.95)
    return float(r), float(g), float(b)


def reflectance(rng: np.random.Generator, print_vanishes: float = 0.6) -> Color:
    """Near-infrared reflectances, unrelated to the visible colours; most dyes of a print look alike there."""
    base = float(rng.uniform(0.18, 0.85))
    second = base if rng.random() < print_vanishes else float(rng.uniform(0.18, 0.85))
    return base, second, second


@cache
def tights_smoother(body: Body) -> tuple[Ints, Ints, sparse.csr_matrix, Floats]:
    """Vertex numbers (n,), local faces, neighbour averaging (n, n) and smoothed template (n, 3) of the tights."""
    index = np.unique(body.faces["helper-tights"]).astype(np.int32)
    local = np.searchsorted(index, body.faces["helper-tights"]).astype(np.int32)
    edges = np.concatenate([local[:, [0, 1]], local[:, [1, 2]], local[:, [2, 0]]])
    edges = np.unique(np.concatenate([edges, edges[:, ::-1]]), axis=0)
    adjacency = sparse.coo_matrix((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(len(index),) * 2).tocsr()
    average = (sparse.diags(1.0 / np.asarray(adjacency.sum(1)).ravel()) @ adjacency).astype(np.float32).tocsr()
    template = body.template[index]
    smooth = template.copy()
    for _ in range(10):
        smooth += 0.6 * (average @ smooth - smooth)
    feet = template[:, 1] < -7.4
    smooth[feet] = template[feet]
    return index, local, average, smooth


@dataclass
class Tailor:
    """Cuts the clothes of one body: its tights, smoothed step by step as far as each garment wants."""

    body: Body
    vertices: Floats  # (V, 3) morphed, rest pose
    attributes: Attributes
    rng: np.random.Generator
    parts: list[Part] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.index, self.faces, self._average, self.smooth_template = tights_smoother(self.body)
        self.template = self.body.template[self.index]
        self.rest = self.vertices[self.index]
        self.rest_normals = vertex_normals(self.rest, self.faces)
        self.arm_weight = self.body.arm_weight[self.index]
        self.arm_position = self.body.arm_position[self.index]
        self.seed = float(self.rng.uniform(0.0, 50.0))
        self._smoothed = {0: self.rest}

    def smooth(self, rounds: int) -> Floats:
        done = max(n for n in self._smoothed if n <= rounds)
        shell = self._smoothed[done].copy()
        for _ in range(rounds - done):
            shell += 0.6 * (self._average @ shell - shell)
        self._smoothed[rounds] = shell
        return shell

    def pushed(self, shell: Floats, distance: ArrayLike) -> Floats:
        """The shell moved outward by ``distance``, a number or one per vertex."""
        return shell + vertex_normals(shell, self.faces) * np.reshape(np.asarray(distance, np.float32), (-1, 1))

    def clear_of_skin(self, shell: Floats, distance: float) -> Floats:
        """The shell pushed out wherever it is nearer to the skin than ``distance``."""
        gap = ((shell - self.rest) * self.rest_normals).sum(1)
        return np.asarray(shell + self.rest_normals * np.clip(distance - gap, 0.0, 0.8)[:, None], np.float32)

    def widened_torso(self, shell: Floats, sideways: float, depth: float, start: float) -> Floats:
        """The trunk below template height ``start`` scaled about the body's axis, more towards the hem."""
        shell, torso = shell.copy(), self.arm_weight < 0.5
        amount = np.clip((start - self.template[:, 1]) / 3.2, 0.0, 1.0) * torso
        axis = shell[torso, 2].mean()
        shell[:, 0] *= 1.0 + sideways * amount
        shell[:, 2] = axis + (shell[:, 2] - axis) * (1.0 + depth * amount)
        return shell

    def widened_legs(self, shell: Floats, at_crotch: float, at_hem: float, hem: float) -> Floats:
        """Trouser legs moved away from the axis of the leg, ``at_crotch`` .. ``at_hem`` decimetres."""
        joints = [self.body.joint(self.vertices, f"l-{name}") for name in ("ankle", "knee", "upper-leg")]
        heights = [float(j[1]) for j in joints]
        y = np.clip(shell[:, 1], heights[0], heights[2])
        center_x = np.interp(y, heights, [float(j[0]) for j in joints]) * np.sign(shell[:, 0])
        center_z = np.interp(y, heights, [float(j[2]) for j in joints])
        height = self.template[:, 1]
        legs = (self.arm_weight < 0.5) & (height < 0.2)
        progress = np.clip((0.2 - height) / (0.2 - hem), 0.0, 1.0)
        radius = np.maximum(np.hypot(shell[:, 0] - center_x, shell[:, 2] - center_z), 0.3)
        factor = np.where(legs, 1.0 + (at_crotch + (at_hem - at_crotch) * progress) / radius, 1.0)
        shell = shell.copy()
        shell[:, 0] = center_x + (shell[:, 0] - center_x) * factor
        shell[:, 2] = center_z + (shell[:, 2] - center_z) * factor
        return shell

    def add_shell(self, shell: Floats, material: Material, template: Floats | None = None) -> None:
        """A part made of the tights, without the triangles its material would cut away."""
        template = self.smooth_template if template is None else template
        sleeved = np.where(self.arm_weight > 0.5, self.arm_position <= material.sleeve + 0.1, False)
        y = template[:, 1]
        trunk = (self.arm_weight <= 0.5) & (y > material.bottom - 0.6) & (y < material.top + 0.6)
        wanted = trunk | sleeved if material.kind in (UPPER, OUTER) else trunk
        self._add(shell, self.index, template, self.faces[wanted[self.faces].any(1)], material)

    def _add(self, vertices: Floats, index: Ints, template: Floats, faces: Ints, material: Material) -> None:
        arm = np.stack([self.body.arm_weight[index], self.body.arm_position[index]], 1)
        material = replace(material, seed=self.seed + 3.1 * len(self.parts))
        weights = self.body.weights[index]
        self.parts.append(Part(vertices.astype(np.float32), template, arm, faces, weights, material))

    def skin(self, color: Color, hair_color: Color, sleeve: float, covered_to: float, barefoot: bool) -> None:
        """The body: sunk beneath the clothes, and left out where nothing of it can show.

        ``sleeve`` and ``covered_to`` say how far arms and legs are covered (template arm position and y).
        """
        body, a, rng = self.body, self.attributes, self.rng
        vertices, template = self.vertices[:BODY_VERTICES], body.template[:BODY_VERTICES]
        faces = body.faces["body"]
        normals = vertex_normals(vertices, faces)
        on_arm, along = body.arm_weight[:BODY_VERTICES] >= 0.5, body.arm_position[:BODY_VERTICES]
        x, y, z = np.abs(template[:, 0]), template[:, 1], template[:, 2]
        under = np.where(on_arm, along < 0.9 * sleeve, (y < 5.2) & (y > -1.0))
        under |= ~on_arm & (y < 0.5) & (y > max(covered_to + 0.4, -7.4))
        sunk = 0.16 * under + (0.10 * (y < -7.6) if not barefoot else 0.0)
        neck = np.hypot(x, z + 0.05)
        bare_shoulder = (x > 0.85) & (y > 3.2) if sleeve < 0.2 else np.zeros(BODY_VERTICES, bool)
        throat = (z > 0) & (neck < 1.05) & (y > 4.5)
        hidden = ~on_arm & (y < 5.45) & (y > 1.0) & ~throat & ~bare_shoulder
        hidden |= ~on_arm & (neck > 1.25) & (y < 5.95) & (y > 5.0) & ~bare_shoulder
        hidden |= on_arm & (along < sleeve - 0.12)
        hidden |= ~on_arm & (y < 1.1) & (y > covered_to + 0.35)
        if not barefoot:
            hidden |= y < -7.75
        material = Material(
            SKIN, color=color, color2=hair_color, gloss=0.07, heat=0.92, reflectance=(0.62, 0.3, 0.3),
            beard=float(a.gender == "male" and rng.random() < 0.16), lips=float(a.gender == "female"),
        )  # fmt: skip
        index = np.arange(BODY_VERTICES, dtype=np.int32)
        sunken = (vertices - normals * sunk[:, None]).astype(np.float32)
        self._add(sunken, index, template, faces[~hidden[faces].all(1)], material)
        eyes = np.concatenate([body.faces["helper-l-eye"], body.faces["helper-r-eye"]])
        index = np.unique(eyes).astype(np.int32)
        iris = (0.05, 0.03, 0.02) if rng.random() < 0.7 else (0.12, 0.16, 0.18)
        material = Material(EYE, color2=iris, heat=0.9, gloss=0.2)
        self._add(
            self.vertices[index], index, body.template[index], np.searchsorted(index, eyes).astype(np.int32), material
        )

    def shoes(self) -> None:
        a, rng = self.attributes, self.rng
        color = tinted(COLORS[a.shoe_color], rng)
        sole_colors = {"sneakers": WHITE, "shoes": COLORS["black"], "sandals": COLORS["brown"], "boots": BLACK}
        sole = tinted(sole_colors[a.shoe], rng) if rng.random() < 0.7 else color
        trim = WHITE if a.shoe_color != "white" else tinted(COLORS["gray"], rng)
        boots = a.shoe == "boots"
        top = {"shoes": -7.5, "sneakers": -7.4, "sandals": -7.3, "boots": rng.uniform(-6.4, -5.0)}[a.shoe]
        away = np.where(self.template[:, 1] > -7.0, 0.26, 0.15) if boots else 0.11
        shell = self.pushed(self.smooth(2), away)
        sole_rows = self.template[:, 1] < -8.0
        shell[sole_rows, 1] -= 0.12 if a.shoe in ("shoes", "sandals") else 0.2
        material = Material(
            SHOE, SHOES.index(a.shoe), color, sole, trim, top=float(top), gloss=0.12, reflectance=reflectance(rng)
        )
        self.add_shell(shell, material, self.template)
        bare_ankles = a.lower in ("shorts", "skirt", "leggings") or a.dress
        if a.shoe in ("sneakers", "shoes") and bare_ankles and rng.random() < 0.6:
            sock = tinted(WHITE if rng.random() < 0.6 else BLACK, rng)
            height = float(rng.uniform(-7.2, -6.4))
            material = Material(LOWER, 4, sock, bottom=-8.5, top=height, reflectance=reflectance(rng))
            self.add_shell(self.pushed(self.smooth(4), 0.06), material)

    def lower(self, top: float, bottom: float) -> None:
        """Trousers of any cut, from template height ``top`` down to ``bottom``."""
        a, rng = self.attributes, self.rng
        assert a.lower is not None and a.lower_color is not None
        slim = rng.random() < (0.55 if a.gender == "female" else 0.25)
        crotch, hem = {
            "pants": (0.12, rng.uniform(0.10, 0.42)),
            "jeans": (0.10, 0.06 if slim else rng.uniform(0.14, 0.30)),
            "slacks": (0.14, rng.uniform(0.18, 0.32)),
            "shorts": (0.18, rng.uniform(0.25, 0.60)),
            "leggings": (0.015, 0.015),
        }[a.lower]
        if a.shoe == "boots" and bottom > -7.0:
            hem = 0.05  # tucked into the boots
        shell = self.clear_of_skin(self.pushed(self.smooth(6), 0.08), 0.07)
        shell = self.widened_legs(shell, crotch, hem, bottom)
        color = tinted(COLORS[a.lower_color], rng)
        washed = np.clip(np.array(color) * 1.6 + 0.06, 0.0, 1.0)
        jeans = a.lower == "jeans"
        self.add_shell(
            shell,
            Material(
                LOWER, LOWERS.index(a.lower), color, (float(washed[0]), float(washed[1]), float(washed[2])),
                pattern=DENIM_CODE if jeans else 0, bottom=bottom, top=top, belt=float(rng.random() < 0.4),
                fold=0.10 if a.lower == "leggings" else 0.42, reflectance=reflectance(rng), heat=0.55,
            ),
        )  # fmt: skip

    def upper(self, material: Material, loose: float, sleeve_loose: float) -> None:
        shell = self.widened_torso(self.pushed(self.smooth(14), 0.17), 0.35 * loose, 0.55 * loose, 4.2)
        on_arm = (self.arm_weight >= 0.5) * np.clip(self.arm_position, 0.0, 1.0)
        shell = self.clear_of_skin(self.pushed(shell, on_arm * sleeve_loose), 0.12)
        self.add_shell(shell, material)

    def outer(self, material: Material, thickness: float) -> None:
        shell = self.widened_torso(self.pushed(self.smooth(20), thickness), 0.12, 0.18, 4.6)
        shell = self.pushed(shell, (self.arm_weight >= 0.5) * np.float32(0.12))
        self.add_shell(self.clear_of_skin(shell, thickness - 0.03), material)

    def skirt(self, material: Material, flare: float, room: float) -> None:
        """The helper skirt cut at ``material.bottom``, also the lower half of dresses and coats."""
        faces = self.body.faces["helper-skirt"]
        index = np.unique(faces).astype(np.int32)
        shell, template = self.vertices[index], self.body.template[index]
        progress = np.clip((1.8 - template[:, 1]) / (1.8 - material.bottom), 0.0, 1.0)
        axis = shell[:, 2].mean()
        shell[:, 0] *= 1.06 + room + flare * progress
        shell[:, 2] = axis + (shell[:, 2] - axis) * (1.12 + 1.6 * room + 1.2 * flare * progress)
        local = np.searchsorted(index, faces).astype(np.int32)
        wanted = (template[:, 1] > material.bottom - 0.6)[local].any(1)
        self._add(shell, index, template, local[wanted], material)

    def hair(self, color: Color) -> None:
        """The scalp, raised, and for long hair and bobs the mesh's helper hair cut to length."""
        a, rng = self.attributes, self.rng
        if a.hair == "bald":
            return
        body, template = self.body, self.body.template[:BODY_VERTICES]
        vertices = self.vertices[:BODY_VERTICES]
        head = np.asarray(body.weights[:BODY_VERTICES, body.bone_index["head"]].todense()).ravel() > 0.5
        faces = body.faces["body"]
        faces = faces[(head & (template[:, 1] > 6.35))[faces].all(1)]
        center = template[faces].mean(1)
        faces = faces[~((center[:, 2] > 0.5) & (center[:, 1] < 7.2))]
        raised = {"buzz": 0.05, "short": rng.uniform(0.12, 0.34), "bob": 0.26}.get(a.hair, rng.uniform(0.12, 0.24))
        raised = 0.04 if a.hat else raised
        crown = np.clip((template[:, 1] - 6.5) / 1.2, 0.1, 1.0) * np.where(template[:, 2] > 0.45, 0.85, 1.1)
        shell = vertices + vertex_normals(vertices, body.faces["body"]) * (raised * crown)[:, None]
        nape = {"short": 6.8, "buzz": 6.95, "long": 6.3, "bob": 6.3}.get(a.hair, 6.7)
        fringe = a.gender == "female" and a.hair in ("long", "bob", "ponytail") and rng.random() < 0.35
        material = Material(
            HAIR, color=color, bottom=nape, top=7.68 if fringe else float(rng.uniform(7.86, 8.08)), gloss=0.16,
            parting=float(rng.choice([-1.0, 0.0, 1.0])), heat=0.6, reflectance=(0.24, 0.24, 0.24),
        )  # fmt: skip
        self._add(shell.astype(np.float32), np.arange(BODY_VERTICES, dtype=np.int32), template, faces, material)
        if a.hair in ("long", "bob"):
            faces = body.faces["helper-hair"]
            index = np.unique(faces).astype(np.int32)
            length = float(rng.uniform(3.6, 5.4)) if a.hair == "long" else float(rng.uniform(5.9, 6.3))
            loose = replace(material, style=1, bottom=length, behind=float(a.hair == "long" and rng.random() < 0.7))
            local = np.searchsorted(index, faces).astype(np.int32)
            self._add(self.vertices[index], index, body.template[index], local, loose)


def clothe(tailor: Tailor, skin_color: Color) -> None:
    """Cuts every shell the attributes ask for, skin first, and appends it to ``tailor.parts``."""
    a, rng = tailor.attributes, tailor.rng
    hair_color = tinted(HAIR_COLORS[a.hair_color], rng, 0.08)
    sleeves = {"none": 0.06, "short": float(rng.uniform(0.34, 0.52)), "long": float(rng.uniform(0.93, 1.0))}
    sleeve = sleeves[a.sleeve or "short"]
    covers_arms = a.outer is not None and a.outer != "vest"
    hem, tucked = _waist(a, rng)
    leg_bottom = {"shorts": float(rng.uniform(-3.6, -2.1)), "leggings": -7.3}.get(a.lower or "", -7.65)
    if a.shoe == "boots" and a.lower in ("jeans", "pants", "leggings"):
        leg_bottom = -6.8
    skirt_length = a.dress or a.skirt
    covered_to = SKIRT_BOTTOM[skirt_length] + 0.3 if skirt_length else leg_bottom
    tailor.skin(skin_color, hair_color, 0.98 if covers_arms else sleeve, covered_to, a.shoe == "sandals")
    tailor.hair(hair_color)
    tailor.shoes()
    if a.lower and a.lower != "skirt":
        tailor.lower(1.55 if tucked else hem + 0.15, leg_bottom)

    strap, strap_color = _strap(a, np.random.default_rng(int(1e6 * tailor.seed)))
    cloth = _upper_cloth(a, rng, hem, sleeve)
    inner = replace(cloth, sleeve=-0.2) if covers_arms else cloth
    inner = inner if a.outer else replace(inner, strap=strap, strap_color=strap_color)
    tailor.upper(inner, loose=float(rng.uniform(0.05, 0.4)), sleeve_loose=float(rng.uniform(0.06, 0.22)))
    if a.dress:
        pleats = int(rng.random() < 0.25)
        flared = replace(cloth, kind=SKIRT, style=pleats, bottom=SKIRT_BOTTOM[a.dress], fold=0.55)
        tailor.skirt(flared, flare=float(rng.uniform(0.08, 0.45)), room=0.0)
    elif a.lower == "skirt" and a.skirt and a.lower_color:
        skirt = Material(
            SKIRT, int(rng.random() < 0.35), tinted(COLORS[a.lower_color], rng), bottom=SKIRT_BOTTOM[a.skirt],
            fold=0.55, heat=0.5, reflectance=reflectance(rng),
        )  # fmt: skip
        tailor.skirt(skirt, flare=float(rng.uniform(0.05, 0.45)), room=0.0)
    if a.outer:
        jacket = _outer_cloth(a, rng, hem)
        thickness = {"cardigan": 0.24, "coat": 0.34}.get(a.outer, 0.30)
        tailor.outer(replace(jacket, strap=strap, strap_color=strap_color), thickness)
        if a.outer == "coat":
            tail = replace(jacket, kind=SKIRT, style=0, bottom=float(rng.uniform(-3.4, -2.0)))
            tailor.skirt(tail, flare=0.12, room=0.18)


def _waist(a: Attributes, rng: np.random.Generator) -> tuple[float, bool]:
    """Where the upper garment ends (template y) and whether it is tucked into what is worn below."""
    hem, tucked = float(rng.uniform(-0.25, 0.7)), False
    if a.upper in ("shirt", "blouse", "polo shirt") and a.lower in ("slacks", "skirt", "pants"):
        tucked = rng.random() < 0.45
    if a.dress:
        return 1.0, False
    return (1.25, True) if tucked or a.lower == "skirt" else (hem, False)


def _strap(a: Attributes, rng: np.random.Generator) -> tuple[int, Color]:
    """The bag's strap as a stripe on the garment it lies on: Material.strap and its colour, the bag's own."""
    left = a.bag_side == "left"
    codes = {"backpack": 1, "shoulder bag": 4 if left else 5, "crossbody bag": 3 if left else 2}
    return codes.get(a.bag or "", 0), tinted(COLORS[a.bag_color], rng) if a.bag_color else BLACK


def _upper_cloth(a: Attributes, rng: np.random.Generator, hem: float, sleeve: float) -> Material:
    """The cloth of the upper garment or of the dress."""
    pattern = PATTERN_CODES[a.pattern]
    if a.pattern == "logo" and rng.random() < 0.5:
        pattern = ROUND_LOGO_CODE
    if a.pattern == "two-tone" and a.sleeve == "none":
        pattern = BLOCK_CODE
    main = tinted(COLORS[a.dress_color or a.upper_color or "gray"], rng)
    second = tinted(COLORS[a.pattern_color], rng) if a.pattern_color else main
    necklines = {"tank top": 0.75, "hoodie": 0.2, "sweater": 0.25, "shirt": 0.55}
    return Material(
        UPPER,
        UPPERS.index(a.upper) if a.upper else DRESS_STYLE,
        main,
        second,
        BLACK if sum(main) > 0.5 else WHITE,
        pattern,
        scale=3.4 if pattern == BLOCK_CODE else float(rng.uniform(1.1, 2.3)),
        bottom=hem,
        sleeve=sleeve,
        neckline=necklines.get(a.upper or "", float(rng.uniform(0.3, 0.7))),
        fold=0.5,
        heat=0.5,
        reflectance=reflectance(rng),
    )


def _outer_cloth(a: Attributes, rng: np.random.Generator, hem: float) -> Material:
    assert a.outer is not None and a.outer_color is not None
    return Material(
        OUTER,
        OUTERS.index(a.outer),
        tinted(COLORS[a.outer_color], rng),
        bottom=0.9 if a.outer == "coat" else hem - 0.45,
        sleeve=0.05 if a.outer == "vest" else 0.98,
        opening=float(rng.uniform(0.34, 0.55)) if a.outer_open else 0.0,
        fold=0.55,
        heat=0.4,
        reflectance=reflectance(rng),
        gloss=0.05 if a.outer in ("jacket", "vest") else 0.0,
    )
