"""Settings: from options and files, with the nearest key for a misspelt one."""

from pathlib import Path
from typing import Any

import pytest

from msvae import api
from msvae.config import FlowConfig, RunConfig, merged, parse, read_yaml, seconds
from msvae.config.base import Settings
from msvae.config.described import described
from msvae.errors import ConfigError


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"training.batchsize": 3}, r"'training.batchsize'.*Did you mean 'training.batch_size'"),
        ({"trainng.steps": 3}, "'trainng'.*Did you mean 'training'"),
        ({"model.latent": -3}, "'model.latent'.*greater than or equal to 1, got -3"),
        ({"model.latent": "many"}, "'model.latent'.*valid integer.*got 'many'"),
        ({"model.method": "mopo"}, "Did you mean 'mopoe'"),
        ({"data.missing": 1.0}, "'data.missing'.*less than 1"),
        ({"training.precision": "bf17"}, "'training.precision'"),
        ({"model.beta": float("nan")}, "'model.beta'"),
        ({"training.learning_rate": float("inf")}, "'training.learning_rate'"),
        ({"model.method": 5}, "Unknown method '5'"),
        ({"data.sources": []}, "'data.sources'"),
        ({"training.steps": 3, "training.epochs": 2}, "one length; training.steps and training.epochs"),
    ],
)
def test_mistakes_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        api.run_config(settings=settings)


def test_the_users_settings_win_over_the_method_and_options_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("model: {method: poe, latent: 7}\ntraining: {steps: 5}\n")
    config = api.run_config(settings={"model.latent": 9, "model.subsets": "present"}, base=read_yaml(file))
    assert (config.model.fusion, config.model.subsets, config.model.latent) == ("poe", "present", 9)
    assert config.model.method == "custom"  # it is no longer the preset
    assert config.training.steps == 5


def test_a_method_asked_for_replaces_the_parts_of_the_files_method() -> None:
    base = api.run_config(method="mopoe", settings={"model.latent": 9}).model_dump(mode="json")
    config = api.run_config(method="poe", base=base)
    assert (config.model.method, config.model.fusion, config.model.subsets) == ("poe", "poe", "random")
    assert config.model.latent == 9


def test_data_and_lengths_asked_for_replace_those_of_the_file() -> None:
    base = {"data": {"name": "other", "missing": 0.2}, "training": {"steps": 2, "seed": 4}}
    config = api.run_config("colours", budget="3s", base=base)
    assert (config.data.name, config.data.missing) == ("colours", 0.2)
    assert (config.training.budget, config.training.steps, config.training.seed) == (3, None, 4)


def test_a_group_of_settings_counts_as_its_settings_do() -> None:
    assert api.run_config(settings={"training": {"budget": "60s"}}).training.budget == 60.0
    with pytest.raises(ConfigError, match="one length"):
        api.run_config(settings={"training": {"budget": 60, "steps": 5}})
    with pytest.raises(ConfigError, match="one length"):
        api.run_config(budget="60s", settings={"training": {"steps": 5}})


def test_settings_survive_the_way_through_json() -> None:
    config = api.run_config(budget="90s", settings={"data.sources": ["blue"], "model.latent": 5})
    assert parse(RunConfig, config.model_dump(mode="json")) == config
    assert config.training.budget == 90


def test_broken_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: [1")
    (tmp_path / "b.yaml").write_text("- 1")
    for name in ("a.yaml", "b.yaml", "none.yaml"):
        with pytest.raises(ConfigError, match=name):
            read_yaml(tmp_path / name)


def test_merging_leaves_the_base_alone() -> None:
    base = {"training": {"steps": 1}}
    assert merged(base, dotted={"training.steps": 2, "model.latent": 3}) == {
        "training": {"steps": 2},
        "model": {"latent": 3},
    }
    assert merged(base, dotted={"training": {"seed": 3}}) == {"training": {"steps": 1, "seed": 3}}
    assert base == {"training": {"steps": 1}}
    with pytest.raises(ConfigError, match="not a group"):
        merged({"training": 3}, dotted={"training.steps": 2})


@pytest.mark.parametrize(("text", "expected"), [("90s", 90), ("10m", 600), ("1.5h", 5400), ("7", 7), (3.5, 3.5)])
def test_durations(text: str | float, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "ten", "10 days", "-5s", "0s", "nan"])
def test_bad_durations(text: str) -> None:
    with pytest.raises(ConfigError, match="Duration"):
        seconds(text)


@pytest.mark.parametrize("settings", [RunConfig(), FlowConfig()])
def test_every_setting_says_what_it_means(settings: Settings) -> None:
    told = described(settings)
    assert [one.name for one in told if not one.meaning] == []
    assert len({one.name for one in told}) == len(told) > 40


def test_attention_is_that_of_tokens() -> None:
    asked = {"method": "flow", "normalised_attention": True}
    config = parse(FlowConfig, asked)
    assert (config.patch, config.renderer_width) == (1, 128)
    assert parse(FlowConfig, config.model_dump(mode="json")) == config
    assert parse(FlowConfig, {"content": "scene", **asked}).patch == 4
    with pytest.raises(ConfigError, match="nothing reads it with patch null"):
        parse(FlowConfig, {**asked, "patch": None})
