"""A person's own data: every layout, missing sources, labels and splits, the cache, bad input, export and back."""

import errno
import json
import logging
import multiprocessing
import os
import tarfile
import time
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile
import torch
import yaml
from PIL import Image

from conftest import TINY, TINY_TRAINING, Command
from msvae import api
from msvae.config import DataConfig
from msvae.data import DataSet, complete_rows, load_data, store
from msvae.data.images import read_images, write_images
from msvae.data.own import cache, settings_place
from msvae.data.own.check import check_own
from msvae.data.own.export import export
from msvae.data.sets import colours
from msvae.errors import ConfigError, DataError, SourceError
from msvae.source import FileForm, Source
from msvae.training.opening import open_run
from msvae.training.run import resume_run, train_run

NOISE = np.random.default_rng(0)
QUIET = lambda title, done, total: None  # noqa: E731


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSVAE_CACHE", str(tmp_path / "cache"))


def colour(height: int = 8, width: int = 8, channels: int = 3, dtype: str = "uint8") -> np.ndarray:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return NOISE.integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)


def save(file: Path, array: np.ndarray) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(file)
    return file


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """20 rows of colour photos and grey sketches of another size; every third sketch is missing."""
    root = tmp_path / "pairs"
    for row in range(20):
        save(root / "photos" / f"{row:04d}.png", colour())
        if row % 3:
            save(root / "sketch" / f"{row:04d}.png", colour(12, 8, 1))
    return root


def own(path: Path, **options: object) -> DataSet:
    return load_data(DataConfig(name=str(path), options=options))


def check(path: Path, **options: bool) -> dict:
    return check_own(path, settings_place(path), QUIET, **options)


def edit(root: Path, **changes: object) -> None:
    """Change settings of sources.yaml: `photos__fit="resize"` of a source, `label="x"` of the whole."""
    content = yaml.safe_load((root / "sources.yaml").read_text())
    for key, value in changes.items():
        source, _, field = key.partition("__")
        if field:
            content["sources"][source][field] = value
        else:
            content[key] = value
    (root / "sources.yaml").write_text(yaml.safe_dump(content))


def image_of(data: DataSet, source: str, row: str) -> np.ndarray:
    for rows in data.splits.values():
        names = rows.columns["row"].tolist()
        if row in names:
            index = torch.tensor([names.index(row)])
            assert bool(rows.present[source][index])
            return rows.batch(index).values[source][0].numpy()
    raise AssertionError(f"no row {row}")


def all_rows(data: DataSet) -> dict[str, tuple[str, dict[str, np.ndarray]]]:
    """`{row: (split, {source: image})}`."""
    found = {}
    for split, rows in data.splits.items():
        batch = rows.all()
        for number, name in enumerate(rows.columns["row"].tolist()):
            there = {s: batch.values[s][number].numpy() for s in batch.names if bool(batch.present[s][number])}
            found[name] = (split, there)
    return found


def test_folders_become_rows_and_absent_stems_missing_sources(pairs):
    data = own(pairs)
    assert {split: len(rows) for split, rows in data.splits.items()} == {"train": 16, "validation": 2, "test": 2}
    assert [(source.name, source.shape) for source in data.sources] == [("photos", (3, 8, 8)), ("sketch", (1, 12, 8))]
    rows = all_rows(data)
    assert sorted(rows) == [f"{row:04d}" for row in range(20)]
    assert {row for row, (_, have) in rows.items() if "sketch" not in have} == {f"{row:04d}" for row in range(0, 20, 3)}
    with Image.open(pairs / "photos" / "0007.png") as picture:
        assert np.array_equal(rows["0007"][1]["photos"], np.moveaxis(np.asarray(picture), -1, 0))
    assert "seed 0" in data.card["split_rule"]


def test_check_describes_and_writes_settings_that_it_never_overwrites(pairs):
    answer = check(pairs)
    assert answer["rows"] == 20
    assert answer["subsets"] == {"photos+sketch": 13, "photos": 7}
    assert answer["sources"]["sketch"]["sizes"] == {"8x12": 13}
    assert answer["problems"] == []
    edit(pairs, photos__scale=0.5)
    before = (pairs / "sources.yaml").read_text()
    assert not check(pairs)["settings_written"]
    assert (pairs / "sources.yaml").read_text() == before
    assert own(pairs).sources[0].scale == 0.5
    check(pairs, force=True)
    assert own(pairs).sources[0].scale == 0.1


