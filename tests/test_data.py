"""The embedded set, rows with missing sources, and image files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from msvae.api import train
from msvae.config import DataConfig
from msvae.data import DataSet, Rows, check_data, complete_rows, load_data
from msvae.data.images import read_images, read_rows, write_images
from msvae.data.sets import colours
from msvae.errors import ConfigError, DataError, SourceError
from msvae.source import Source


def test_colours_is_the_same_every_time(digits: DataSet) -> None:
    again = colours.build(variants=1)
    for split, rows in digits.splits.items():
        for name in rows.values:
            assert torch.equal(rows.values[name], again.split(split).values[name])
    other = colours.build(variants=1, seed=1)
    assert not torch.equal(digits.split("test").values["blue"], other.split("test").values["blue"])


def test_no_digit_is_in_two_splits() -> None:
    indices = colours._split_indices(1797, torch.Generator().manual_seed(0))
    together = torch.cat(list(indices.values()))
    assert len(together) == len(together.unique()) == 1797
    assert {name: len(index) for name, index in indices.items()} == {"train": 1258, "validation": 180, "test": 359}


def test_content_pairing_draws_one_digit_three_times(digits: DataSet) -> None:
    """The ink of the three drawings lies in the same place."""
    test = digits.split("test").all().values
    ink = {name: (test[name] - test[name][:, :, :1, :1]).abs().mean(dim=1).flatten(1) for name in test}

    def correlation(first: torch.Tensor, second: torch.Tensor) -> float:
        pairs = zip(first, second, strict=True)
        return float(torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in pairs]).mean())

    assert correlation(ink["blue"], ink["green"]) > 0.85
    assert correlation(ink["blue"], ink["green"].roll(1, 0)) < 0.6


def test_class_pairing_shares_the_class_and_never_the_digit(digits: DataSet) -> None:
    paired = colours.build("class", variants=1)
    labels = paired.split("test").labels
    assert not paired.shared_content
    assert torch.equal(labels, digits.split("test").labels)
    circle = colours._class_circle(labels, torch.Generator().manual_seed(0))
    rows = torch.arange(len(labels))
    assert torch.equal(labels[circle], labels)
    assert bool((circle != rows).all())
    assert bool((circle[circle] != rows).all())
    assert len(circle.unique()) == len(rows)
    assert torch.equal(paired.split("test").values["blue"], digits.split("test").values["blue"])
    unmoved = (paired.split("test").values["green"] == digits.split("test").values["green"]).flatten(1).all(dim=1)
    assert not bool(unmoved.any())


def test_variants_multiply_training_rows_only() -> None:
    sizes = {name: len(rows) for name, rows in colours.build(variants=3).splits.items()}
    assert sizes == {"train": 3 * 1258, "validation": 180, "test": 359}


@pytest.mark.parametrize("options", [{"pairing": "contnt"}, {"variants": 0}, {"variants": 101}, {"variant": 2}])
def test_bad_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="colours"):
        load_data(DataConfig(options=options))


def test_unknown_sets_name_the_nearest() -> None:
    with pytest.raises(DataError, match="Did you mean 'colours'"):
        load_data(DataConfig(name="colors"))


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_missing_images_leave_every_row_one_source(digits: DataSet, share: float) -> None:
    rows = digits.split("train").with_missing(share, seed=1)
    present = torch.stack(list(rows.present.values()))
    assert bool(present.any(dim=0).all())
    rescued = share**3 / 3  # of a row that would lose all three sources one is kept
    assert float((~present).float().mean()) == pytest.approx(share - rescued, abs=0.02)
    assert not torch.equal(present, torch.stack(list(digits.split("train").with_missing(share, 2).present.values())))


def test_missing_images_keep_the_truth_of_test_rows() -> None:
    data = load_data(DataConfig(options={"variants": 1}, missing=0.5))
    assert all(bool(present.all()) for present in data.split("test").present.values())
    assert not all(bool(present.all()) for present in data.split("train").present.values())


def test_already_absent_sources_stay_absent() -> None:
    rows = Rows(
        (Source("a", (1, 4, 4)), Source("b", (1, 4, 4))),
        {"a": torch.rand(50, 1, 4, 4), "b": torch.rand(50, 1, 4, 4)},
        {"a": torch.zeros(50, dtype=torch.bool), "b": torch.ones(50, dtype=torch.bool)},
    )
    thinned = rows.with_missing(0.9, seed=0)
    assert not bool(thinned.present["a"].any())
    assert bool(thinned.present["b"].all())


def test_a_choice_of_sources_drops_rows_that_have_none(digits: DataSet) -> None:
    few = digits.split("train").with_missing(0.5, seed=0).only(["green"])
    assert few.sources == (digits.sources[2],)
    assert bool(few.present["green"].all())
    with pytest.raises(SourceError, match="Did you mean 'green'"):
        digits.only(["gren"])


def test_bytes_become_the_source_s_value_range() -> None:
    source = Source("depth", (1, 2, 2), value_range=(-1.0, 3.0))
    rows = complete_rows([source], {"depth": np.array([[[[0, 255], [51, 102]]]], dtype=np.uint8)})
    torch.testing.assert_close(rows.all().values["depth"].flatten(), torch.tensor([-1.0, 3.0, -0.2, 0.6]))


def test_rows_of_unequal_length_or_shape_are_refused() -> None:
    sources = [Source("a", (1, 2, 2)), Source("b", (1, 2, 2))]
    images = np.zeros((3, 1, 2, 2), dtype=np.uint8)
    with pytest.raises(DataError, match="differ in their number of rows"):
        complete_rows(sources, {"a": images, "b": images[:2]})
    with pytest.raises(DataError, match="'b': expected images of shape"):
        complete_rows(sources, {"a": images, "b": images[..., :1]})
    with pytest.raises(DataError, match="'b': no images"):
        complete_rows(sources, {"a": images})


RGB, GREY = Source("blue", (3, 8, 6)), Source("grey", (1, 8, 6), value_range=(0.0, 10.0))


@pytest.mark.parametrize("source", [RGB, GREY], ids=lambda source: source.name)
def test_images_survive_the_way_through_files(tmp_path: Path, source: Source) -> None:
    low, high = source.value_range
    images = (torch.rand(3, *source.shape) * 255).round() / 255 * (high - low) + low
    files = write_images(tmp_path / "new folder", images, source, ["a", "b", "ü 7"])
    assert [file.name for file in files] == ["a.png", "b.png", "ü 7.png"]
    torch.testing.assert_close(read_images(files, source), images, atol=1e-5, rtol=1e-5)


def test_class_numbers_survive_the_way_through_files(tmp_path: Path) -> None:
    source = Source("labels", (1, 8, 6), likelihood="categorical", categories=5)
    images = torch.randint(0, 5, (2, 1, 8, 6)).float()
    files = write_images(tmp_path, images, source, ["a", "b"])
    assert torch.equal(read_images(files, source), images)
    Image.fromarray(np.full((8, 6), 7, dtype=np.uint8)).save(tmp_path / "c.png")
    with pytest.raises(DataError, match=r"'labels'.*holds class 7; expected 0 to 4"):
        read_images([tmp_path / "c.png"], source)


@pytest.mark.parametrize("kind", ["truncated", "empty", "text", "wrong size", "wrong channels", "16 bit"])
def test_odd_files_are_named(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "odd.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (8, 6, 3), dtype=np.uint8)).save(file)
    if kind == "truncated":
        file.write_bytes(file.read_bytes()[:-60])
    elif kind == "empty":
        file.write_bytes(b"")
    elif kind == "text":
        file.write_text("no picture")
    elif kind == "wrong size":
        Image.new("RGB", (9, 9)).save(file)
    elif kind == "wrong channels":
        Image.new("L", (6, 8)).save(file)
    else:
        Image.fromarray(np.zeros((8, 6), dtype=np.uint16)).save(file)
    with pytest.raises(DataError, match=r"Source 'blue': .*odd\.png"):
        read_images([file], RGB)


def test_folders_are_aligned_by_stem_and_holes_are_absent(tmp_path: Path) -> None:
    write_images(tmp_path / "b", torch.rand(2, 3, 8, 6), RGB, ["1", "2"])
    write_images(tmp_path / "g", torch.rand(2, 1, 8, 6), GREY, ["2", "3"])
    batch, names = read_rows({"blue": tmp_path / "b", "grey": tmp_path / "g"}, [RGB, GREY])
    assert names == ["1", "2", "3"]
    assert batch.present["blue"].tolist() == [True, True, False]
    assert batch.present["grey"].tolist() == [False, True, True]


def test_impossible_inputs_are_named(tmp_path: Path) -> None:
    write_images(tmp_path / "b", torch.rand(1, 3, 8, 6), RGB, ["1"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no file or folder"):
        read_rows({"blue": tmp_path / "nothing"}, [RGB])
    with pytest.raises(DataError, match="holds no image"):
        read_rows({"blue": tmp_path / "empty"}, [RGB])
    with pytest.raises(DataError, match=r"'grey': .* is a file, others are folders"):
        read_rows({"blue": tmp_path / "b", "grey": tmp_path / "b" / "1.png"}, [RGB, GREY])
    Image.new("RGB", (6, 8)).save(tmp_path / "b" / "1.jpg")
    with pytest.raises(DataError, match="same name"):
        read_rows({"blue": tmp_path / "b"}, [RGB])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (lambda shape: np.full(shape, 200.0, np.float32), r"'train'.*'b' has values from 200 to 200 .* in row 3"),
        (lambda shape: np.full(shape, np.nan, np.float32), "'b' has NaN or infinity in row 3"),
        (lambda shape: np.full(shape, 200, np.int64), "'b' has values .*int64"),
    ],
)
def test_values_that_do_not_fit_are_found_before_training(values, message: str, tmp_path: Path) -> None:
    sources = [Source("a", (1, 8, 8)), Source("b", (1, 8, 8))]
    odd = values((20, 1, 8, 8))
    odd[np.arange(20) != 3] = 0
    rows = complete_rows(sources, {"a": np.zeros((20, 1, 8, 8), np.float32), "b": odd})
    with pytest.raises(DataError, match=message):
        train(DataSet("mine", {"train": rows}, True), "poe", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    rows.present["b"][3] = False
    check_data(DataSet("mine", {"train": rows}, True))


def test_rows_that_a_method_cannot_use_are_found_before_training(tmp_path: Path) -> None:
    sources = [Source("a", (1, 8, 8)), Source("b", (1, 8, 8))]
    rows = complete_rows(sources, {name: np.zeros((20, 1, 8, 8), np.float32) for name in "ab"})
    rows.present["b"][7] = False
    data = DataSet("mine", {"train": rows}, True)
    with pytest.raises(DataError, match=r"'jmvae' needs complete rows; 1 of the 20 rows of 'train'.*row 7 \(b\)"):
        train(data, "jmvae", out=tmp_path / "run")
    rows.present["b"][:] = False
    with pytest.raises(DataError, match="No training row of 'mine' has source 'b'"):
        train(data, "poe", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_rows_of_a_wrong_shape_leave_the_folder_free(tmp_path: Path) -> None:
    source = Source("a", (1, 8, 8))
    present = {"a": torch.ones(4, dtype=torch.bool)}
    wrong = Rows((source,), {"a": torch.zeros(4, 1, 8, 9)}, present)
    numbers = Rows((source,), {"a": torch.zeros(4, 1, 8, 8)}, {"a": torch.ones(4)})
    for rows, message in ((wrong, r"'a': expected images of shape \(1, 8, 8\), got \(1, 8, 9\)"), (numbers, "as bool")):
        with pytest.raises(DataError, match=message):
            train(DataSet("mine", {"train": rows}, False), "poe", out=tmp_path / "run")
    card = DataSet(
        "mine", {"train": Rows((source,), {"a": torch.zeros(4, 1, 8, 8)}, present)}, False, card={"at": Path()}
    )
    with pytest.raises(DataError, match="its card"):
        train(card, "poe", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_labels_are_whole_numbers() -> None:
    images = {"a": np.zeros((2, 1, 8, 8), np.float32)}
    with pytest.raises(DataError, match="Labels: expected whole numbers"):
        complete_rows([Source("a", (1, 8, 8))], images, np.array([0.0, 0.5]))
