"""Data sets on disk: what is written comes back, and a damaged or half-written one is refused."""

import numpy as np
import pytest
import torch

from msvae.data.store import INDEX, new_store, open_store, store_checksum
from msvae.errors import DataError
from msvae.source import Source

SOURCES = (
    Source("photo", (3, 4, 4)),
    Source("depth", (1, 4, 4), value_range=(0.0, 65535.0)),
    Source("scan", (1, 2, 3), likelihood="normal", value_range=(-2.0, 2.0)),
)


def _write(folder, seed=0, rows=5):
    random = np.random.default_rng(seed)
    with new_store(
        folder,
        "three",
        SOURCES,
        {"train": rows, "test": 2},
        dtypes={"depth": "uint16", "scan": "float32"},
        labelled=True,
        class_names=["a", "b"],
        card={"licence": "CC0"},
    ) as splits:
        for split in splits.values():
            split.values["photo"][:] = random.integers(0, 256, split.values["photo"].shape)
            split.values["depth"][:] = random.integers(0, 65536, split.values["depth"].shape)
            split.values["scan"][:] = random.uniform(-2, 2, split.values["scan"].shape)
            for present in split.present.values():
                present[:] = True
            split.present["scan"][0] = False
            split.labels[:] = random.integers(0, 2, len(split.labels))
            split.columns["caption"] = np.array([f"row {i}" for i in range(len(split.labels))])
    return open_store(folder)


def test_what_is_written_comes_back_in_value_ranges_with_presence_labels_and_columns(tmp_path):
    data = _write(tmp_path / "set")
    assert data.name == "three"
    assert data.sources == SOURCES
    assert data.class_names == ("a", "b")
    random = np.random.default_rng(0)
    photo = random.integers(0, 256, (5, 3, 4, 4))
    depth = random.integers(0, 65536, (5, 1, 4, 4))
    batch = data.split("train").batch(torch.tensor([4, 0]))
    torch.testing.assert_close(batch.values["photo"], torch.from_numpy(photo[[4, 0]] / 255).float())
    torch.testing.assert_close(batch.values["depth"], torch.from_numpy(depth[[4, 0]]).float())
    assert batch.present["scan"].tolist() == [True, False]
    train = data.split("train")
    assert train.labels is not None
    assert len(train.labels) == 5
    assert train.columns["caption"][3] == "row 3"
    only = train.only(["scan"])
    assert len(only) == 4
    assert only.columns["caption"].tolist() == ["row 1", "row 2", "row 3", "row 4"]


def test_a_source_may_be_called_labels(tmp_path):
    sources = [Source("images", (1, 2, 2)), Source("labels", (1, 2, 2))]
    with new_store(tmp_path / "set", "set", sources, {"train": 2}, labelled=True) as splits:
        splits["train"].values["labels"][:] = 255
        splits["train"].present["labels"][:] = True
        splits["train"].labels[:] = [3, 4]
    rows = open_store(tmp_path / "set").split("train")
    assert rows.labels.tolist() == [3, 4]
    assert rows.batch(slice(0, 1)).values["labels"].tolist() == [[[[1.0, 1.0], [1.0, 1.0]]]]


def test_opening_reads_no_image_and_reading_changes_none(tmp_path):
    data = _write(tmp_path / "set")
    before = store_checksum(tmp_path / "set")
    values = data.split("train").values["photo"]
    values.zero_()  # the mapping is private to this process
    assert store_checksum(tmp_path / "set") == before
    assert int(open_store(tmp_path / "set").split("train").values["photo"].max()) > 0


def test_the_checksum_is_of_the_contents(tmp_path):
    _write(tmp_path / "a"), _write(tmp_path / "b"), _write(tmp_path / "c", seed=1)
    assert store_checksum(tmp_path / "a") == store_checksum(tmp_path / "b") != store_checksum(tmp_path / "c")


def test_a_writer_that_fails_leaves_what_stood_there_and_nothing_else(tmp_path):
    _write(tmp_path / "set")
    before = store_checksum(tmp_path / "set")
    with pytest.raises(RuntimeError, match="halfway"), new_store(tmp_path / "set", "x", SOURCES, {"train": 3}):
        raise RuntimeError("halfway")
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    assert store_checksum(tmp_path / "set") == before


def test_a_full_disk_is_a_clear_error(tmp_path):
    full = OSError(28, "No space left on device")
    with pytest.raises(DataError, match="No space left"), new_store(tmp_path / "set", "x", SOURCES, {"train": 3}):
        raise full
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / INDEX).unlink(), "no data set"),
        (lambda folder: (folder / INDEX).write_text("{"), "no JSON"),
        (lambda folder: (folder / INDEX).write_text('{"format": 99}'), "format 99"),
        (lambda folder: (folder / INDEX).write_text('{"format": 1}'), "lacks 'sources'"),
        (lambda folder: (folder / "train" / "photo.npy").unlink(), "train/photo.npy is missing"),
        (lambda folder: (folder / "train" / "photo.npy").write_bytes(b""), "cannot be read"),
        (lambda folder: np.save(folder / "train" / "photo.npy", np.zeros((5, 4, 4, 3), np.uint8)), "'photo'"),
        (lambda folder: np.save(folder / "train" / "labels.npy", np.zeros(3, np.int64)), "expected 5 rows"),
    ],
)
def test_damage_is_named(tmp_path, damage, message):
    _write(tmp_path / "set")
    damage(tmp_path / "set")
    with pytest.raises(DataError, match=message):
        open_store(tmp_path / "set")


def test_a_truncated_array_is_named(tmp_path):
    _write(tmp_path / "set")
    file = tmp_path / "set" / "train" / "photo.npy"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(DataError, match="photo"):
        open_store(tmp_path / "set")


def test_rows_that_are_never_written_take_no_space(tmp_path):
    sources = (Source("video", (3, 512, 512)),)
    with new_store(tmp_path / "set", "sparse", sources, {"train": 20_000}) as splits:
        splits["train"].present["video"][:] = True
    file = tmp_path / "set" / "train" / "video.npy"
    assert file.stat().st_size > 15e9
    assert file.stat().st_blocks * 512 < 1e6
    batch = open_store(tmp_path / "set").split("train").batch(torch.tensor([0, 19_999]))
    assert batch.values["video"].shape == (2, 3, 512, 512)


def test_an_unknown_storage_type_is_refused(tmp_path):
    with (
        pytest.raises(DataError, match="uint8, uint16, float32; got int8"),
        new_store(tmp_path / "set", "x", SOURCES, {"train": 1}, dtypes={"scan": "int8"}),
    ):
        pass
