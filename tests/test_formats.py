"""Every file format: values come back bit for bit in the file's number type; damaged and hostile files are refused."""

import gzip
import importlib.util
import io
import sys
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from msvae.data.formats import Reading, UnreadableError, array_format, arrays_in, image_format, read_header, read_images
from msvae.data.own.pixels import fitted, placement, stored, stored_dtype
from msvae.errors import DataError
from msvae.source import FileForm, Source

NOISE = np.random.default_rng(0)
RGB = NOISE.integers(0, 256, (3, 7, 5), dtype=np.uint8)
SVG = 'xmlns="http://www.w3.org/2000/svg"'
AS_IS = Reading()


def images(file: Path, reading: Reading = AS_IS) -> np.ndarray:
    known = image_format(file.name) or array_format(file.name)
    assert known is not None
    header = read_header(file, known, reading)
    found = list(read_images(file, known, reading))
    assert header.count is None or header.count == len(found)
    assert all(image.shape == header.shape and image.dtype.name == header.dtype for image in found)
    return np.stack(found)


def last(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(array, 0, -1))


@pytest.mark.parametrize("ending", [".png", ".bmp", ".webp"])
def test_pillow_formats_come_back(tmp_path, ending):
    Image.fromarray(last(RGB)).save(tmp_path / f"x{ending}", lossless=True)
    assert np.array_equal(images(tmp_path / f"x{ending}")[0], RGB)


def test_sixteen_bit_grey_png_and_a_turned_jpeg(tmp_path):
    grey = NOISE.integers(0, 65536, (6, 4), dtype=np.uint16)
    Image.fromarray(grey).save(tmp_path / "x.png")
    assert np.array_equal(images(tmp_path / "x.png")[0, 0], grey)
    tag = Image.Exif()
    tag[274] = 6
    Image.fromarray(np.full((4, 9), 30, np.uint8)).save(tmp_path / "x.jpg", exif=tag)
    assert images(tmp_path / "x.jpg").shape == (1, 1, 9, 4)


def test_palettes_are_colours_or_classes_and_transparency_is_white_paper(tmp_path):
    indices = Image.fromarray(NOISE.integers(0, 3, (6, 5), dtype=np.uint8)).convert("L")
    picture = Image.fromarray(np.asarray(indices)).convert("P")
    picture.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    picture.save(tmp_path / "x.png")
    assert images(tmp_path / "x.png").shape == (1, 3, 6, 5)
    assert images(tmp_path / "x.png", Reading(classes=True)).max() < 3
    Image.fromarray(np.zeros((4, 4, 4), np.uint8)).save(tmp_path / "y.png")
    assert (images(tmp_path / "y.png", Reading(colour="rgb")) == 255).all()
    assert images(tmp_path / "y.png").shape == (1, 4, 4, 4)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_tiff_of_any_bit_depth_bands_and_pages(tmp_path, dtype, compression):
    bands = (NOISE.random((6, 9, 8)) * 250).astype(dtype)
    tifffile.imwrite(
        tmp_path / "x.tif", bands, planarconfig="separate", photometric="minisblack", compression=compression
    )
    assert np.array_equal(images(tmp_path / "x.tif")[0], bands)
    tifffile.imwrite(tmp_path / "y.tif", bands, **options)
    assert np.array_equal(images(tmp_path / "y.tif"), bands[:, None])
    assert np.array_equal(images(tmp_path / "y.tif", Reading(pages="channels"))[0], bands)
    colour = last(bands[:3])
    if dtype == "uint8":
        tifffile.imwrite(tmp_path / "z.tif", colour, photometric="rgb", compression=compression)
        assert np.array_equal(images(tmp_path / "z.tif")[0], bands[:3])


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_nifti_volumes_are_cut_along_an_axis(tmp_path, axis, ending):
    volume = NOISE.integers(-300, 900, (5, 6, 7)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / f"x{ending}")
    cuts = images(tmp_path / f"x{ending}", Reading(axis=axis))
    assert np.array_equal(cuts[:, 0], np.moveaxis(volume, axis, 0))