def test_labels_and_splits_come_from_a_table(pairs, caplog):
    lines = ["row,split,label,who"]
    lines += [
        f"{row:04d},{'test' if row < 4 else 'val' if row < 7 else 'train'},{'ab'[row % 2]},Ü{row}" for row in range(20)
    ]
    (pairs / "labels.csv").write_text("\n".join([*lines, "9999,train,a,nobody"]), encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        data = own(pairs)
    assert "1 rows of the labels have no image: 9999" in caplog.text
    assert data.split("test").columns["row"].tolist() == ["0000", "0001", "0002", "0003"]
    assert data.split("test").labels.tolist() == [0, 1, 0, 1]
    assert data.class_names == ("a", "b")
    assert data.split("test").columns["who"].tolist() == ["Ü0", "Ü1", "Ü2", "Ü3"]
    assert data.card["split_rule"] == "as the column 'split' says"
    plain_near_and_other_numbers = {
        ("2", "0"): ["0", "1", "2"],
        ("7", "9", "100000"): ["100000", "7", "9"],
        ("00", "01"): ["00", "01"],
    }
    for classes, names in plain_near_and_other_numbers.items():
        lines = [f"{row:04d},{classes[row % len(classes)]}" for row in range(20)]
        (pairs / "labels.csv").write_text("\n".join(["row,label", *lines]), encoding="utf-8")
        assert list(own(pairs).class_names) == names
    with pytest.raises(ConfigError, match="'split_seed'"):
        own(pairs, split_seed="soon")
    (pairs / "labels.csv").write_text("row,split\n0000,tset\n")
    with pytest.raises(DataError, match="'tset'"):
        own(pairs)


def test_a_manifest_names_paths(tmp_path):
    for row in range(12):
        save(tmp_path / "m" / "deep" / f"a {row}.png", colour())
        save(tmp_path / "m" / f"b{row}.png", colour(8, 8, 1))
    lines = ["row,split,photo,sketch,label"]
    lines += [
        f"r{row},{'train' if row < 9 else 'test'},deep/a {row}.png,{'' if row == 3 else f'b{row}.png'},x"
        for row in range(12)
    ]
    (tmp_path / "m" / "manifest.csv").write_text("\n".join(lines))
    data = own(tmp_path / "m")
    assert len(data.split("test")) == 3
    assert "sketch" not in all_rows(data)["r3"][1]
    (tmp_path / "m" / "manifest.csv").write_text(
        "row,photo\nr0,../../etc/passwd.png\nr1,b1.png\nr2,b2.png\nr3,b3.png\n"
    )
    with pytest.raises(DataError, match=r"leads out of the data folder.*allow_outside"):
        own(tmp_path / "m")


@pytest.mark.parametrize("ending", [".npz", ".npy", ".h5", ".zarr"])
def test_files_of_arrays(tmp_path, ending):
    import h5py
    import zarr

    photo, depth = colour(8, 8, 3)[None].repeat(11, 0), NOISE.random((9, 6, 7)).astype(np.float32) * 5
    photo[:, 0, 0, 0] = np.arange(11)
    root = tmp_path / "arrays"
    root.mkdir()
    for name, array in (("photo", photo), ("depth", depth)):
        if ending == ".npy":
            np.save(root / f"{name}.npy", array)
        elif ending == ".npz":
            np.savez_compressed(root / f"{name}.npz", images=array, present=np.arange(len(array)) != 2)
        elif ending == ".h5":
            with h5py.File(root / f"{name}.h5", "w") as file:
                file["images"] = array
        else:
            zarr.open_group(str(root / f"{name}.zarr"), mode="w").create_array("images", data=array)
    data = own(root)
    assert {source.name: source.shape for source in data.sources} == {"depth": (1, 6, 7), "photo": (3, 8, 8)}
    rows = all_rows(data)
    assert len(rows) == (10 if ending == ".npz" else 11)
    assert sum("depth" in have for _, have in rows.values()) == (8 if ending == ".npz" else 9)
    assert all(int(have["photo"][0, 0, 0]) == int(row) for row, (_, have) in rows.items())
    np.testing.assert_allclose(rows["0000001"][1]["depth"][0], depth[1], rtol=1e-6)


def test_one_file_of_arrays_for_all_sources_with_labels_and_splits(tmp_path):
    words = np.array(["train"] * 7 + ["test"] * 3)
    np.savez(
        tmp_path / "all.npz",
        photo=colour()[None].repeat(10, 0),
        code=NOISE.random((10, 5)),
        labels=np.arange(10) % 2,
        split=words,
    )
    data = own(tmp_path / "all.npz")
    assert {source.name: source.shape for source in data.sources} == {"photo": (3, 8, 8), "code": (5,)}
    assert data.split("test").labels.tolist() == [1, 0, 1]


def test_rows_of_one_source_alone_and_no_complete_row(tmp_path):
    for row in range(20):
        save(tmp_path / "d" / ("a" if row % 2 else "b") / f"{row}.png", colour())
    data = own(tmp_path / "d")
    assert check(tmp_path / "d")["subsets"] == {"b": 10, "a": 10}
    settings = {f"model.{key}": value for key, value in TINY.items()} | TINY_TRAINING | {"training.steps": 3}
    run = api.train(str(tmp_path / "d"), "mopoe", out=tmp_path / "run", settings=settings)
    assert run.folder.state().step == 3
    assert len(data.split("train")) == 16


def test_volumes_make_rows_of_cuts_and_stay_whole_in_a_split(tmp_path):
    affine = np.diag([2.0, 2.0, 3.0, 1.0])
    for subject in range(5):
        for name in ("T1", "T2"):
            (tmp_path / "v" / name).mkdir(parents=True, exist_ok=True)
            volume = NOISE.integers(0, 1000, (8, 9, 6)).astype(np.int16)
            nibabel.save(nibabel.Nifti1Image(volume, affine), tmp_path / "v" / name / f"s{subject}.nii.gz")
    data = own(tmp_path / "v")
    assert {split: len(rows) for split, rows in data.splits.items()} == {"train": 18, "validation": 6, "test": 6}
    for rows in data.splits.values():
        subjects = {row[:2] for row in rows.columns["row"].tolist()}
        assert len(rows) == 6 * len(subjects)
    last = nibabel.load(tmp_path / "v" / "T2" / "s3.nii.gz").get_fdata()[:, :, 5]
    np.testing.assert_allclose(image_of(data, "T2", "s3_00005")[0], last, atol=0.01)


def test_cuts_of_a_volume_stay_together_also_beside_single_images(tmp_path):
    for subject in range(5):
        volume = NOISE.integers(0, 255, (8, 8, 4)).astype(np.uint8)
        (tmp_path / "v" / "a_t1").mkdir(parents=True, exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "v" / "a_t1" / f"s{subject}.nii.gz")
        for cut in range(4):
            save(tmp_path / "v" / "b_seg" / f"s{subject}_{cut:05d}.png", colour(8, 8, 1))
    data = own(tmp_path / "v")
    for rows in data.splits.values():
        assert len(rows) == 4 * len({row[:2] for row in rows.columns["row"].tolist()})


def test_a_damaged_first_volume_is_named_and_can_count_as_missing(tmp_path):
    for subject in range(5):
        (tmp_path / "v" / "t1").mkdir(parents=True, exist_ok=True)
        file = tmp_path / "v" / "t1" / f"s{subject}.nii.gz"
        nibabel.save(nibabel.Nifti1Image(NOISE.integers(0, 9, (8, 8, 4)).astype(np.int16), np.eye(4)), file)
    check(tmp_path / "v")
    (tmp_path / "v" / "t1" / "s0.nii.gz").write_bytes(b"")
    with pytest.raises(DataError, match=r"s0\.nii\.gz"):
        own(tmp_path / "v")
    assert len(all_rows(own(tmp_path / "v", skip_unreadable=True))) == 16


def test_a_table_by_another_name_is_decoded_again_when_it_changes(tmp_path):
    for row in range(10):
        save(tmp_path / f"{row}.png", colour())
    table = tmp_path / "pairs.csv"
    for split in ("train", "test"):
        lines = [f"r{row},{split if row > 7 else 'train'},{row}.png" for row in range(10)]
        table.write_text("\n".join(["row, split ,photo", *lines, f"r10,test,{0}.png"]))
        assert len(own(table).split("test")) == (1 if split == "train" else 3)


def test_what_lies_beside_folders_and_in_archives_makes_no_source(pairs, tmp_path):
    picture = save(tmp_path / "x.png", colour())
    with tarfile.open(pairs / "dataset.tar.gz", "w:gz") as archive:
        archive.add(picture, "photos/0007.png")
    assert [source.name for source in own(pairs).sources] == ["photos", "sketch"]
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for row in range(10):
            archive.add(picture, f"{row}.photo.png")
            archive.add(picture, f"._{row}.photo.png")
            archive.add(picture, f"plain{row}.png")
    data = own(tmp_path / "a.tar")
    assert [source.name for source in data.sources] == ["photo"]
    assert set(all_rows(data)) == {str(row) for row in range(10)}


def test_a_path_that_nothing_has_is_named(tmp_path):
    root = tmp_path / "m"
    for row in range(10):
        save(root / f"{row}.png", colour())
    (root / "manifest.csv").write_text("\n".join(["row,photo", *(f"r{row},{row}.png" for row in range(10))]))
    check(root)
    edit(root, photo__path="foto")
    with pytest.raises(DataError, match=r"Source 'photo': Unknown column 'foto'.*Did you mean 'photo'"):
        own(root)


def test_a_row_that_an_array_holds_twice_is_named(tmp_path):
    names = np.array(["p1", "p1", *(f"q{row}" for row in range(8))])
    np.savez(tmp_path / "photos.npz", images=NOISE.integers(0, 256, (10, 3, 8, 8)).astype(np.uint8), rows=names)
    with pytest.raises(DataError, match="the row 'p1' is in it twice"):
        own(tmp_path / "photos.npz")


def test_labels_of_rows_without_names_are_found_by_their_numbers(tmp_path):
    (tmp_path / "a").mkdir()
    np.save(tmp_path / "a" / "photo.npy", NOISE.integers(0, 256, (12, 3, 8, 8)).astype(np.uint8))
    (tmp_path / "a" / "labels.csv").write_text("\n".join(["row,label", *(f"{row},c{row % 2}" for row in range(12))]))
    assert own(tmp_path / "a").class_names == ("c0", "c1")
    assert not any("have no image" in note for note in check(tmp_path / "a")["notes"])


def test_arrays_are_asked_in_the_order_in_which_they_were_trained_on(tmp_path):
    """Twelve channels last, which nobody would guess."""
    images = NOISE.random((10, 8, 8, 12)).astype(np.float32)
    for row, image in enumerate(images):
        (tmp_path / "a" / "bands").mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / "a" / "bands" / f"{row}.npy", image)
    check(tmp_path / "a")
    edit(tmp_path / "a", bands__shape=[12, 8, 8], bands__channels_last=True)
    source = own(tmp_path / "a").sources[0]
    asked = read_images([tmp_path / "a" / "bands" / "3.npy"], source)
    torch.testing.assert_close(asked[0], torch.from_numpy(images[3]).movedim(-1, 0))
    [answer] = write_images(tmp_path / "out", asked, source, ["3"])
    np.testing.assert_allclose(np.load(answer), images[3], rtol=1e-6)


