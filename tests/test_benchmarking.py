"""Comparisons under one budget: equal terms, kept results, honest timings; on few rows and tiny networks."""

import json
import runpy
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import TINY, TINY_TRAINING, Command, tiny_settings
from msvae.api import run_config
from msvae.benchmarking import calibration as calibrating
from msvae.benchmarking import quality
from msvae.benchmarking.calibration import Calibration, calibrate, calibrate_loop
from msvae.benchmarking.markdown import by_method
from msvae.benchmarking.pages import BEGIN, END
from msvae.benchmarking.quality import Comparison, compare, trained_as
from msvae.benchmarking.results import Results, Terms, summary
from msvae.benchmarking.settings import compared_config
from msvae.benchmarking.speed import random_rows, speed_table, training_step
from msvae.benchmarking.tables import page, table_section
from msvae.benchmarking.timing import Timing, alternating, operations, peak_of, ratio
from msvae.config import ModelConfig, parse
from msvae.data import DataSet, Rows
from msvae.errors import ConfigError
from msvae.evaluation import yardstick
from msvae.evaluation.verifier import Classifier, Effort, train_classifier
from msvae.models import SharedFlow
from msvae.training import gates
from msvae.training.checkpoint import RunFolder
from msvae.training.gates import Gate
from msvae.training.opening import Run, open_run
from msvae.training.progress import Quiet

ROOT = Path(__file__).parent.parent
TERMS = Terms("colours", budget=2.0, missing=0.0, test_rows=40, generated_rows=40, photographs=0)
SETTINGS: dict[str, Any] = {
    **{f"model.{key}": value for key, value in TINY.items()},
    **TINY_TRAINING,
    "data.options.variants": 1,
    "data.sources": ["blue", "green"],
}


def calibrated(path: Path, **seconds: float) -> Path:
    entries = {
        name: {"stages": {"training": {"share": 1.0, "seconds_per_step": value}}} for name, value in seconds.items()
    }
    path.write_text(json.dumps({"format_version": 1, "entries": entries}))
    return path


VERIFIERS: dict[str, Classifier] = {}


def trained_once(data: DataSet, rows: Rows, name: str, classes: int, seed: int) -> Classifier:
    """A verifier of few steps, the same in every test."""
    if name not in VERIFIERS:
        VERIFIERS[name] = train_classifier(rows, name, classes, seed, Effort(steps=100))
    return VERIFIERS[name]


@pytest.fixture
def comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Comparison:
    monkeypatch.setattr(yardstick, "verifier_of", trained_once)
    measured = calibrated(tmp_path / "calibration.json", poe=0.2, moe=0.1)
    return Comparison(TERMS, measured, tmp_path / "results", tmp_path / "runs", SETTINGS)


def test_a_budget_is_a_number_of_steps(tmp_path: Path) -> None:
    calibration = Calibration(tmp_path / "steps.json")
    # two repeats of three windows: in each the fastest counts, then their mean
    repeats = [{"training": [0.1, 0.9, 0.3]}, {"training": [0.5, 0.2, 0.3]}]
    assert calibration.record("poe", repeats, batch_size=8) == pytest.approx({"training": 0.2})
    stages = {"first": [0.1, 0.1], "second": [0.5, 0.5]}
    calibration.record("staged", [stages], {"first": 1.0, "second": 3.0})
    stored = Calibration(tmp_path / "steps.json")
    assert stored.steps("poe", 60.0) == {"training": 300}
    assert stored.steps("poe", 0.01) == {"training": 1}
    assert stored.steps("staged", 40.0) == {"first": 100, "second": 60}
    assert stored.entries["poe"]["stages"]["training"]["slowest"] == 0.9
    assert {"date", "processor", "threads", "commit"} <= set(stored.entries["poe"])
    with pytest.raises(ConfigError, match="Did you mean 'poe'"):
        stored.steps("pie", 60.0)
    (tmp_path / "steps.json").write_text('{"format_version": 99, "entries": {}}')
    with pytest.raises(ConfigError, match="upgrade"):
        Calibration(tmp_path / "steps.json")


