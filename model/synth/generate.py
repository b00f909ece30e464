"""Writes sets of rendered pedestrians: images, and a manifest in the ``reid_raw.json`` format.

A set depends on its specification alone: every identity, camera and image has its own 64-bit seed, so that worker
count and order do not matter. Each finished identity leaves a shard behind; a run that was cut short continues.
"""

from __future__ import annotations

import hashlib
import io
import json
import multiprocessing
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.synth.attributes import COLORS, VIEWS, Attributes
from model.synth.camera import Camera, develop, infrared, sample_camera, with_strong_cast
from model.synth.scene import Scene, at_another_hour, dead_leaves, sample_scene

if TYPE_CHECKING:
    from model.synth.person import Person, PosedPerson
    from model.synth.probe import Pair
    from model.synth.renderer import Renderer

VIEW_YAW = {
    "front": 0.0, "front-left": -0.25, "left": -0.5, "back-left": -0.75,
    "back": 1.0, "back-right": 0.75, "right": 0.5, "front-right": 0.25,
}  # fmt: skip
"""How far the person is turned from the camera in each view, in units of pi; in "left" their left side shows."""

MANIFEST = "reid_raw.json"
GALLERY_MANIFEST = "metadata.jsonl"  # what the intake of a gallery reads
SITE = ("north-gate", "ticket-hall", "stairs", "platform-1", "platform-2", "passage", "car-park", "south-gate")
"""Names of a gallery's cameras, in the order in which people walk past them."""
EPOCH = datetime(2024, 5, 6, 6, 0, tzinfo=UTC)  # a Monday morning; every set starts here
PASSERS_BY = 12  # a small cast fills the background, so that it need not be built anew for every image
LEAVES_SHARE, OCCLUDED_SHARE = 0.4, 0.15
INFRARED = {"near-infrared": "infrared", "thermal": "thermal"}  # what the renderer draws: its name in a manifest


@dataclass(frozen=True)
class SetSpec:
    """What a set contains. Everything in it follows from these values.

    ``gallery_style`` makes it look like a site's gallery: scenes only, no dead leaves, no tiny crops, and people who
    walk from one camera to the next at plausible times. ``short`` and ``typos`` are the shares of captions that are
    short operator queries and that have misspelt words; both are for training alone.

    infrared: a key of INFRARED: how ``infrared_cameras`` see the second half of a person's images. strong_cast: all
    cameras tint strongly. twins: after each person come so many others who differ from them in one attribute; with
    ``probe`` it is one other, seen at the very same moment, with a caption for the first that is false of the second.
    """

    name: str
    ids: int
    images_per_id: int
    captions_per_image: int
    cameras: tuple[int, ...]
    seed: int
    height: int = 384
    width: int = 128
    first_pid: int = 0
    gallery_style: bool = False
    short: float = 0.0
    typos: float = 0.0
    infrared: str | None = None
    infrared_cameras: tuple[int, ...] = ()
    strong_cast: bool = False
    twins: int = 0
    probe: bool = False

    def __post_init__(self) -> None:
        if self.ids < 1 or self.images_per_id < 1 or not self.cameras:
            raise ValueError("A set needs at least one identity, one image per identity and one camera.")
        if self.infrared is not None and (self.infrared not in INFRARED or not self.infrared_cameras):
            raise ValueError(f"Infrared is one of {', '.join(INFRARED)} and needs at least one infrared camera.")
        if self.probe and (self.twins, self.images_per_id) != (1, 1):
            raise ValueError("A probe has pairs: one twin and one image of each.")