def test_other_arrays_of_a_file_and_odd_names_of_columns_do_no_harm(tmp_path):
    (tmp_path / "a").mkdir()
    images = NOISE.integers(0, 256, (12, 3, 8, 8)).astype(np.uint8)
    days = np.arange("2026-01-01", "2026-01-13", dtype="datetime64[D]")
    np.savez(tmp_path / "a" / "photo.npz", images=images, days=days)
    (tmp_path / "a" / "labels.csv").write_text("\n".join(["row,km/h", *(f"{row},{row}" for row in range(12))]))
    data = own(tmp_path / "a")
    assert "km/h" in data.split("train").columns
    check(tmp_path / "a")
    edit(tmp_path / "a", images__array=None)
    with pytest.raises(DataError, match="it holds the arrays images, days; say which one with array: NAME"):
        own(tmp_path / "a")


def test_what_cannot_be_is_refused_by_name(pairs, tmp_path):
    check(pairs)
    edit(pairs, photos__fill=300)
    with pytest.raises(DataError, match=r"Source 'photos'.*fill is 300; expected 0 to 255"):
        own(pairs)
    edit(pairs, photos__fill=0, photos__tile=9)
    with pytest.raises(DataError, match="its size is 8x8, less than a tile of 9"):
        own(pairs)
    picture = colour(channels=1).astype(np.float32) / 255
    picture[0, 0] = np.inf
    for row in range(10):
        (tmp_path / "f" / "a").mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(tmp_path / "f" / "a" / f"{row}.tif", picture)
    check(tmp_path / "f")
    with pytest.raises(DataError, match="it holds infinite numbers; set clip: true"):
        own(tmp_path / "f")