def test_steps_are_measured_with_the_real_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrating, "SECONDS_A_REPEAT", 0.0)
    monkeypatch.setattr(calibrating, "REPEATS", 2)
    calibration = Calibration(tmp_path / "steps.json")
    calibrate(calibration, "poe", lambda steps: compared_config("colours", "poe", steps, settings=SETTINGS))
    entry = calibration.entries["poe"]
    measured = entry["stages"]["training"]
    assert entry["repeats"] == 2
    assert entry["batch_size"] == 16
    assert measured["windows"] == calibrating.FEWEST_WINDOWS
    assert 1e-4 < measured["seconds_per_step"] <= measured["median"] <= measured["slowest"]


def test_stages_that_are_left_out_and_what_only_answers_need_are_not_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibrating, "SECONDS_A_REPEAT", 0.0)
    monkeypatch.setattr(calibrating, "REPEATS", 1)
    asked: list[str] = []
    monkeypatch.setattr(SharedFlow, "measure_stage", lambda self, name, rows: asked.append(name))
    for gate in list(gates.GATES):
        monkeypatch.setitem(gates.GATES, gate, lambda model, rows: Gate({}))
    settings = {**tiny_settings("flow"), **TINY_TRAINING, "model.converter": "product", "data.options.variants": 1}
    calibration = Calibration(tmp_path / "steps.json")
    calibrate(calibration, "flow", lambda steps: compared_config("colours", "flow", steps, settings=settings))
    assert list(calibration.entries["flow"]["stages"]) == ["sources", "code", "renderer"]
    assert not asked


def test_a_comparison_is_kept_added_to_and_not_done_twice(comparison: Comparison, tmp_path: Path) -> None:
    table = compare(comparison, ["poe"])
    (row,) = table.rows
    assert row["steps"] == 10
    assert row["figures"] == summary(
        json.loads((tmp_path / "runs/quality-colours-2s/poe-seed0/metrics.json").read_text())
    )
    assert 0 <= row["figures"]["coherence_1"] <= 1
    assert row["figures"]["frechet_unconditional"] is None
    assert table.ceilings["coherence_1"] > 0.1

    first = table.path.read_text()
    assert compare(comparison, ["poe"]).path.read_text() == first
    added = compare(comparison, ["poe", "moe"], seeds=[0])
    assert [(r["method"], r["steps"]) for r in added.rows] == [("poe", 10), ("moe", 20)]
    assert added.rows[0] == row

    text = page(comparison.results, ROOT / "benchmarks" / "anchors.json")
    assert "## colours, 2 s of training" in text
    (line,) = [line for line in text.splitlines() if line.startswith("| moe | 20 |")]
    assert f"{added.rows[1]['figures']['coherence_1']:.3f}" in line
    assert text.index("## colours") < text.index("## Published figures (not measured here)") < text.index("| MVAE |")
    with pytest.raises(ConfigError, match="other terms"):
        Results(table.path, Terms("colours", 2.0, 0.0, 41, 40, 0))
    with pytest.raises(ConfigError, match="Did you mean 'mopoe'"):
        compare(comparison, ["moppoe"])


def test_a_stopped_run_goes_on_and_another_setting_starts_anew(comparison: Comparison) -> None:
    compare(comparison, ["poe"])
    folder = comparison.runs / "quality-colours-2s" / "poe-seed0"
    trained = RunFolder(folder).latest().stat().st_mtime_ns
    comparison.table.path.unlink()  # stopped while it was tested: the finished run is opened, not trained again
    compare(comparison, ["poe"])
    assert RunFolder(folder).latest().stat().st_mtime_ns == trained
    other = Comparison(
        TERMS, comparison.calibration, comparison.results, comparison.runs, {**SETTINGS, "model.latent": 5}
    )
    compare(other, ["poe"], again=True)
    assert RunFolder(folder).config().model.latent == 5
    assert len(other.table.rows) == 1