SETS: dict[str, SetSpec] = {
    "train": SetSpec("train", 6000, 8, 2, tuple(range(24)), seed=1001, short=0.25, typos=0.1),
    "val": SetSpec("val", 500, 4, 2, tuple(range(24, 30)), seed=1002, first_pid=6000),
    "test": SetSpec("test", 1000, 4, 2, tuple(range(30, 36)), seed=1003, first_pid=6500),
    "tiny": SetSpec("tiny", 24, 4, 2, tuple(range(36, 40)), seed=1004, first_pid=7500),
    "demo": SetSpec("demo", 150, 2, 2, tuple(range(40, 48)), seed=1005, first_pid=7600, gallery_style=True),
    "twins": SetSpec("twins", 1000, 2, 2, tuple(range(30, 36)), seed=1006, first_pid=8000, twins=4),
    "unseen": SetSpec("unseen", 200, 4, 2, tuple(range(48, 54)), seed=1007, first_pid=9000, strong_cast=True),
    "probe": SetSpec("probe", 1600, 1, 1, tuple(range(30, 36)), seed=1008, first_pid=10000, twins=1, probe=True),
    "infrared_train": SetSpec(
        "infrared_train", 400, 20, 0, tuple(range(54, 66)), seed=1009, first_pid=12000,
        infrared="near-infrared", infrared_cameras=tuple(range(66, 72)),
    ),
    "infrared_test": SetSpec(
        "infrared_test", 100, 20, 0, tuple(range(72, 76)), seed=1010, first_pid=12400,
        infrared="near-infrared", infrared_cameras=(76, 77),
    ),
    "thermal_train": SetSpec(
        "thermal_train", 200, 10, 0, tuple(range(78, 84)), seed=1011, first_pid=12500,
        infrared="thermal", infrared_cameras=tuple(range(84, 88)),
    ),
    "thermal_test": SetSpec(
        "thermal_test", 100, 10, 0, (88, 89), seed=1012, first_pid=12700,
        infrared="thermal", infrared_cameras=(90, 91),
    ),
}  # fmt: skip
_UNLIKE = {"infrared_test": "infrared_train", "thermal_test": "thermal_train"}  # besides train, whose outfits to avoid
_FIRST_FIELDS = 12  # of SetSpec: what a shard's fingerprint always covers; later ones only where a set uses them


def derived_seed(*path: int | str) -> int:
    """A 64-bit seed for what ``path`` names, for instance (set seed, "identity", 12)."""
    text = "/".join(str(step) for step in path)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


@cache
def identities(spec: SetSpec) -> tuple[Attributes, ...]:
    """What every identity of a set looks like. No outfit of ``train`` occurs in another set, nor two alike in one."""
    from model.synth.sampling import SPLITS, distinct_attributes, twin_families

    if spec.probe:
        return tuple(a for pair in probe_pairs(spec) for a in (pair.shown, pair.changed))[: spec.ids]
    if spec.twins:
        families = twin_families(spec.seed, _groups(spec), spec.twins, _taken(spec))
        return tuple(a for family in families for a in family)[: spec.ids]
    return tuple(distinct_attributes(spec.seed, spec.ids, spec.name if spec.name in SPLITS else "test", _taken(spec)))


@cache
def probe_pairs(spec: SetSpec) -> tuple[Pair, ...]:
    """The pairs of a probe set, with what is said of the first of each."""
    from model.synth.probe import draw_pairs

    views = [sightings(spec, index)[0].view for index in range(0, spec.ids, 2)]
    return tuple(draw_pairs(spec.seed, views, _taken(spec)))


def _taken(spec: SetSpec) -> set[tuple[object, ...]]:
    """Outfits that a set must not show, as ``describable`` tells them."""
    from model.synth.sampling import describable

    if spec.name == "train":
        return set()
    others = ["train", *([_UNLIKE[spec.name]] if spec.name in _UNLIKE else [])]
    return {describable(a) for name in others for a in identities(SETS[name])}