def test_large_images_are_cut_into_tiles_and_bands_into_sources(tmp_path):
    (tmp_path / "g" / "scene").mkdir(parents=True)
    scene = NOISE.integers(0, 256, (6, 70, 50), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "g" / "scene" / "L7.tif", scene, planarconfig="separate", photometric="minisblack")
    with pytest.raises(DataError, match="tile"):
        own(tmp_path / "g")
    check_file = {
        "sources": {
            name: {
                "path": "scene",
                "shape": [3, 16, 16],
                "tile": 16,
                "channels": channels,
                "file_range": [0, 255],
                "format": "tiff",
            }
            for name, channels in (("visible", [2, 1, 0]), ("infrared", [3, 4, 5]))
        }
    }
    (tmp_path / "g" / "sources.yaml").write_text(yaml.safe_dump(check_file))
    data = own(tmp_path / "g")
    assert sum(len(rows) for rows in data.splits.values()) == 4 * 3
    assert np.array_equal(image_of(data, "visible", "L7_001x002"), scene[[2, 1, 0], 16:32, 32:48])
    assert "blocks" in data.card["split_rule"]


def test_names_with_spaces_and_accents_in_both_spellings_meet(tmp_path):
    for row in range(10):
        save(tmp_path / "n" / "my photos" / f"caf\u00e9 {row}.png", colour())
        save(tmp_path / "n" / "größe" / f"cafe\u0301 {row}.png", colour())
    data = own(tmp_path / "n")
    assert [source.name for source in data.sources] == ["größe", "my_photos"]
    assert all(len(have) == 2 for _, have in all_rows(data).values())