@pytest.mark.parametrize(
    ("method", "budget", "chosen", "patch", "measured"),
    [
        ("flow", 599.0, {}, None, "flow"),
        ("flow", 600.0, {}, 1, "flow, tokens"),
        ("flow", 600.0, {"model.patch": 2}, 2, "flow"),
        ("flow", 600.0, {"model.patch": None}, None, "flow"),
        ("flow", 600.0, {"model.renderer_width": 64}, None, "flow"),
        ("flow", 600.0, {"model.content": "scene"}, 4, "flow"),
        ("poe", 600.0, {}, None, "poe"),
    ],
)
def test_the_compared_flow_is_the_one_that_such_a_budget_trains(
    tmp_path: Path, method: str, budget: float, chosen: dict[str, Any], patch: int | None, measured: str
) -> None:
    terms = Terms("colours", budget, 0.0, 20, 20, 0)
    comparison = Comparison(terms, tmp_path / "calibration.json", tmp_path, tmp_path, chosen)
    model = compared_config("colours", method, {"training": 1}, settings=comparison.settings_of(method)).model
    assert getattr(model, "patch", None) == patch
    assert comparison.measured_as(method) == measured


@pytest.mark.parametrize(
    ("budget", "chosen", "renderer"),
    [
        (600.0, {}, 0.48),
        (600.0, {"model.shares": {"renderer": 1.56}}, 0.75),  # beside .52 of the others
    ],
)
def test_steps_follow_the_shares_of_the_budget(
    tmp_path: Path, budget: float, chosen: dict[str, Any], renderer: float
) -> None:
    measured = Calibration(tmp_path / "calibration.json")
    shares = {"sources": 0.26, "code": 0.16, "converter": 0.10, "renderer": 0.48}
    measured.record("flow, tokens", [{stage: [0.5] for stage in shares}], shares)
    comparison = Comparison(Terms("colours", budget, 0.0, 20, 20, 0), measured.path, tmp_path, tmp_path, chosen)
    steps = measured.steps(comparison.measured_as("flow"), budget, comparison.shares_of("flow"))
    assert steps["renderer"] == pytest.approx(2 * budget * renderer, abs=1.0)
    assert sum(steps.values()) == pytest.approx(2 * budget, abs=4.0)


def test_how_to_sample_may_change_without_training_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for gate in list(gates.GATES):
        monkeypatch.setitem(gates.GATES, gate, lambda model, rows: Gate({}))
    fixed = {**tiny_settings("flow"), **TINY_TRAINING, "training.steps": 12}

    def run(again: bool = False, **settings: Any) -> Run:
        return trained_as(run_config("colours", "flow", settings={**fixed, **settings}), tmp_path / "run", again=again)

    first = run()
    trained = first.folder.latest().stat().st_mtime_ns
    other = run(**{"model.guidance": 3.0, "model.redraws": 0})
    assert other.folder.latest().stat().st_mtime_ns == trained
    assert isinstance(other.model, SharedFlow)
    assert (other.model.guidance, other.model.sampling.redraws, other.config.model.guidance) == (3.0, 0, 3.0)
    with pytest.raises(ConfigError, match="holds a run of other settings"):
        run(**{"model.code": 5})
    assert first.folder.latest().stat().st_mtime_ns == trained
    assert run(again=True, **{"model.code": 5}).folder.latest().stat().st_mtime_ns != trained