def test_nifti_with_a_slope_is_scaled_and_a_fourth_axis_is_channels(tmp_path):
    scaled = nibabel.Nifti1Image(NOISE.random((4, 5, 3, 2)) * 10, np.eye(4))
    scaled.set_data_dtype(np.uint8)
    nibabel.save(scaled, tmp_path / "x.nii")
    cuts = images(tmp_path / "x.nii")
    assert cuts.shape == (3, 2, 4, 5)
    assert cuts.dtype == np.float32
    np.testing.assert_allclose(cuts[1, 1], nibabel.load(tmp_path / "x.nii").get_fdata()[:, :, 1, 1], rtol=1e-5)


def test_drawings_are_made_at_the_wanted_size(tmp_path):
    (tmp_path / "x.svg").write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 10 5"><path d="M0 0h5v5h-5z"/></svg>'
    )
    drawn = images(tmp_path / "x.svg", Reading(size=(20, 20)))
    assert drawn.shape == (1, 3, 10, 20)
    assert drawn[0, :, 5, 4].max() == 0
    assert drawn[0, :, 5, 15].min() == 255
    (tmp_path / "x.svg").write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><image href="/etc/x.png"/></svg>'
    )
    with pytest.raises(UnreadableError, match="other files"):
        images(tmp_path / "x.svg")


def test_files_of_arrays_give_a_row_per_image(tmp_path):
    photos = NOISE.integers(0, 256, (4, 8, 6, 3), dtype=np.uint8)
    depth = NOISE.random((4, 8, 6)).astype(np.float32)
    np.save(tmp_path / "a.npy", photos)
    np.savez_compressed(tmp_path / "a.npz", photo=photos, depth=depth)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["photo"], file["group/depth"] = photos, depth
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w")
    group.create_array("photo", data=photos)
    for ending, name in ((".npy", ""), (".npz", "photo"), (".h5", "photo"), (".zarr", "photo")):
        file = tmp_path / f"a{ending}"
        known = array_format(file.name)
        assert arrays_in(file, known)[name] == (photos.shape, "uint8")
        found = np.stack(list(read_images(file, known, Reading(array=name or None))))
        assert np.array_equal(found, np.moveaxis(photos, -1, 1))
    known = array_format("a.h5")
    found = np.stack(list(read_images(tmp_path / "a.h5", known, Reading(array="group/depth"))))
    assert np.array_equal(found[:, 0], depth)


def animated(file: Path) -> None:
    first, second = (Image.fromarray(np.full((6, 6, 3), value, np.uint8)) for value in (3, 200))
    first.save(file, save_all=True, append_images=[second], duration=50)


def giant(file: Path) -> None:
    content = bytearray(_png(np.zeros((4, 4), np.uint8)))
    content[16:24] = (60000).to_bytes(4, "big") * 2
    import zlib

    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    file.write_bytes(content)