def test_every_bad_file_is_named_and_can_count_as_missing(pairs, caplog):
    (pairs / "photos" / "0001.png").write_bytes(b"")
    (pairs / "photos" / "0002.png").write_text("no picture")
    content = (pairs / "photos" / "0004.png").read_bytes()
    (pairs / "photos" / "0004.png").write_bytes(content[: len(content) // 2])
    save(pairs / "photos" / "0005.png", colour(9, 8))
    save(pairs / "photos" / "0007.png", colour(8, 8, 1))
    save(pairs / "photos" / "0008.jpg", colour())
    (pairs / "photos" / "0010.png").unlink()
    (pairs / "photos" / "0010.png").symlink_to(save(pairs.parent / "outside.png", colour()))
    (pairs / "photos" / "notes.txt").write_text("mine")
    answer = check(pairs)
    named = [problem.split(":")[1].strip() for problem in answer["problems"]]
    assert sorted(named) == [
        f"photos/{row}" for row in ("0001.png", "0002.png", "0004.png", "0005.png", "0007.png", "0008.png", "0010.png")
    ]
    assert "photos/notes.txt" in answer["ignored"]
    with pytest.raises(DataError, match=r"7 files cannot be used.*0001\.png: it is empty.*skip_unreadable: true"):
        own(pairs)
    assert not list((pairs.parent / "cache" / "own").glob("[!.]*"))
    with caplog.at_level(logging.WARNING):
        data = own(pairs, skip_unreadable=True)
    assert "7 files count as missing" in caplog.text
    rows = all_rows(data)
    assert len(rows) == 20
    assert {row for row, (_, have) in rows.items() if "photos" not in have} == {
        "0001",
        "0002",
        "0004",
        "0005",
        "0007",
        "0010",
    }
    assert "photos" in all_rows(own(pairs, skip_unreadable=True, allow_outside=True))["0010"][1]


def test_rows_of_which_nothing_can_be_read_are_left_out(pairs, caplog):
    (pairs / "photos" / "0003.png").write_bytes(b"x")
    with caplog.at_level(logging.WARNING):
        data = own(pairs, skip_unreadable=True)
    assert "1 rows are left out" in caplog.text
    assert "0003" not in all_rows(data)


def test_every_file_that_counts_as_missing_is_named(pairs, caplog):
    (pairs / "photos" / "0000.png").write_bytes(b"")  # the only file of its row
    save(pairs / "photos" / "0003.png", colour(9, 9))  # so is this, found when it is decoded
    save(pairs / "photos" / "0004.png", colour(9, 9))
    with caplog.at_level(logging.WARNING):
        own(pairs, skip_unreadable=True)
    assert "3 files count as missing" in caplog.text
    for name in ("0000.png", "0003.png", "0004.png"):
        assert name in caplog.text


def test_a_manifest_may_name_files_that_are_not_there(tmp_path):
    rows = ["row,photos"]
    for row in range(12):
        save(tmp_path / "photos" / f"{row}.png", colour())
        rows.append(f"{row},photos/{row}.png")
    (tmp_path / "manifest.csv").write_text("\n".join([*rows, "12,photos/nope.png"]))
    with pytest.raises(DataError, match=r"nope\.png: there is no such file"):
        own(tmp_path / "manifest.csv")
    assert len(all_rows(own(tmp_path / "manifest.csv", skip_unreadable=True))) == 12


def test_nan_is_told_and_nothing_but_nan_refused(tmp_path, caplog, msvae: Command):
    some = NOISE.random((20, 1, 8, 8), np.float32)
    some[4] = np.nan
    np.savez(tmp_path / "some.npz", a=some)
    with caplog.at_level(logging.WARNING):
        own(tmp_path / "some.npz")
    assert "'a': 1 images hold NaN" in caplog.text
    np.savez(tmp_path / "none.npz", a=np.full((20, 1, 8, 8), np.nan, np.float32))
    with pytest.raises(DataError, match="'a': all its numbers are NaN"):
        own(tmp_path / "none.npz")
    assert "all its numbers are NaN" in msvae("data", "check", tmp_path / "none.npz", code=2).stderr


def test_sizes_that_differ_need_a_policy(tmp_path):
    for row in range(10):
        save(tmp_path / "s" / "photo" / f"{row}.png", colour(10 + row, 20))
    with pytest.raises(DataError, match="msvae data check"):
        own(tmp_path / "s")
    assert check(tmp_path / "s")["sources"]["photo"]["fit"] == "cover"
    edit(tmp_path / "s", photo__shape=[3, 12, 12], photo__fit="contain")
    assert own(tmp_path / "s").sources[0].shape == (3, 12, 12)
    edit(tmp_path / "s", photo__fit="exact")
    with pytest.raises(DataError, match=r"0\.png: its size is 20x10; expected 12x12"):
        own(tmp_path / "s")


def test_settings_that_do_not_fit_are_named(pairs):
    check(pairs)
    edit(pairs, photos__ftt="resize")
    with pytest.raises(ConfigError, match=r"sources\.yaml.*photos\.ftt.*Did you mean"):
        own(pairs)
    edit(pairs, photos__ftt=None)
    content = yaml.safe_load((pairs / "sources.yaml").read_text())
    del content["sources"]["photos"]["ftt"]
    (pairs / "sources.yaml").write_text(yaml.safe_dump(content))
    edit(pairs, photos__fit="resise")
    with pytest.raises((DataError, SourceError), match="Did you mean 'resize'"):
        own(pairs)
    with pytest.raises(ConfigError, match="skip_unreadable"):
        own(pairs, skip_unreadabel=True)


@pytest.mark.parametrize("name", ["nothing/here", "empty"])
def test_paths_without_images_are_named(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no file or folder|holds no images"):
        own(tmp_path / name)


def test_an_archive_that_leads_out_is_refused(tmp_path):
    picture = save(tmp_path / "x.png", colour())
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for row in range(10):
            archive.add(picture, f"{row}.photo.png")
        archive.add(picture, "../../up.photo.png")
    with pytest.raises(DataError, match=r"\.\./\.\./up\.photo\.png: a path that leads out of the archive"):
        own(tmp_path / "a.tar")
    assert len(all_rows(own(tmp_path / "a.tar", skip_unreadable=True))) == 10


def test_decoding_happens_once_and_again_when_files_change(pairs, monkeypatch):
    counted = []
    real = cache.decode
    monkeypatch.setattr(cache, "decode", lambda *arguments: counted.append(1) or real(*arguments))
    first = own(pairs).card["fingerprint"]
    assert own(pairs).card["fingerprint"] == first
    assert len(counted) == 1
    later = time.time() + 5
    os.utime(pairs / "photos" / "0003.png", (later, later))
    assert own(pairs).card["fingerprint"] == first  # the images are the same
    assert len(counted) == 2
    save(pairs / "photos" / "0003.png", colour())
    assert own(pairs).card["fingerprint"] != first
    assert len(list((pairs.parent / "cache" / "own").glob("pairs-*"))) == 2  # older stores are forgotten


def test_a_full_disk_leaves_nothing(pairs, monkeypatch):
    real, written = store.write_row, []

    def full(array, row, image):
        written.append(row)
        if len(written) > 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(array, row, image)

    monkeypatch.setattr(cache, "write_row", full)
    with pytest.raises(DataError, match="No space left"):
        own(pairs)
    room = pairs.parent / "cache" / "own"
    assert [file.name for file in room.iterdir() if "lock" not in file.name] == []
    monkeypatch.undo()
    monkeypatch.setenv("MSVAE_CACHE", str(pairs.parent / "cache"))
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 100})())
    with pytest.raises(DataError, match=r"GB are free.*MSVAE_CACHE"):
        own(pairs)