def test_ablations_stand_in_a_table_of_their_own_and_those_of_drawing_are_not_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(yardstick, "verifier_of", trained_once)
    ablations = runpy.run_path(str(ROOT / "benchmarks" / "ablations.py"))
    terms = Terms("colours", budget=12.0, missing=0.0, test_rows=20, generated_rows=20, photographs=0)
    fixed = {**tiny_settings("flow"), **TINY_TRAINING, "data.options.variants": 1, "data.sources": ["blue", "green"]}
    comparison = Comparison(terms, tmp_path / "calibration.json", tmp_path / "results", tmp_path / "runs", fixed)
    measured = {stage: [1.0] for stage in ("sources", "code", "converter", "renderer")}
    Calibration(comparison.calibration).record("flow", [measured], dict.fromkeys(measured, 0.25))
    names = ["whole", "Gaussian product for the converter", "no redraws"]
    ablations["ablate"](comparison, names, 0, Quiet())
    rows = {row["method"]: row for row in comparison.table.rows}
    assert list(rows) == names
    assert [rows[name]["steps"] for name in names] == [12, 6, 12]
    assert rows["no redraws"]["settings"]["redraws"] == 0
    assert rows["whole"]["failed_gates"]  # three steps a stage teach nothing
    reused = open_run(comparison.folder_of("Gaussian-product-for-the-converter", 0)).model
    whole = open_run(comparison.folder_of("whole", 0)).model
    for name, value in whole.state_dict().items():
        if name.startswith(("autoencoders.", "grain.")):
            assert torch.equal(value, reused.state_dict()[name])
    assert len(list((tmp_path / "runs" / "quality-colours-12s").iterdir())) == 2
    with pytest.raises(ConfigError, match="Did you mean 'no redraws'"):
        ablations["ablate"](comparison, ["no redraw"], 0, Quiet())


def test_every_ablation_changes_the_flow(tmp_path: Path) -> None:
    whole = compared_config("colours", "flow", {"training": 1}).model
    ablations = runpy.run_path(str(ROOT / "benchmarks" / "ablations.py"))["ABLATIONS"]
    models = [compared_config("colours", "flow", {"training": 1}, settings=a.dotted).model for a in ablations.values()]
    assert models[0] == whole
    assert len({model.model_dump_json() for model in models}) == len(ablations)


def test_several_seeds_are_a_mean_and_half_their_range(tmp_path: Path) -> None:
    results = Results(tmp_path / "quality-x.json", TERMS)
    for seed, value in ((0, 0.5), (1, 0.7)):
        results.add(_row(seed, {"coherence_1": value, "probe_1": None}), {"coherence_1": 0.9})
    line = next(line for line in page(tmp_path).splitlines() if line.startswith("| poe"))
    assert "| 0.600 ± 0.100 |" in line
    assert "| 2.0 | 2 |" in line  # epochs, seeds
    results.add(_row(1, {"coherence_1": 0.5}), {"coherence_1": 0.9})
    assert "| 0.500 ± 0.000 |" in page(tmp_path)


def test_tables_of_other_settings_stand_apart_by_the_name_of_their_folder(tmp_path: Path) -> None:
    (tmp_path / "adamw").mkdir()
    for path, value in ((tmp_path / "quality-x.json", 0.5), (tmp_path / "adamw" / "quality-x.json", 0.25)):
        Results(path, TERMS).add(_row(0, {"coherence_1": value}), {"coherence_1": 0.9})
    _, plain, other = page(tmp_path).split("\n## ")
    assert "; adamw" in other
    assert "| 0.500 |" in plain
    assert "| 0.250 |" in other
    assert "| 0.250 |" not in plain


def test_rows_of_the_prior_do_not_stand_as_those_of_a_fitted_sampler() -> None:
    figures: dict[str, Any] = {name: {} for name in ("photographs", "ceilings", "probe", "sources", "monotonicity")}
    figures |= {"conditional_coherence": {"1": 0.5}}
    alone = summary({**figures, "generation": {"joint_coherence": 0.1, "drawn_from": "prior"}})
    assert (alone["joint_coherence"], alone["prior_joint_coherence"]) == (None, 0.1)
    made = {"joint_coherence": 0.6, "prior_joint_coherence": 0.1, "drawn_from": "fitted sampler"}
    both = summary({**figures, "generation": made})
    assert (both["joint_coherence"], both["prior_joint_coherence"]) == (0.6, 0.1)


def test_rows_that_another_process_has_added_stay(tmp_path: Path) -> None:
    first, second = (Results(tmp_path / "quality-x.json", TERMS) for _ in range(2))
    first.add(_row(0, {}), {})
    second.add(_row(1, {}), {})
    first.add(_row(2, {}), {})
    assert [row["seed"] for row in Results(tmp_path / "quality-x.json").rows] == [0, 1, 2]
    one, other = (Calibration(tmp_path / "calibration.json") for _ in range(2))
    one.record("poe", [{"training": [0.1]}])
    other.record("moe", [{"training": [0.2]}])
    assert set(Calibration(tmp_path / "calibration.json").entries) == {"poe", "moe"}


