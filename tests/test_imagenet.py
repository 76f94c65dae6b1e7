"""The ImageNet network against facts outside this project: what real photographs show, and TensorFlow's padding."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import random_batch, tiny_model
from msvae.data import complete_rows
from msvae.data.base import DataSet
from msvae.errors import ConfigError
from msvae.evaluation import Extent, evaluate_model
from msvae.evaluation.conversion import conversions, levelled, monotonicity, proper_subsets
from msvae.evaluation.photographs import Album, real_photographs
from msvae.evaluation.yardstick import make_yardstick
from msvae.metrics import imagenet
from msvae.metrics.imagenet import EfficientNetLite0, feature_distance, photographs, pooled_features
from msvae.source import Source
from msvae.training.progress import Quiet

pytestmark = pytest.mark.skipif(not imagenet.weights_installed(), reason="needs the extra msvae[metrics]")
PHOTOGRAPH = Source("photograph", (3, 224, 224))
DAISY, PALACE = 985, 698


@pytest.fixture(scope="module")
def network() -> EfficientNetLite0:
    return imagenet.load_efficientnet()


def sample_photograph(name: str) -> torch.Tensor:
    """A photograph that scikit-learn ships, its central square, (1, 3, 224, 224) in [0, 1]."""
    import sklearn.datasets

    with Image.open(Path(sklearn.datasets.__file__).parent / "images" / name) as image:
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        square = image.convert("RGB").crop((left, top, left + side, top + side)).resize((224, 224))
    return torch.from_numpy(np.array(square)).movedim(-1, 0)[None].float() / 255


@pytest.mark.parametrize(("name", "label"), [("flower.jpg", DAISY), ("china.jpg", PALACE)])
def test_it_classifies_real_photographs(network: EfficientNetLite0, name: str, label: int) -> None:
    logits = network(photographs(sample_photograph(name), PHOTOGRAPH, 224))
    assert int(logits.argmax()) == label


def test_padding_is_that_of_tensorflow() -> None:
    """SAME: ceil(size / stride) outputs, and where the sum is odd the lower right gets one more."""
    layer = imagenet.SamePadded(1, 1, 3, 2, clip=False).eval()
    torch.nn.init.ones_(layer.convolution.weight)
    summed = layer(torch.ones(1, 1, 6, 5)) * (1 + imagenet.BATCH_NORM_EPSILON) ** 0.5
    # six rows: windows 0-2, 2-4, 4-6 (one padded); five columns: -1-1 (one padded), 1-3, 3-5 (one padded)
    expected = torch.tensor([[6.0, 9, 6], [6, 9, 6], [4, 6, 4]])
    torch.testing.assert_close(summed[0, 0].detach(), expected)


def test_folding_the_normalisation_changes_nothing() -> None:
    torch.manual_seed(0)
    layer = imagenet.SamePadded(3, 8, 5, 2).eval()
    torch.nn.init.uniform_(layer.norm.running_var, 0.5, 2.0)  # type: ignore[arg-type]
    torch.nn.init.normal_(layer.norm.running_mean)  # type: ignore[arg-type]
    images = torch.randn(2, 3, 11, 9)
    before = layer(images)
    layer.fuse()
    torch.testing.assert_close(layer(images), before)


def test_sources_of_other_channel_counts_are_seen_channel_by_channel(network: EfficientNetLite0) -> None:
    images = torch.rand(2, 4, 28, 28)
    four, grey = Source("four", (4, 28, 28)), Source("grey", (1, 28, 28))
    together = pooled_features(network, images, four)[112]
    each = torch.stack([pooled_features(network, images[:, c : c + 1], grey)[112] for c in range(4)])
    torch.testing.assert_close(together, each.mean(dim=0), rtol=1e-4, atol=1e-5)
    colour = Source("colour", (3, 28, 28))
    thrice = images[:, :1].expand(-1, 3, -1, -1)
    torch.testing.assert_close(pooled_features(network, thrice, colour)[112], each[0], rtol=1e-4, atol=1e-5)
    scaled = Source("scaled", (1, 28, 28), value_range=(-100.0, 300.0))
    torch.testing.assert_close(
        pooled_features(network, scaled.denormalise(images[:, :1]), scaled)[112], each[0], rtol=1e-3, atol=1e-4
    )
    with pytest.raises(ConfigError, match="'heights'"):
        photographs(torch.rand(2, 5), Source("heights", (5,)))


def test_the_feature_distance_grows_with_damage(network: EfficientNetLite0) -> None:
    photograph = sample_photograph("flower.jpg")
    noise = torch.randn(photograph.shape, generator=torch.Generator().manual_seed(0))
    distances = [
        float(feature_distance(network, (photograph + amount * noise).clamp(0, 1), photograph, PHOTOGRAPH))
        for amount in (0.0, 0.05, 0.2)
    ]
    assert distances[0] == 0
    assert distances[0] < distances[1] < distances[2]


def test_other_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(imagenet, "PACKAGE", "other")
    with pytest.raises(ConfigError, match="not the file expected"):
        imagenet.load_efficientnet()
    monkeypatch.setattr(imagenet, "PACKAGE", "nowhere")
    assert not imagenet.weights_installed()
    with pytest.raises(ConfigError, match=r"msvae\[metrics\]"):
        imagenet.load_efficientnet()


def test_real_images_are_nearer_to_real_ones_than_noise_is(digits: DataSet) -> None:
    real = real_photographs(digits.only(["blue"]), 150, Quiet())
    album = Album(real, 1)
    validation = digits.split("validation").batch(slice(0, 150)).values["blue"]
    album.add("generated", "blue", validation)
    album.add("generated from the prior", "blue", torch.rand(150, 3, 32, 32))
    figures = album.figures()
    assert figures["rows"] == 150
    assert figures["real_train_test"] < 30
    assert figures["unconditional"] < 30 < 10 * figures["unconditional"] < figures["prior_unconditional"]
    assert figures["reconstruction"] is None


def test_evaluation_names_every_distance() -> None:
    """Small sources without labels, a grey one too; each set has as many images as the others."""
    model = tiny_model("poe", [Source("blue", (3, 8, 8)), Source("grey", (1, 12, 8))])
    images = {name: values.numpy() for name, values in random_batch(model, rows=12).values.items()}
    rows = complete_rows(model.sources, images)
    data = DataSet("own", {"train": rows, "test": rows}, shared_content=True)
    figures = evaluate_model(model, data, extent=Extent(generated=12, photographs=10))
    seen = figures["photographs"]
    assert seen["features"] == "FD, EfficientNet-Lite0 (112)"
    assert seen["wide"]["features"] == "FD, EfficientNet-Lite0 (1280)"
    assert seen["rows"] == 10
    assert set(seen["conditional"]) == {"1"}
    for figure in ("unconditional", "reconstruction", "real_train_test"):
        assert seen[figure] > 0
        assert seen["wide"][figure] > 0
    assert seen["conditional"]["1"] == pytest.approx(sum(seen["conditional_by_source"].values()) / 2)
    assert set(seen["feature_distance"]) == {"blue", "grey"}


def test_class_maps_and_rare_sources_leave_the_others_their_distances() -> None:
    sources = [
        Source("blue", (3, 8, 8)),
        Source("map", (1, 8, 8), likelihood="categorical", categories=3),
        Source("rare", (3, 8, 8)),
        Source("numbers", (4,)),
    ]
    model = tiny_model("poe", sources, networks="mlp")
    images = {name: values.numpy() for name, values in random_batch(model, rows=12).values.items()}
    images["map"] = images["map"].round()
    rows = complete_rows(sources, images)
    rows.present["rare"][1:] = False
    data = DataSet("own", {"train": rows, "test": rows}, shared_content=True)
    figures = evaluate_model(model, data, extent=Extent(generated=12, photographs=10))
    seen = figures["photographs"]
    assert seen["rows"] == 10
    assert set(seen["unconditional_by_source"]) == {"blue"}
    assert set(seen["feature_distance"]) == {"blue"}
    assert 0 <= figures["conversion"]["blue->map"]["accuracy"] <= 1


def test_no_set_has_more_images_than_rows_were_looked_at() -> None:
    assert Extent(rows=500, photographs=1000).pictures == 500
    assert Extent(photographs=1000).pictures == 1000


def test_subsets_share_the_room_of_a_set() -> None:
    """Also where the first subset alone could fill it."""
    model = tiny_model("poe", [Source(name, (3, 8, 8)) for name in "abc"]).eval()
    images = {name: values.numpy() for name, values in random_batch(model, rows=40).values.items()}
    rows = complete_rows(model.sources, images)
    data = DataSet("own", {"train": rows, "test": rows}, shared_content=True)
    album = Album(real_photographs(data, 10, Quiet()), 3)
    taken: list[tuple[str, str, int]] = []
    album.add = lambda name, source, images: taken.append((name, source, len(images)))  # type: ignore[method-assign]
    conversions(model, data, make_yardstick(data, Extent()), Extent(), album, 0)
    alone = [count for name, source, count in taken if (name, source) == ("conditional 1", "a")]
    assert alone == [5, 5]  # given b, given c
    assert [count for name, source, count in taken if (name, source) == ("conditional 2", "a")] == [10]
    assert len(proper_subsets([str(number) for number in range(40)])) == 80


def test_both_sizes_of_given_sets_have_equally_many_images_where_rows_lack_sources() -> None:
    """All but one source are there in fewer rows than one is, and a small set has a larger distance."""
    model = tiny_model("poe", [Source(name, (3, 8, 8)) for name in "abcd"]).eval()
    images = {name: values.numpy() for name, values in random_batch(model, rows=60).values.items()}
    rows = complete_rows(model.sources, images)
    generator = torch.Generator().manual_seed(0)
    for name in "abcd":
        rows.present[name][:] = torch.rand(60, generator=generator) < 0.7
    data = DataSet("own", {"train": rows, "test": rows}, shared_content=True)
    album = Album(real_photographs(data, 30, Quiet()), 4)
    taken: Counter[tuple[str, str]] = Counter()
    album.add = lambda name, source, images: taken.update({(name, source): len(images)})  # type: ignore[method-assign]
    conversions(model, data, make_yardstick(data, Extent()), Extent(), album, 0)
    for name in "abcd":
        others = torch.stack([rows.present[other] for other in "abcd" if other != name]).all(dim=0).sum()
        assert taken["conditional 1", name] == taken["conditional 3", name] == int(others) < 30


def test_shares_are_as_level_as_what_there_is() -> None:
    assert levelled({"a": 9, "b": 1, "c": 9}, 12) == {"a": 6, "b": 1, "c": 5}
    assert levelled({"a": 3, "b": 3}, 99) == {"a": 3, "b": 3}
    assert levelled({}, 5) == {}


def test_monotonicity_tells_losses() -> None:
    better = monotonicity({"1": 0.5, "2": 0.7, "3": 0.6}, {"1": 9.0, "2": 5.0, "3": 5.5})
    assert better == pytest.approx({"coherence_gain": 0.1, "coherence_fall": 0.1, "frechet_rise": 0.5})
    assert monotonicity({"1": 0.5, "2": 0.6}, {})["coherence_fall"] == 0
    assert monotonicity({"1": None}, {}) == {"coherence_gain": None, "coherence_fall": None, "frechet_rise": None}