def _killed(path: str) -> None:
    real = cache.write_row
    written: list[int] = []

    def dying(array: np.ndarray, row: int, image: np.ndarray) -> None:
        written.append(row)
        if len(written) > 5:
            os._exit(9)
        real(array, row, image)

    cache.write_row = dying
    own(Path(path))


def _opened(path: str, channel: object) -> None:
    channel.put(own(Path(path)).card["fingerprint"])


def test_a_killed_writer_leaves_nothing_half_and_processes_share(pairs):
    spawn = multiprocessing.get_context("fork")
    child = spawn.Process(target=_killed, args=(str(pairs),))
    child.start()
    child.join()
    assert child.exitcode == 9
    room = pairs.parent / "cache" / "own"
    assert len(list(room.glob(".*.part"))) == 1
    channel = spawn.Queue()
    children = [spawn.Process(target=_opened, args=(str(pairs), channel)) for _ in range(3)]
    for child in children:
        child.start()
    assert len({channel.get(timeout=60) for _ in children}) == 1
    for child in children:
        child.join()
    assert list(room.glob(".*.part")) == []
    assert len(list(room.glob("pairs-*"))) == 1


def test_runs_on_own_data_resume_exactly_and_notice_changes(pairs, tmp_path, monkeypatch):
    tiny = {f"model.{key}": value for key, value in TINY.items()} | TINY_TRAINING
    tiny |= {"training.batch_size": 8, "training.balance": 0.5, "training.augment.flip_horizontal": 0.5}
    tiny |= {"training.augment.rotate": 10.0, "training.augment.noise": 0.05}
    settings = {**tiny, "training.steps": 8, "training.checkpoint_seconds": 0.0}
    monkeypatch.chdir(pairs.parent)
    whole = train_run(api.run_config("pairs", "poe", settings=settings), tmp_path / "whole")
    assert Path(whole.config.data.name).is_absolute()
    import shutil

    shutil.copytree(tmp_path / "whole", tmp_path / "again")
    shutil.rmtree(tmp_path / "again" / "checkpoints" / "step-00000008")
    monkeypatch.chdir(tmp_path / "again")  # the path of the data is not lost
    resumed = resume_run(tmp_path / "again")
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    shutil.rmtree(tmp_path / "again" / "checkpoints" / "step-00000008")
    save(pairs / "photos" / "0003.png", colour())
    with pytest.raises(DataError, match="have changed since the run"):
        resume_run(tmp_path / "again")


def test_a_cached_store_that_lacks_files_is_decoded_anew(pairs, tmp_path):
    first = own(pairs)
    (folder,) = (tmp_path / "cache" / "own").glob("pairs-*")
    (folder / "store.json").unlink()
    again = own(pairs)
    assert again.card["fingerprint"] == first.card["fingerprint"]
    assert len(again.split("train")) == len(first.split("train"))