def test_tables_lose_no_row_of_processes_that_write_at_the_same_time(tmp_path: Path) -> None:
    place = tmp_path / "quality-x.json"
    tables = [Results(place, TERMS) for _ in range(8)]
    with ThreadPoolExecutor(8) as writers:
        list(writers.map(lambda number: tables[number].add(_row(number, {}), {}), range(8)))
    assert sorted(row["seed"] for row in Results(place).rows) == list(range(8))


def _row(seed: int, figures: Mapping[str, Any]) -> dict[str, Any]:
    facts = {"method": "poe", "seed": seed, "steps": 10, "batch_size": 20, "rows_in_training": 100}
    machine = {"processor": "some", "threads": 1, "torch": "2", "date": "2026-01-01", "commit": None, "msvae": "0"}
    return {**facts, **machine, "figures": dict(figures)}


def test_steps_take_turns() -> None:
    calls: list[str] = []
    timings = alternating({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=3)
    assert "".join(calls) == "abab" + "abbaab"  # two rounds of warm-up, then the order turns
    assert len(timings["a"].seconds) == 3
    assert ratio(Timing((2.0, 9.0, 4.0)), Timing((1.0, 3.0, 4.0))) == 2.0
    assert (Timing((3.0, 1.0, 2.0)).minimum, Timing((3.0, 1.0, 2.0)).median) == (1.0, 2.0)


def test_operations_are_counted() -> None:
    one = torch.ones(3)

    def adds(count: int) -> None:
        for _ in range(count):
            torch.add(one, one)

    assert operations(lambda: adds(7)) == 7
    assert operations(lambda: adds(9)) == 9


def test_peaks_are_of_fresh_processes() -> None:
    tell = "from msvae.benchmarking.timing import peak_megabytes; print(f'{{\"megabytes\": {peak_megabytes()}}}')"
    held = bytearray(300_000_000)  # what the parent holds does not count
    small = peak_of(["-c", tell])["megabytes"]
    large = peak_of(["-c", f"held = bytearray(200_000_000); {tell}"])["megabytes"]
    assert 150 < large - small < 250
    del held
    with pytest.raises(RuntimeError, match="ZeroDivision"):
        peak_of(["-c", "1 / 0"])


def test_speed_is_measured_for_every_method(tmp_path: Path) -> None:
    batch = random_rows(3, 6, missing=0.5)
    assert torch.stack(list(batch.present.values())).any(dim=0).all()
    assert not torch.stack(list(batch.present.values())).all()
    training_step("mvtcae", batch, TINY)()
    settings = {key: value for key, value in TINY.items() if key != "sampler_components"}
    content = speed_table(["poe"], tmp_path / "speed-own.json", sources=2, rows=4, rounds=2, settings=settings)
    assert [row[0] for row in content["table"]] == ["poe"]
    assert all(entry["operations"] > 100 and entry["peak_megabytes"] > 50 for entry in content["measured"])
    assert "| poe |" in page(tmp_path)
    with pytest.raises(ConfigError, match="no one training step"):
        training_step("flow", batch)
    with pytest.raises(ConfigError, match="settings of its own"):
        parse(ModelConfig, {"method": "flow"})


def test_rows_of_other_settings_do_not_pass_for_those_asked_for(tmp_path: Path) -> None:
    table = Results(tmp_path / "table.json", TERMS)
    table.add({**_row(0, {}), "chosen": {"model.latent": 8}}, {})
    table.add(_row(1, {}), {})  # of before settings were kept with rows
    assert table.has("poe", 1)
    assert not table.has("poe", 2)
    table.refuse_other_settings({"model.latent": 8})
    with pytest.raises(ConfigError, match=r"'model\.latent': 8.* not the usual ones"):
        table.refuse_other_settings({})
    table.refuse_other_settings({}, replaced=[("poe", 0)])


def test_a_mean_over_seeds_is_of_one_model(tmp_path: Path) -> None:
    table = Results(tmp_path / "table.json", TERMS)
    table.add({**_row(0, {}), "settings": {"latent": 8}}, {})
    table.refuse_other_models("poe", {"latent": 8, "prior": "of a later version"})
    table.refuse_other_models("moe", {"latent": 9})
    with pytest.raises(ConfigError, match=r"seed 0, of other settings \(latent was 8, is 9\)"):
        table.refuse_other_models("poe", {"latent": 9})
    table.refuse_other_models("poe", {"latent": 9}, replaced=[("poe", 0)])


def test_distances_of_a_table_are_of_equally_many_images(tmp_path: Path) -> None:
    stick = yardstick.Yardstick({}, {}, 0, {}, None)
    table = Results(tmp_path / "table.json", TERMS)
    table.refuse_other_counts(stick)
    table.add(_row(0, {}), {"photographs": None})
    table.refuse_other_counts(stick)
    table.add(_row(0, {}), {"photographs": 500})
    with pytest.raises(ConfigError, match="of 500 images, not of None"):
        table.refuse_other_counts(stick)


def test_a_run_of_other_settings_is_not_replaced_without_a_word(comparison: Comparison) -> None:
    compare(comparison, ["poe"])
    elsewhere = replace(comparison, results=comparison.results / "other", settings={**SETTINGS, "model.latent": 5})
    with pytest.raises(ConfigError, match=r"poe-seed0 holds a run of other settings.*--again"):
        compare(elsewhere, ["poe"])
    assert RunFolder(comparison.folder_of("poe", 0)).config().model.latent != 5


def test_a_comparison_goes_on_where_a_gate_fails_and_says_so(
    comparison: Comparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixed = {**tiny_settings("flow"), **TINY_TRAINING, "data.options.variants": 1, "data.sources": ["blue", "green"]}
    for gate in list(gates.GATES):
        monkeypatch.setitem(gates.GATES, gate, lambda model, rows: Gate({}))
    monkeypatch.setitem(gates.GATES, "code", lambda model, rows: Gate({}, "no code."))
    measured = {stage: [1.0] for stage in ("sources", "code", "converter", "renderer")}
    Calibration(comparison.calibration).record("flow", [measured], dict.fromkeys(measured, 0.25))
    flows = replace(comparison, settings=fixed, terms=replace(comparison.terms, budget=8.0))
    (row,) = compare(flows, ["flow"]).rows
    assert row["failed_gates"] == ["code"]
    assert "| flow (gate not passed: code) |" in page(comparison.results)


def test_what_cannot_be_compared_is_refused_before_anything_is_trained(comparison: Comparison) -> None:
    partial = replace(comparison, terms=replace(comparison.terms, missing=0.5))
    with pytest.raises(ConfigError, match="'jmvae' needs complete rows"):
        compare(partial, ["poe", "jmvae"])
    with pytest.raises(ConfigError, match=r"on known sets.*my-images/"):
        compare(replace(comparison, terms=replace(comparison.terms, data="my-images/")), ["poe"])
    assert not comparison.runs.exists()
    assert not comparison.results.exists()


def test_steps_are_measured_on_complete_rows(comparison: Comparison, monkeypatch: pytest.MonkeyPatch) -> None:
    """A budget is the same number of steps, whether images are missing or not."""
    seen = []

    def measure(calibration: Calibration, name: str, config_of: Callable[..., Any], _: object) -> None:
        seen.append(config_of({"training": 1}).data.missing)
        raise KeyboardInterrupt

    monkeypatch.setattr(quality, "calibrate", measure)
    with pytest.raises(KeyboardInterrupt):
        compare(replace(comparison, terms=replace(comparison.terms, missing=0.5)), ["mmvae"])
    assert seen == [0.0]


def test_tables_that_are_ready_say_when_each_row_was_made(tmp_path: Path) -> None:
    when = {"processor": "P", "threads": 2, "torch": "2", "msvae": "0.1.0", "commit": "abc"}
    rows = [{**when, "date": "2026-01-01 10:00 UTC"}, {**when, "date": "2026-02-03 10:00 UTC", "commit": None}]
    content = {"title": "t", "note": "n", "columns": ["a"], "table": [["1"], ["2"]], "rows": rows}
    path = tmp_path / "translation-x.json"
    path.write_text(json.dumps({**content, "circumstances": rows[1]}))
    assert "2026-01-01 to 2026-02-03; P, 2 threads, torch 2; commit abc, msvae 0.1.0." in table_section(path)


def test_the_command_writes_the_page(msvae: Command, tmp_path: Path) -> None:
    Results(tmp_path / "results" / "quality-x.json", TERMS).add(_row(0, {"coherence_1": 0.5}), {"coherence_1": 0.9})
    msvae("bench", "table", "--results", "results", "-o", "page.md")
    assert "| poe |" in (tmp_path / "page.md").read_text()
    assert "Did you mean 'mopoe'" in msvae("bench", "quality", "--methods", "moppoe", code=2).stderr


def test_figures_go_into_the_pages_of_their_methods(msvae: Command, tmp_path: Path) -> None:
    results = Results(tmp_path / "results" / "quality-x.json", TERMS)
    for seed, coherence in enumerate((0.25, 0.75)):
        results.add(_row(seed, {"coherence_1": coherence}), {"coherence_1": 0.9})
    pages = tmp_path / "pages"
    pages.mkdir()
    for name in ("poe", "mvae"):
        (pages / f"{name}.md").write_text(f"Words.\n\n{BEGIN}\nold figures\n{END}\nMore words.\n")
    for _ in range(2):  # written again it stays the same
        said = msvae("bench", "table", "--results", "results", "-o", "page.md", "--pages", "pages").stdout
        assert "in 2 pages" in said
        page = (pages / "poe.md").read_text()
        assert page.startswith("Words.")
        assert page.endswith(f"{END}\nMore words.\n")
        assert "old figures" not in page
        assert "| 2 | 0.500 ± 0.250 |" in page
        assert "Not measured yet." in (pages / "mvae.md").read_text()
    (pages / "mvae.md").write_text("no place")
    assert "no place for figures" in msvae("bench", "table", "--results", "results", "--pages", "pages", code=2).stderr
    assert (pages / "mvae.md").read_text() == "no place"


def test_the_best_method_stands_first() -> None:
    rows = [
        {"method": name, "figures": {"coherence_1": value}} for name, value in (("a", 0.5), ("b", None), ("c", 0.7))
    ]
    assert list(by_method(rows)) == ["c", "a", "b"]


def test_the_scripts_explain_themselves_without_the_peer() -> None:
    words = [sys.executable, str(ROOT / "benchmarks" / "peer" / "quality.py"), "--help"]
    assert "--stubs" in subprocess.run(words, capture_output=True, text=True, check=True).stdout


def test_steps_of_a_foreign_loop_are_measured_without_the_first_ones_and_by_the_fastest_repeat(tmp_path: Path) -> None:
    trainings: list[int] = []

    def fresh() -> Callable[[], float]:
        """Each training is faster than the one before, but for its first five steps, which allocate."""
        number = len(trainings)
        trainings.append(0)

        def advance() -> float:
            trainings[number] += 1
            return 9.0 if number and trainings[number] <= 5 else 1.0 / (1 + number)

        return advance

    calibration = Calibration(tmp_path / "calibration.json")
    per_step = calibrate_loop(calibration, "rival", fresh, batch_size=7)
    assert per_step == pytest.approx(0.25)
    assert trainings == [2, 20, 20, 20]  # three windows of five, which are 15 seconds
    assert Calibration(tmp_path / "calibration.json").entries["rival"]["batch_size"] == 7
    assert calibration.steps("rival", 60.0) == {"training": 240}


def test_slow_steps_of_a_foreign_loop_are_measured_in_short_windows(tmp_path: Path) -> None:
    taken: list[float] = []

    def advance() -> float:
        taken.append(8.0)
        return 8.0

    assert calibrate_loop(Calibration(tmp_path / "calibration.json"), "slow", lambda: advance) == pytest.approx(8.0)
    assert len(taken) == 2 + 3 * (1 + 2)
