"""What the sources of a row share: found in the data, unless a person says it."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from conftest import TINY_TRAINING, let_pass, tiny_settings
from msvae import api
from msvae.config import FlowConfig
from msvae.data import DataSet
from msvae.data.base import Rows, complete_rows
from msvae.errors import ConfigError
from msvae.metrics import local_fit
from msvae.source import Source
from msvae.training.content_kind import scene_fit, with_known_content
from msvae.training.progress import Quiet


def blobs(rows: int, channels: int, seed: int) -> torch.Tensor:
    """Smooth random images."""
    white = torch.randn(rows, channels, 16, 16, generator=torch.Generator().manual_seed(seed))
    return F.avg_pool2d(white, 5, stride=1, padding=2)


def data(same_scene: bool, present: np.ndarray | None = None) -> DataSet:
    first = blobs(80, 1, 0)
    second = -first.repeat(1, 3, 1, 1) if same_scene else blobs(80, 3, 1)
    sources = [Source("first", (1, 16, 16)), Source("second", (3, 16, 16))]
    images = {"first": (first / 4 + 0.5).clamp(0, 1).numpy(), "second": (second / 4 + 0.5).clamp(0, 1).numpy()}
    rows = complete_rows(sources, images, np.arange(80, dtype=np.int32) % 2)
    return DataSet("mine", {"train": rows, "validation": rows, "test": rows}, shared_content=same_scene)


def test_a_filtered_version_is_explained_and_another_image_is_not() -> None:
    images = blobs(64, 2, 0)
    kernel = torch.randn(3, 2, 3, 3, generator=torch.Generator().manual_seed(2))
    assert local_fit(images, F.conv2d(images, kernel, padding=1)) > 0.95
    assert local_fit(images, images.abs()) > 0.5
    assert abs(local_fit(images, blobs(64, 2, 1))) < 0.05
    assert local_fit(images, 3.0 + torch.zeros(64, 1, 16, 16)) == 0.0  # nothing to explain
    faint = 0.5 + 1e-3 * images
    assert local_fit(faint, 1.0 - faint) > 0.95  # contrast does not count


@pytest.mark.parametrize(("same_scene", "kind"), [(True, "scene"), (False, "class")])
def test_the_data_say_what_is_shared(same_scene: bool, kind: str) -> None:
    config = api.run_config(method="flow")
    assert isinstance(config.model, FlowConfig)
    assert config.model.content == "auto"
    assert not config.model.aligned
    known = with_known_content(config, data(same_scene), Quiet()).model
    assert isinstance(known, FlowConfig)
    assert known.content == kind
    assert known.aligned == same_scene


def test_short_budgets_train_a_class() -> None:
    for budget, kind in ((179, "class"), (180, "scene")):
        known = with_known_content(api.run_config(method="flow", budget=budget), data(True), Quiet()).model
        assert isinstance(known, FlowConfig)
        assert known.content == kind


def test_numbers_of_steps_without_a_stage_for_scenes_train_a_class() -> None:
    steps = {"sources": 1, "code": 1, "converter": 1, "renderer": 1}
    longer = ({**steps, "alignment": 1}, {"sources": 1})  # whatever is not named has its share
    for chosen, kind in ((steps, "class"), ({"alignment": 0}, "class"), *((each, "scene") for each in longer)):
        config = api.run_config(method="flow", settings={"training.stage_steps": chosen, "training.steps": 5})
        known = with_known_content(config, data(True), Quiet()).model
        assert isinstance(known, FlowConfig)
        assert known.content == kind


def test_a_choice_that_does_not_go_with_a_scene_is_told_plainly() -> None:
    config = api.run_config(method="flow", settings={"model.patch": None})
    with pytest.raises(ConfigError, match="patch"):
        with_known_content(config, data(True), Quiet())


def test_class_maps_need_not_be_explained() -> None:
    """An empty mask beside two photographs is no evidence of a scene."""
    scene = data(False).split("train")
    mask = Source("mask", (1, 16, 16), likelihood="categorical", categories=2)
    values = {**scene.values, "mask": torch.zeros(80, 1, 16, 16)}
    present = {**scene.present, "mask": torch.ones(80, dtype=torch.bool)}
    assert scene_fit(Rows((*scene.sources, mask), values, present)) == pytest.approx(scene_fit(scene), abs=0.05)


def test_what_a_person_chose_stays() -> None:
    by_hand = api.run_config(method="flow", settings={"model.content": "class"})
    assert with_known_content(by_hand, data(True), Quiet()) == by_hand
    sized = api.run_config(method="flow", settings={"model.channels": 5})
    found = with_known_content(sized, data(True), Quiet()).model
    assert isinstance(found, FlowConfig)
    assert (found.content, found.channels, found.grid) == ("scene", 5, 4)


def test_sources_of_other_sizes_or_without_common_rows_share_a_class() -> None:
    config = api.run_config(method="flow")
    scene = data(True)
    rows = scene.split("train")
    nowhere = {"first": torch.arange(80) < 40, "second": torch.arange(80) >= 40}
    apart = DataSet("mine", {"train": type(rows)(rows.sources, rows.values, nowhere, rows.labels)}, False)
    other = complete_rows(
        [Source("a", (1, 8, 8)), Source("b", (1, 9, 8))],
        {"a": np.zeros((20, 1, 8, 8)), "b": np.zeros((20, 1, 9, 8))},
        np.zeros(20, dtype=np.int32),
    )
    for each in (apart, DataSet("mine", {"train": other}, False)):
        known = with_known_content(config, each, Quiet()).model
        assert isinstance(known, FlowConfig)
        assert known.content == "class"


def test_a_run_keeps_what_was_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    let_pass(monkeypatch)
    settings = {**tiny_settings("flow"), **TINY_TRAINING, "training.steps": 5}
    run = api.train(data(True), "flow", out=tmp_path / "run", settings=settings)
    assert isinstance(run.config.model, FlowConfig)
    assert run.config.model.content == "scene"
    assert run.folder.config().model == run.config.model
    reusing = {**settings, "training.steps": None, "model.reuse": str(tmp_path / "run")}
    again = api.train(data(True), "flow", out=tmp_path / "again", budget=2, settings=reusing)
    assert isinstance(again.config.model, FlowConfig)
    assert again.config.model.content == "scene"  # though the budget is short: the autoencoders are those of a scene