def _png(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG")
    return stream.getvalue()


def pickled(file: Path) -> None:
    np.save(file, np.array([{"a": 1}, None], dtype=object), allow_pickle=True)


BAD = {
    "truncated.png": (lambda f: f.write_bytes(_png(last(RGB))[:-30]), "truncated|broken"),
    "empty.png": (lambda f: f.write_bytes(b""), "is empty"),
    "text.png": (lambda f: f.write_text("hello"), "cannot identify"),
    "animated.webp": (animated, "animated"),
    "animated.png": (animated, "animated"),
    "cmyk.jpg": (lambda f: Image.new("CMYK", (5, 5)).save(f), "CMYK"),
    "cmyk.tif": (lambda f: tifffile.imwrite(f, np.zeros((5, 5, 4), np.uint8), photometric="separated"), "CMYK"),
    "bomb.png": (giant, "attack|values are read"),
    "pickle.npy": (pickled, "never unpickled"),
    "bomb.nii.gz": (lambda f: f.write_bytes(gzip.compress(b"\0" * 100_000)), "Error|volume"),
    "entities.svg": (lambda f: f.write_text('<!DOCTYPE s [<!ENTITY a "b">]><svg/>'), "entities"),
    "half.tif": (lambda f: tifffile.imwrite(f, RGB[0]) or f.write_bytes(f.read_bytes()[:60]), "Error|page"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused_in_words(tmp_path, name):
    write, words = BAD[name]
    write(tmp_path / name)
    with pytest.raises(UnreadableError, match=words):
        images(tmp_path / name)


def test_missing_packages_name_the_command(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tifffile", None)
    (tmp_path / "x.tif").write_bytes(b"II*\0")
    with pytest.raises(DataError, match=r'pip install "msvae\[data\]"'):
        images(tmp_path / "x.tif")


@pytest.mark.parametrize(
    ("dtype", "low", "high", "kept"),
    [
        ("uint8", 0, 255, "uint8"),
        ("uint16", 0, 65535, "uint16"),
        ("uint16", 100, 4095, "uint16"),
        ("int16", -1000, 3000, "uint16"),
    ],
)
def test_whole_numbers_lose_nothing_on_their_way(dtype, low, high, kept):
    form = FileForm(dtype=dtype, low=float(low), high=float(high))
    source = Source("a", (1, 30, 30), value_range=(float(low), float(high)), files=form)
    image = NOISE.integers(low, high + 1, (1, 30, 30)).astype(dtype)
    assert stored_dtype(source) == kept
    steps = 255 if kept == "uint8" else 65535
    back = stored(image, source).astype(np.float32) / np.float32(steps) * (high - low) + low
    assert np.array_equal(np.rint(back), image)


def test_numbers_outside_the_range_nan_and_odd_classes_are_named():
    source = Source("a", (1, 2, 2), files=FileForm(dtype="float32", low=0.0, high=1.0))
    with pytest.raises(UnreadableError, match=r"0 to 7; expected 0 to 1.*file_range"):
        stored(np.array([[[0, 7], [0, 0]]], np.float32), source)
    with pytest.raises(UnreadableError, match="NaN"):
        stored(np.full((1, 2, 2), np.nan, np.float32), source)
    mended = Source("a", (1, 2, 2), files=FileForm(dtype="float32", low=0.0, high=1.0, nan=0.5, clip=True))
    assert stored(np.array([[[np.nan, 7], [-3, 0.25]]], np.float32), mended).flatten().tolist() == [0.5, 1, 0, 0.25]
    classes = Source("c", (1, 2, 2), likelihood="categorical", categories=3)
    with pytest.raises(UnreadableError, match="classes 0 to 5; expected 0 to 2"):
        stored(np.array([[[0, 5], [0, 0]]], np.uint8), classes)


@pytest.mark.parametrize(
    ("fit", "size", "border", "scaled"),
    [
        ("resize", (10, 40), (0, 0, 0, 0), (20, 20)),
        ("crop", (21, 30), (-1, 0, -5, -5), (21, 30)),
        ("pad", (10, 15), (5, 5, 2, 3), (10, 15)),
        ("cover", (10, 40), (0, 0, -30, -30), (20, 80)),
        ("contain", (10, 40), (7, 8, 0, 0), (5, 20)),
    ],
)
def test_fits(fit, size, border, scaled):
    assert placement(size, (20, 20), fit) == (border, scaled)
    source = Source("a", (1, 20, 20), files=FileForm(fit=fit))
    assert fitted(np.full((1, *size), 9, np.uint8), source, source.files).shape == (1, 20, 20)


def test_a_size_that_differs_needs_a_policy():
    source = Source("a", (1, 20, 20))
    with pytest.raises(UnreadableError, match=r"9x8; expected 20x20 \(or set fit"):
        stored(np.zeros((1, 8, 9), np.uint8), source)
    for fit, size in (("crop", (30, 10)), ("pad", (30, 10))):
        with pytest.raises(UnreadableError, match=fit):
            placement(size, (20, 20), fit)


_spec = importlib.util.spec_from_file_location("fuzz", Path(__file__).parents[1] / "benchmarks" / "fuzz_readers.py")
fuzz = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fuzz)
SEEDS = fuzz.seeds()
WHOLE = [content for contents in SEEDS.values() for content in contents]


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_hostile_bytes_give_our_own_errors_alone(tmp_path, data):
    ending = data.draw(st.sampled_from(sorted(SEEDS)))
    content = data.draw(st.sampled_from(SEEDS[ending]))
    other = data.draw(st.sampled_from(WHOLE))

    def choose(low: int, high: int) -> int:
        return data.draw(st.integers(low, high))

    assert fuzz.attack(tmp_path, ending, fuzz.damaged(content, other, choose), choose) in ("read", "refused")


@pytest.mark.parametrize("ending", sorted(SEEDS))
def test_the_fuzzers_own_files_are_whole(tmp_path, ending):
    for content in SEEDS[ending]:
        assert fuzz.attack(tmp_path, ending, content, lambda low, high: low) == "read"