def _groups(spec: SetSpec) -> int:
    """How many families of a person and their twins it takes; the last may be cut short."""
    return -(-spec.ids // (1 + spec.twins))


def base_of(spec: SetSpec, index: int) -> int:
    """The index of the person whose twin this one is, or their own."""
    return index - index % (1 + spec.twins)


def split_of(spec: SetSpec, index: int) -> str:
    """The split an identity belongs to: the set's name; ``tiny`` holds all three, half of it train."""
    if spec.name == "tiny":
        return "train" if 2 * index < spec.ids else "val" if 4 * index < 3 * spec.ids else "test"
    if spec.name.endswith("_train"):
        return "train"
    return spec.name if spec.name in ("train", "val", "test") else "test"


@dataclass(frozen=True)
class Sighting:
    """Where, when and from which side one image shows an identity; ``seed`` decides everything else in it."""

    seed: int
    camera: int
    view: str
    activity: str  # "walking" or "standing"
    captured_at: datetime
    modality: str = "visible"  # as the renderer calls it


def sightings(spec: SetSpec, index: int) -> list[Sighting]:
    """The images of one identity. Cameras do not repeat before all were used, nor do views."""
    index = base_of(spec, index) if spec.probe else index  # a probe sees both of a pair alike
    rng = np.random.default_rng(derived_seed(spec.seed, "route", index))
    count, cameras = spec.images_per_id, len(spec.cameras)
    if spec.gallery_style:  # a walk past neighbouring cameras
        start, step = int(rng.integers(cameras)), int(rng.choice([-1, 1]))
        route = [(start + step * k) % cameras for k in range(count)]
        moment = EPOCH + timedelta(days=int(rng.integers(0, 3)), seconds=float(rng.triangular(0, 18000, 50400)))
        gaps = np.cumsum([0.0, *rng.uniform(35, 240, count - 1)])
    else:
        visible = count if spec.infrared is None else -(-count // 2)
        route = _route(rng, cameras, visible)
        route += [cameras + c for c in _route(rng, len(spec.infrared_cameras), count - visible)]
        moment = EPOCH + timedelta(days=int(rng.integers(0, 28)))
        gaps = np.sort(rng.uniform(0, 50400, count))
    views = np.concatenate([rng.permutation(len(VIEWS)) for _ in range(-(-count // len(VIEWS)))])
    if spec.probe:
        from model.synth.probe import can_be_seen

        views = np.array([view for view in views if can_be_seen(index // 2, VIEWS[view])])
    return [
        Sighting(
            seed=derived_seed(spec.seed, "image", index, k),
            camera=(spec.cameras + spec.infrared_cameras)[route[k]],
            view=VIEWS[views[k]],
            activity="standing" if rng.random() < 0.25 else "walking",
            captured_at=(moment + timedelta(seconds=float(gaps[k]))).replace(microsecond=0),
            modality="visible" if spec.infrared is None or route[k] < cameras else spec.infrared,
        )
        for k in range(count)
    ]


def _route(rng: np.random.Generator, cameras: int, count: int) -> list[int]:
    """``count`` cameras in random rounds over all of them."""
    rounds = [rng.permutation(cameras) for _ in range(-(-count // cameras) if count else 0)]
    return [int(camera) for round_ in rounds for camera in round_][:count]


# --- one image ---------------------------------------------------------------------------------------------------


@cache
def _renderer(width: int, height: int) -> Renderer:
    from model.synth.renderer import Renderer

    return Renderer(width, height)


@cache
def _site(camera: int) -> tuple[Camera, Scene]:
    return sample_camera(derived_seed("camera", camera)), sample_scene(derived_seed("scene", camera))


@lru_cache(maxsize=PASSERS_BY)
def _passer_by(set_seed: int, number: int) -> Person:
    from model.synth.sampling import sample_attributes

    rng = np.random.default_rng(derived_seed(set_seed, "passer-by", number))
    return _person(sample_attributes(rng, "train"), derived_seed(set_seed, "passer-by body", number))


def _person(attributes: Attributes, seed: int) -> Person:
    from model.synth.body import load_body
    from model.synth.person import Person

    return Person(load_body(), attributes, seed)


def picture(person: Person, spec: SetSpec, sighting: Sighting) -> tuple[NDArray[np.uint8], str | None]:
    """Renders and develops one crop (height, width, 3) uint8, and says what an occluder hides of the person.

    The backdrop, the camera and the bystanders follow from the sighting; the person has no say in them.
    """
    from model.synth.renderer import Shot

    camera, scene = _site(sighting.camera)
    if spec.strong_cast:
        camera = with_strong_cast(camera)
    if sighting.modality != "visible":
        camera = infrared(camera, sighting.modality)
    around = np.random.default_rng(derived_seed(sighting.seed, "surroundings"))
    rng = np.random.default_rng(derived_seed(sighting.seed, "pose"))
    scene = at_another_hour(scene, around)
    spot = (float(around.uniform(-22, 22)), float(around.uniform(max(-14.0, 6 - abs(scene.wall_distance)), 22)))
    eye = (float(around.uniform(-4, 4)), camera.height, camera.distance)
    toward = np.array([eye[0] - spot[0], eye[2] - spot[1]])
    reach = float(np.hypot(*toward))
    toward /= reach
    yaw = np.pi * VIEW_YAW[sighting.view] + np.arctan2(*toward) + rng.uniform(-0.3, 0.3)
    people = [person.posed(rng, float(yaw), spot, sighting.activity)]
    leaves = not spec.gallery_style and around.random() < LEAVES_SHARE
    for _ in range(int(around.choice([0, 1, 2], p=[0.6, 0.28, 0.12]))):
        other = _passer_by(spec.seed, int(around.integers(PASSERS_BY)))
        aside, behind = around.uniform(-9, 9), around.uniform(9, 40)
        place = (spot[0] - behind * toward[0] + aside * toward[1], spot[1] - behind * toward[1] - aside * toward[0])
        if not leaves:
            people.append(other.posed(around, float(around.uniform(0, 2 * np.pi)), (float(place[0]), float(place[1]))))
    occluded = None
    if around.random() < OCCLUDED_SHARE and not spec.probe:
        obstacle, occluded = _obstacle(around, spot, toward, reach, camera.height)
        people.append(obstacle)
    least = 150 if spec.gallery_style else 56
    native = camera.native_height * camera.distance / reach * around.uniform(0.9, 1.1)
    native = int(np.clip(native, min(least, spec.height), spec.height))
    aspect = float(around.uniform(0.34, 0.42))
    shot = Shot(
        eye,
        margin=float(around.uniform(1.02, 1.14)),
        aspect=aspect,
        shift_x=float(around.normal(0.0, 0.03)),
        shift_y=float(around.normal(0.0, 0.015)),
    )
    size = (native, max(20, round(native * spec.width / spec.height)))
    renderer = _renderer(spec.width, spec.height)
    image, alpha = renderer.draw(people, shot, scene, size=size, backdrop=not leaves, modality=sighting.modality)
    if leaves:
        image = image + (1.0 - alpha[..., None]) * dead_leaves(*size, around)
    return develop(image, camera, around, (spec.height, spec.width)), occluded


def _obstacle(
    rng: np.random.Generator, spot: tuple[float, float], toward: NDArray[np.float64], reach: float, eye_height: float
) -> tuple[PosedPerson, str | None]:
    """Something between camera and person: a barrier before the shins, a board before the torso, or a slim post."""
    from model.synth.accessories import superellipsoid
    from model.synth.body import vertex_normals
    from model.synth.garments import SOLID, Material, tinted
    from model.synth.person import PosedPerson

    kind = str(rng.choice(["lower", "upper", "post"], p=[0.6, 0.15, 0.25]))
    gap = float(rng.uniform(5, 10))

    def at_gap(height: float) -> float:
        """Where the line from the eye to ``height`` on the person passes the obstacle."""
        return height + (eye_height - height) * gap / reach

    aside = float(rng.uniform(-1.0, 1.0))
    if kind == "lower":
        top = at_gap(rng.uniform(2.6, 4.4))
        center, radii = (aside, top / 2.0), (rng.uniform(5, 12), top / 2.0, rng.uniform(0.5, 3.0))
    elif kind == "upper":
        bottom, top = at_gap(rng.uniform(8.8, 9.6)), at_gap(rng.uniform(13.2, 14.0))
        center, radii = (aside, (bottom + top) / 2.0), (rng.uniform(4, 8), (top - bottom) / 2.0, 0.2)
    else:
        aside = float(rng.choice([-1, 1]) * rng.uniform(1.2, 3.0))
        center, radii = (aside, 20.0), (rng.uniform(0.25, 0.7), 20.0, rng.uniform(0.25, 0.7))
    points, faces = superellipsoid((0.0, center[1], 0.0), radii, float(rng.uniform(0.15, 0.5)))
    side = np.array([toward[1], -toward[0]])
    x = spot[0] + gap * toward[0] + side[0] * (points[:, 0] + center[0]) + toward[0] * points[:, 2]
    z = spot[1] + gap * toward[1] + side[1] * (points[:, 0] + center[0]) + toward[1] * points[:, 2]
    world = np.stack([x, points[:, 1], z], 1).astype(np.float32)
    color = tinted(COLORS[str(rng.choice(["gray", "white", "brown", "dark green", "blue", "yellow", "black"]))], rng)
    seed = float(rng.uniform(0, 50))
    material = Material(SOLID, style=1, color=color, bottom=float(center[1]), gloss=0.05, seed=seed)
    static = np.concatenate([points, np.zeros((len(points), 2), np.float32)], 1)
    vertices = np.concatenate([world, vertex_normals(world, faces), static], 1).astype(np.float32)
    obstacle = PosedPerson(vertices, faces, [(0, faces.size, material)], world, world.mean(0))
    return obstacle, None if kind == "post" else kind


# --- whole sets --------------------------------------------------------------------------------------------------


def generate(spec: SetSpec, out: Path, workers: int = 2, progress: Callable[[int, int], None] | None = None) -> Path:
    """Renders a set into ``out`` and returns the path of its manifest.

    Writes ``imgs/<camera>/<pid>_<k>.jpg``, a shard per identity under ``shards/`` and ``reid_raw.json``. Sets may share
    a folder: train and val in one are what training reads. A gallery also gets the ``metadata.jsonl`` that intake
    reads. What is already there is kept; what is missing is rendered again, byte for byte the same. ``progress`` is
    called with identities done and identities in all.

    Raises:
        SynthUnavailable: moderngl, EGL or the body data is missing.
    """
    import model.synth.renderer  # noqa: F401 - raises SynthUnavailable here rather than in every worker

    shards = out / "shards"
    shards.mkdir(parents=True, exist_ok=True)
    everyone = identities(spec)
    tasks = [(spec, i, a, str(out)) for i, a in enumerate(everyone)]
    todo = [task for task in tasks if not _is_complete(out, spec, task[1])]
    done = len(tasks) - len(todo)
    if progress:
        progress(done, len(tasks))
    if workers <= 1 or len(todo) <= 1:
        for task in todo:
            _render_identity(task)
            done += 1
            if progress:
                progress(done, len(tasks))
    else:
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # inherited by the workers: one core each
        with multiprocessing.get_context("spawn").Pool(min(workers, len(todo))) as pool:
            for _ in pool.imap_unordered(_render_identity, todo, chunksize=1):
                done += 1
                if progress:
                    progress(done, len(tasks))
    manifest = out / MANIFEST
    own = [_shard(out, spec, i) for i in range(spec.ids)]
    rows = [row for shard in sorted([*own, *_other_sets(out, spec)]) for row in json.loads(shard.read_text())["rows"]]
    _write(manifest, json.dumps(rows, indent=1).encode())
    if spec.gallery_style:
        lines = [json.dumps(gallery_item(spec, row)) for row in rows if row["camera"] in spec.cameras]
        _write(out / GALLERY_MANIFEST, ("\n".join(lines) + "\n").encode())
    return manifest


def gallery_item(spec: SetSpec, row: dict[str, Any]) -> dict[str, Any]:
    """The line of metadata.jsonl for a manifest row: what a site knows of an image before anybody looks at it."""
    hour = datetime.fromisoformat(row["captured_at"]).hour
    return {
        "external_id": Path(row["file_path"]).stem,
        "file": f"imgs/{row['file_path']}",
        "camera_id": SITE[spec.cameras.index(row["camera"]) % len(SITE)],
        "captured_at": row["captured_at"],
        "tags": ["morning" if hour < 12 else "afternoon" if hour < 18 else "evening"],
    }


def _other_sets(out: Path, spec: SetSpec) -> list[Path]:
    """Shards of other sets in the same folder: their pids lie outside of what this set could ever hold."""
    most = max(spec.ids, SETS[spec.name].ids if spec.name in SETS else 0)
    mine = range(spec.first_pid, spec.first_pid + most)
    return [path for path in (out / "shards").glob("*.json") if int(path.stem) not in mine]


def _shard(out: Path, spec: SetSpec, index: int) -> Path:
    return out / "shards" / f"{spec.first_pid + index:06d}.json"


def _fingerprint(spec: SetSpec) -> str:
    """What a shard must have been rendered for; how many identities the set has does not matter to one of them."""
    values = asdict(replace(spec, ids=1))
    unused = [f.name for f in fields(spec)[_FIRST_FIELDS:] if getattr(spec, f.name) == f.default]
    kept = {name: value for name, value in values.items() if name not in unused}
    return hashlib.sha256(json.dumps(kept).encode()).hexdigest()[:16]


def _is_complete(out: Path, spec: SetSpec, index: int) -> bool:
    shard = _shard(out, spec, index)
    if not shard.is_file():
        return False
    saved = json.loads(shard.read_text())
    same = saved["spec"] == _fingerprint(spec)
    return same and all((out / "imgs" / row["file_path"]).is_file() for row in saved["rows"])


def _render_identity(task: tuple[SetSpec, int, Attributes, str]) -> int:
    spec, index, attributes, folder = task
    out, pid = Path(folder), spec.first_pid + index
    person: Person | None = None
    shard = _shard(out, spec, index)
    fresh = not (shard.is_file() and json.loads(shard.read_text())["spec"] == _fingerprint(spec))
    rows: list[dict[str, Any]] = [] if fresh else json.loads(shard.read_text())["rows"]
    for k, sighting in enumerate(sightings(spec, index)):
        name = f"{sighting.camera:02d}/{pid:05d}_{k}.jpg"
        path = out / "imgs" / name
        if not fresh and path.is_file():
            continue
        if person is None:
            own = base_of(spec, index) if spec.probe else index
            person = _person(attributes, derived_seed(spec.seed, "identity", own))
        pixels, occluded = picture(person, spec, sighting)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=92)
        _write(path, buffer.getvalue())
        if not fresh:
            continue
        rows.append(describe(spec, index, attributes, sighting, occluded) | {"file_path": name})
    _write(shard, json.dumps({"spec": _fingerprint(spec), "rows": rows}).encode())
    return index


def describe(
    spec: SetSpec, index: int, attributes: Attributes, sighting: Sighting, occluded: str | None
) -> dict[str, Any]:
    """The manifest row of one image but its ``file_path``: captions with the facts they state, and what is visible."""
    from model.synth.captions import caption_with_facts, tokens, visible_attributes
    from model.synth.oracle import json_facts
    from model.synth.sampling import changed_facet

    rng = np.random.default_rng(derived_seed(sighting.seed, "captions"))
    if spec.probe:
        pair = probe_pairs(spec)[index // 2]
        said = [(pair.text, pair.facts)] if index % 2 == 0 else []
    else:
        said = [
            caption_with_facts(
                rng, attributes, sighting.view, occluded, sighting.activity, short=spec.short, typos=spec.typos
            )
            for _ in range(spec.captions_per_image)
        ]
    row = {
        "split": split_of(spec, index),
        "captions": [text for text, _ in said],
        "processed_tokens": [tokens(text) for text, _ in said],
        "facts": [json_facts(facts) for _, facts in said],
        "id": spec.first_pid + index,
        "camera": sighting.camera,
        "view": sighting.view,
        "captured_at": sighting.captured_at.isoformat().replace("+00:00", "Z"),
        "attributes": asdict(attributes),
        "activity": sighting.activity,
        "visible": sorted(visible_attributes(attributes, sighting.view, occluded)),
        "occluded": occluded,
        "seed": sighting.seed,
    }
    if spec.infrared is not None:
        row["modality"] = INFRARED.get(sighting.modality, "visible")
    if spec.twins:
        base = base_of(spec, index)
        row["base"] = spec.first_pid + base
        row["changed"] = changed_facet(identities(spec)[base], attributes)
    return row


def _write(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    partial.write_bytes(data)
    partial.replace(path)