def test_rows_are_no_paths(tmp_path):
    """Names from a table or an array lead nowhere else."""
    source = Source("a", (3, 8, 8))
    names = ["../../escaped", "patient1/slice3", "..", ".hidden", str(tmp_path / "absolute"), "c:x", "plain-1.b"]
    files = write_images(tmp_path / "out" / "a", torch.zeros(len(names), 3, 8, 8), source, names)
    assert {file.parent for file in files} == {tmp_path / "out" / "a"}
    assert len(set(files)) == len(names)
    assert files[1].name == "patient1%2Fslice3.png"
    assert files[-1].name == "plain-1.b.png"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_settings_lie_beside_the_file_that_a_link_leads_to(tmp_path):
    (tmp_path / "store").mkdir()
    np.savez(tmp_path / "store" / "real.npz", a=np.zeros((6, 1, 8, 8), np.uint8))
    (tmp_path / "data.npz").symlink_to(tmp_path / "store" / "real.npz")
    place = settings_place(tmp_path / "data.npz")
    assert place.parent == tmp_path / "store"
    assert settings_place(tmp_path / "store" / "real.npz") == place


def test_a_link_to_itself_is_named(pairs):
    (pairs / "photos" / "0100.png").symlink_to(pairs / "photos" / "0100.png")
    with pytest.raises(DataError, match=r"0100\.png"):
        own(pairs)


def test_runs_on_rows_of_a_callers_own_notice_other_rows(tmp_path):
    def rows(count: int) -> DataSet:
        source = Source("a", (1, 8, 8))
        images = np.linspace(0, 1, count * 64, dtype=np.float32).reshape(count, 1, 8, 8)
        return DataSet("mine", {"train": complete_rows([source], {"a": images})}, False)

    settings = {f"model.{key}": value for key, value in TINY.items()} | TINY_TRAINING
    settings |= {"training.steps": 4, "training.checkpoint_seconds": 0.0, "training.batch_size": 4}
    api.train(rows(12), "poe", out=tmp_path / "run", settings=settings)
    (tmp_path / "run" / "checkpoints" / "step-00000004").rename(tmp_path / "last")
    with pytest.raises(DataError, match="have changed since the run"):
        api.resume(tmp_path / "run", data=rows(40))
    api.resume(tmp_path / "run", data=rows(12))


def test_opening_the_changed_data_of_a_run_warns(pairs, tmp_path, caplog):
    settings = {f"model.{key}": value for key, value in TINY.items()} | TINY_TRAINING | {"training.steps": 1}
    api.train(str(pairs), "poe", out=tmp_path / "run", settings=settings)
    save(pairs / "photos" / "0003.png", colour())
    with caplog.at_level(logging.WARNING):
        open_run(tmp_path / "run").data()
    assert "have changed since it was trained" in caplog.text


@pytest.mark.parametrize("to", ["folders", "npz", "shards"])
def test_export_comes_back_the_same(digits, tmp_path, to):
    few = {split: colours_rows(digits, split) for split in digits.splits}
    data = DataSet("few", few, True, digits.class_names).with_missing(0.4, seed=1)
    export(data, tmp_path / "out", to, QUIET)
    back = own(tmp_path / "out")
    assert back.class_names == data.class_names
    assert back.shared_content
    for split, rows in data.splits.items():
        again = back.split(split)
        assert torch.equal(again.labels, rows.labels)
        for source, other in zip(rows.sources, again.sources, strict=True):
            assert (source.shape, source.value_range) == (other.shape, other.value_range)
            assert torch.equal(again.present[source.name], rows.present[source.name])
            there = rows.present[source.name]
            assert torch.equal(again.values[source.name][there], rows.values[source.name][there])
    with pytest.raises(DataError, match="exists"):
        export(data, tmp_path / "out", to, QUIET)


def colours_rows(digits: DataSet, split: str):
    from msvae.data import complete_rows

    rows = digits.split(split)
    arrays = {name: values[:12].numpy() for name, values in rows.values.items()}
    return complete_rows(rows.sources, arrays, rows.labels[:12].numpy())


@pytest.mark.parametrize("to", ["folders", "npz", "shards"])
def test_export_keeps_odd_sources(tmp_path, to):
    sources = (
        Source("deep", (1, 6, 5), value_range=(0.0, 4095.0)),
        Source("bands", (6, 8, 8), value_range=(-1.0, 1.0)),
        Source("mask", (1, 6, 5), likelihood="categorical", categories=4),
        Source("code", (7,), likelihood="normal", value_range=(-5.0, 5.0)),
    )
    dtypes = {"deep": "uint16", "bands": "float32", "code": "float32"}
    with store.new_store(tmp_path / "store", "odd", sources, {"train": 5, "test": 2}, dtypes=dtypes) as splits:
        for part in splits.values():
            for name, low, high in (("deep", 0, 65536), ("mask", 0, 4)):
                part.values[name][:] = NOISE.integers(low, high, part.values[name].shape)
            part.values["bands"][:] = NOISE.uniform(-1, 1, part.values["bands"].shape)
            part.values["code"][:] = NOISE.uniform(-5, 5, part.values["code"].shape)
            for present in part.present.values():
                present[:] = True
    data = store.open_store(tmp_path / "store")
    export(data, tmp_path / "out", to, QUIET)
    back = own(tmp_path / "out")
    for split, rows in data.splits.items():
        for source in rows.sources:
            assert back.sources[data.sources.index(source)].value_range == source.value_range
            kept = rows.all().values[source.name]
            torch.testing.assert_close(back.split(split).all().values[source.name], kept, atol=1e-6, rtol=1e-6)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # webdataset leaves its files open
def test_shards_are_webdataset(digits, tmp_path):
    webdataset = pytest.importorskip("webdataset")
    few = {split: colours_rows(digits, split) for split in ("train", "test")}
    export(DataSet("few", few, True, digits.class_names), tmp_path / "out", "shards", QUIET)
    shard = next(tmp_path.glob("out/train-*.tar"))
    samples = list(webdataset.WebDataset(str(shard), shardshuffle=False, empty_check=False).decode("rgb8"))
    assert len(samples) == 12
    assert samples[0]["blue.png"].shape == (32, 32, 3)
    assert int(samples[0]["cls"]) == int(few["train"].labels[0])


def test_answers_are_written_as_the_data_were(tmp_path, msvae: Command):
    """16 bits stay 16 bits, TIFF stays TIFF, volumes keep their affine, and answers are own data again."""
    affine = np.array([[2.0, 0, 0, -9], [0, 2, 0, -8], [0, 0, 3, 5], [0, 0, 0, 1]])
    for name in ("deep", "tiff", "scan"):
        (tmp_path / "d" / name).mkdir(parents=True)
    for subject in range(4):
        volume = NOISE.integers(0, 500, (8, 8, 3)).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(volume, affine), tmp_path / "d" / "scan" / f"s{subject}.nii.gz")
        for cut in range(3):
            save(tmp_path / "d" / "deep" / f"s{subject}_{cut:05d}.png", colour(8, 8, 1, "uint16"))
            bands = NOISE.random((5, 8, 8)).astype(np.float32)
            file = tmp_path / "d" / "tiff" / f"s{subject}_{cut:05d}.tif"
            tifffile.imwrite(file, bands, planarconfig="separate", photometric="minisblack")
    words = [
        word
        for key, value in ({f"model.{k}": v for k, v in TINY.items()} | TINY_TRAINING).items()
        for word in ("--set", f"{key}={value}")
    ]
    msvae("train", "d", "--method", "poe", "--steps", 4, "-o", "run", *words)
    msvae("convert", "run", "--given", "scan=d/scan", "-o", "out")
    with Image.open(tmp_path / "out" / "deep" / "s1_00002.png") as picture:
        assert picture.mode == "I;16"
    made = tifffile.imread(tmp_path / "out" / "tiff" / "s1_00002.tiff")
    assert made.shape == (5, 8, 8)
    assert made.dtype == np.float32
    answer = json.loads(
        msvae("impute", "run", "-g", "deep=d/deep", "-g", "scan=d/scan", "-o", "whole", "--json").stdout
    )
    assert len(answer["filled"]["tiff"]) == 12
    scan = nibabel.load(tmp_path / "whole" / "scan" / "s2.nii.gz")
    np.testing.assert_allclose(scan.affine, affine)
    assert np.array_equal(scan.get_fdata(), nibabel.load(tmp_path / "d" / "scan" / "s2.nii.gz").get_fdata())
    for name in ("deep", "tiff", "scan"):
        assert (tmp_path / "whole" / name).is_dir()
    assert check(tmp_path / "whole")["subsets"] == {"deep+scan+tiff": 12}
    assert "12 rows" in msvae("data", "check", "d").stdout
    msvae("data", "preview", "d", "-o", "grid.png", "--n", 4)
    assert "msvae data check" in msvae("data", "check", "--help").stdout


def test_old_checkpoints_without_file_forms_still_open():
    fields = Source("a", (1, 8, 8)).to_dict()
    del fields["files"]
    assert Source.from_dict(fields) == Source("a", (1, 8, 8))
    formed = Source("a", (1, 8, 8), files=FileForm(format="nifti", affine=tuple(map(float, range(16))), channels=(0,)))
    assert Source.from_dict(json.loads(json.dumps(formed.to_dict()))) == formed
    with pytest.raises(SourceError, match="Did you mean 'resize'"):
        FileForm(fit="resise")


def test_built_in_sets_win_over_folders_of_their_name(tmp_path, monkeypatch):
    (tmp_path / "colours").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load_data(DataConfig(options={"variants": 1})).name == colours.build(variants=1).name
