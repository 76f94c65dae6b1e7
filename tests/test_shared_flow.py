"""The flow as a model and as a run: stages, gates, exact resume in any of them, fusion, adding a source."""

import copy
import json
import math
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

import msvae
from conftest import TINY_TRAINING, lacking, let_pass, random_batch, tiny_model, tiny_settings
from msvae import api
from msvae.config import FlowConfig, RunConfig, TrainingConfig, parse
from msvae.data import DataSet, Rows, complete_rows, prepared
from msvae.errors import ConfigError, DataError, GateError, Interrupted, SourceError
from msvae.evaluation.flow_likelihood import likelihood_bound
from msvae.flow.autoencoders import Standardiser
from msvae.flow.coded import CodeEvidence
from msvae.flow.sampler import sample
from msvae.models import SharedFlow, build_model
from msvae.models.base import Loss
from msvae.models.stages import RowSource, Stage
from msvae.posterior import Posterior
from msvae.priors import FittedMixture
from msvae.source import Source, SourceBatch
from msvae.training import augmented_rows, gates, inheriting, loop
from msvae.training.checkpoint import RunFolder
from msvae.training.content_kind import with_content
from msvae.training.gates import Gate
from msvae.training.opening import Run, open_run
from msvae.training.plan import StagePlan
from msvae.training.progress import Quiet
from msvae.training.renderer_kind import with_known_renderer
from msvae.training.run import resume_run, train_run
from msvae.training.schedule import BatchOrder
from test_training import assert_same_weights, own_data

STAGES = ("sources", "code", "converter", "renderer")
STEPS = {"sources": 4, "code": 5, "converter": 3, "renderer": 4}


def config(**settings: object) -> RunConfig:
    base = {**tiny_settings("flow"), **TINY_TRAINING, "data.missing": 0.5, "training.precision": "bf16"}
    return api.run_config(
        method="flow",
        settings={**base, "training.stage_steps": STEPS, "training.steps": 16, "training.seed": 1, **settings},
    )


def three_sources() -> DataSet:
    generator = np.random.default_rng(0)
    sources = [Source("a", (1, 8, 8)), Source("b", (2, 9, 8)), Source("c", (1, 8, 8))]
    images = {source.name: generator.random((40, *source.shape)) for source in sources}
    rows = complete_rows(sources, images, np.arange(40, dtype=np.int32) % 2)
    return DataSet("mine", {"train": rows, "validation": rows, "test": rows}, shared_content=True)


DATA = three_sources()


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Run:
    with pytest.MonkeyPatch.context() as patch:
        let_pass(patch)
        return train_run(config(), tmp_path_factory.mktemp("flow") / "straight", data=DATA)


@pytest.mark.parametrize("stop_at", [2, 3, 6, 10, 14])
def test_a_run_stopped_in_any_stage_resumes_bit_for_bit(
    straight: Run, passing: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: int
) -> None:
    original, calls = BatchOrder.__call__, {"count": 0}

    def ask_to_stop(self: BatchOrder, step: int) -> torch.Tensor:
        if calls["count"] == stop_at:
            os.kill(os.getpid(), signal.SIGINT)
        calls["count"] += 1
        return original(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(loop.BatchOrder, "__call__", ask_to_stop)
        with pytest.raises(Interrupted, match=rf"step {stop_at + 1}.*--resume"):
            train_run(config(), tmp_path / "stopped", data=DATA)
    resume_run(tmp_path / "stopped", data=DATA)
    assert_same_weights(straight.folder.path, tmp_path / "stopped")


@pytest.mark.parametrize("where", ["end_stage", "measure_stage"])
def test_a_run_killed_between_stages_resumes_bit_for_bit(
    where: str, straight: Run, passing: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a kill would: the stage's last step is saved, what ends the stage is not."""

    def dies(self: SharedFlow, name: str, rows: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(SharedFlow, where, dies)
        with pytest.raises(KeyboardInterrupt):
            train_run(config(), tmp_path / "killed", data=DATA)
    assert RunFolder(tmp_path / "killed").state().step == 4
    resume_run(tmp_path / "killed", data=DATA)
    assert_same_weights(straight.folder.path, tmp_path / "killed")


def test_the_flows_of_a_small_set_learn_from_rows_in_several_versions_and_resume_with_them(
    passing: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths: list[int] = []
    original = SharedFlow.stage_rows

    def told(self: SharedFlow, name: str, rows: RowSource) -> RowSource:
        made = original(self, name, rows)
        lengths.append(len(made))
        return made

    monkeypatch.setattr(SharedFlow, "stage_rows", told)
    monkeypatch.setattr(augmented_rows, "ENOUGH_ROWS", 120)
    varied = config(**{"training.augment.flip_horizontal": 0.5, "training.augment.shift": 0.1, "training.balance": 1.0})
    straight = train_run(varied, tmp_path / "straight", data=DATA)
    assert lengths == [120, 120, 120, 120]

    order = BatchOrder.__call__

    def stops(self: BatchOrder, step: int) -> torch.Tensor:
        if step == 2 and len(lengths) == 8:  # in the last stage of the second run
            os.kill(os.getpid(), signal.SIGINT)
        return order(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(loop.BatchOrder, "__call__", stops)
        with pytest.raises(Interrupted):
            train_run(varied, tmp_path / "stopped", data=DATA)
    resume_run(tmp_path / "stopped", data=DATA)
    assert_same_weights(straight.folder.path, tmp_path / "stopped")


def test_the_log_tells_stages_and_gates(straight: Run) -> None:
    records = [json.loads(line) for line in straight.folder.metrics_log.read_text().splitlines()]
    assert [record["gate"] for record in records if "gate" in record] == list(STAGES)
    losses = {record["stage"]: record["step"] for record in records if "loss" in record}
    assert losses == {"sources": 4, "code": 9, "converter": 12, "renderer": 16}
    assert straight.folder.state().total_steps == straight.folder.state().step == 16


def test_each_stage_changes_its_own_part_alone(passing: None, tmp_path: Path) -> None:
    longer = {**STEPS, "renderer": 0}
    short = train_run(
        config(**{"training.stage_steps": longer, "training.steps": 12}), tmp_path / "short", data=DATA
    ).model
    whole = train_run(config(), tmp_path / "whole", data=DATA).model
    before, after = short.state_dict(), whole.state_dict()
    for name in before.keys() - {"measured_guidance"}:  # which is 1 before the renderer's stage, and may be after it
        assert torch.equal(before[name], after[name]) == (not name.startswith("renderer")), name


def test_a_failed_gate_stops_with_everything_kept_and_resuming_goes_on(
    passing: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(gates.GATES, "code", lambda model, rows: Gate({"probe": 0.1}, "it knows nothing."))
        with pytest.raises(GateError, match=r"Stage 'code' failed its gate: it knows nothing\. .*--resume"):
            train_run(config(), tmp_path / "run", data=DATA)
    assert open_run(tmp_path / "run").folder.state().step == 9
    assert "not finished: the stages converter, renderer are not trained" in caplog.text
    train_run(config(**{"model.reuse": str(tmp_path / "run")}), tmp_path / "reusing", data=DATA)  # its first stage is
    with pytest.raises(ConfigError, match=r"'model\.extends': the run .* is not finished"):
        train_run(config(**{"model.extends": str(tmp_path / "run")}), tmp_path / "extending", data=DATA)
    assert resume_run(tmp_path / "run", data=DATA).folder.state().finished
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [r["passed"] for r in records if "gate" in r] == [True, False, True, True]


def test_a_run_killed_before_its_first_checkpoint_begins_again_with_what_it_takes_over(
    straight: Run, passing: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    reusing = config(**{"model.reuse": str(straight.folder.path)})
    with monkeypatch.context() as patch:
        patch.setattr("msvae.training.run.fit", dies)
        with pytest.raises(KeyboardInterrupt):
            train_run(reusing, tmp_path / "killed", data=DATA)
    resumed = resume_run(tmp_path / "killed", data=DATA).model.state_dict()
    for name, value in straight.model.state_dict().items():
        assert not name.startswith("autoencoders.") or torch.equal(value, resumed[name])


def test_gates_see_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("flow", [Source(name, (3, 32, 32)) for name in ("blue", "yellow", "green")])
    rows = api.run_config("colours", "flow").data
    validation = msvae.load_data(rows.model_copy(update={"options": {"variants": 1}})).split("validation")
    model.eval()
    assert "no better than the mean image (blue" in str(gates.reconstruction(model, validation).failure)
    assert "do not follow" in str(gates.converter(model, validation).failure)
    assert -1 < gates.samples(model, validation).figures["real_agreement"] < 1
    figures = gates.code(model, validation).figures
    assert 0 < figures["probe"] < 1
    assert figures["probe_chance"] == pytest.approx(0.1, abs=0.05)
    assert "probe_of_all" not in figures  # too few rows to tell
    monkeypatch.setattr(gates, "LEAST_PROBED", 50)
    assert 0 < gates.code(model, validation).figures["probe_of_all"] < 1


def test_the_code_of_all_sources_has_to_know_what_that_of_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    validation = msvae.load_data(api.run_config("colours", settings={"data.options.variants": 1}).data).split(
        "validation"
    )
    model = tiny_model("flow", list(validation.sources)).eval()
    labels = validation.labels
    assert labels is not None

    def forgets(self: SharedFlow, batch: SourceBatch) -> Posterior:
        """Everything, where it is given several sources; nothing of the class, where it is given one."""
        index = labels[: len(batch)] if len(batch.names) == 1 else torch.zeros(len(batch)).long()
        return Posterior.single(torch.eye(10)[index], torch.zeros(len(batch), 10))

    monkeypatch.setattr(SharedFlow, "encode", forgets)
    monkeypatch.setattr(gates, "LEAST_PROBED", 50)
    found = gates.code(model, validation)
    assert found.figures["probe"] > 0.9
    assert "less than that of one" in str(found.failure)
    alone = {name: torch.arange(len(validation)) % 3 == turn for turn, name in enumerate(validation.present)}
    unpaired = replace(validation, present=alone)
    assert gates.code(model, unpaired).failure != found.failure  # nothing is pooled there


@pytest.mark.parametrize("rows", [2, 3])
def test_rows_that_are_too_few_to_tell_pass_the_gate_of_the_code(rows: int) -> None:
    model = tiny_model("flow").eval()
    images = {source.name: torch.rand(rows, *source.shape).numpy() for source in model.sources}
    assert gates.code(model, complete_rows(model.sources, images)).failure is None


@pytest.mark.parametrize("codes_by", ["converter", "mixture"])
def test_weights_count_beside_those_of_the_same_row(codes_by: str) -> None:
    """What stands on absent sources is nothing to a row: its only source has all the weight, however little it is."""
    model = tiny_model("flow", evidence=1.0).eval()
    assert isinstance(model, SharedFlow)
    model.sampling = replace(model.sampling, codes_by=codes_by)
    assert isinstance(model.sampler, FittedMixture)
    model.sampler.fit(torch.randn(50, model.sampler.means.shape[1]))
    batch = random_batch(model)
    first, second = model.source_names[:2]
    present = {first: torch.tensor([True, False, True, False, True]), second: torch.ones(5, dtype=torch.bool)}
    mixed = SourceBatch({name: batch.values[name] for name in present}, present)
    only = mixed.rows(torch.tensor([1, 3]))
    found, expected = (
        model.codes(only, 1, weights, "sample", "own", generator())
        for weights in ({first: 1.0, second: 1e-6}, {second: 1.0})
    )
    torch.testing.assert_close(found, expected)


def test_retrieval_and_agreement_of_known_codes() -> None:
    codes = {"a": torch.eye(4), "b": torch.eye(4)[[0, 1, 3, 2]]}
    index = {"a": torch.arange(4), "b": torch.arange(4)}
    assert gates._retrieval(codes, index) == pytest.approx((0.5, 0.25))  # of four rows a quarter is chance
    assert gates._agreement({"a": torch.eye(4), "b": torch.eye(4)}, index) == pytest.approx(1.0)


def test_codes_that_say_nothing_fail_the_gate_of_a_few_rows_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of twenty rows one in twenty is found by chance, not one in 256."""
    rows = replace(DATA.split("validation"), labels=None)
    model = tiny_model("flow", list(rows.sources)).eval()
    noise = generator()

    def random(self: SharedFlow, batch: SourceBatch) -> Posterior:
        return Posterior.single(torch.randn(len(batch), 6, generator=noise), torch.zeros(len(batch), 6))

    monkeypatch.setattr(SharedFlow, "encode", random)
    figures = [gates.code(model, rows) for _ in range(20)]
    assert sum(gate.failure is not None for gate in figures) > 15


def test_latents_that_hardly_vary_are_not_blown_up() -> None:
    values = torch.randn(500, 6, generator=torch.Generator().manual_seed(0)) * 3 + 1
    values[:, 0] = 1 + 1e-4 * values[:, 0]  # a corner that is white in all rows
    standard = Standardiser(6)
    standard.calibrate(values)
    found = standard(values)
    torch.testing.assert_close(standard(values, of_batch=True), found)
    torch.testing.assert_close(standard.restore(found), values)
    assert float(found[:, 0].abs().max()) < 0.01
    assert found[:, 1:].std(dim=0, correction=0).tolist() == pytest.approx([1.0] * 5, abs=0.01)


def test_batches_of_many_tokens_have_fewer_rows() -> None:
    vector, cells, scene = (
        {stage.name: stage.rows for stage in tiny_model("flow", **settings).stages}
        for settings in ({}, {"side": 4, "patch": 1}, {"side": 8, "grid": 4, "patch": 2})
    )
    assert vector == {"sources": 0.25, "code": 0.5, "converter": 4.0, "renderer": 2.0}
    assert cells == vector  # 16 tokens
    assert scene["converter"] == 0.25
    assert scene["renderer"] == 32 / 21  # 6 cells of three sources of 8 to 12 pixels, and 16 slots


def test_a_budget_is_divided_among_the_stages() -> None:
    stages = [Stage("first", 3.0), Stage("fixed", 1.0, steps=7), Stage("last", 1.0)]
    plan = StagePlan(stages, TrainingConfig(budget=100.0, warmup_steps=30), 50)
    assert plan.total is None
    assert plan.meter(0, 0.0).budget == pytest.approx(75.0)
    plan.set_length(stages[0], 40)
    plan.finish(stages[0], 80.0)
    assert plan.first_step == 40
    plan.finish(stages[1], 82.0)
    assert plan.meter(49, 84.0).budget == pytest.approx(18.0)
    assert (plan.meter(49, 84.0).step, plan.meter(49, 84.0).spent) == (2, pytest.approx(2.0))
    plan.begin(90.0)  # after 8 seconds of coding rows
    assert (plan.meter(47, 90.0).budget, plan.meter(47, 90.0).spent) == (pytest.approx(10.0), 0.0)
    slow = StagePlan(stages, TrainingConfig(budget=0.1, least_steps=200), 50)
    assert [slow.meter(0, 0.0).least, slow.meter(0, 0.0).add(9.0)] == [150, 150]
    steps = StagePlan(stages, TrainingConfig(steps=100), 50)
    assert steps.lengths == {"first": 75, "fixed": 7, "last": 25}
    assert steps.total == 107


def test_rows_of_one_source_and_no_complete_row_can_be_trained_on(passing: None, tmp_path: Path) -> None:
    data = own_data(rows=24)
    for part in (data.split("train"),):
        part.present["a"][:10] = False
        part.present["b"][10:23] = False  # one row has both
        part.values["a"][:10] = float("nan")
    settings = {**tiny_settings("flow"), **TINY_TRAINING, "training.steps": 12}
    run = api.train(data, "flow", out=tmp_path / "run", settings=settings)
    assert all(bool(torch.isfinite(p).all()) for p in run.model.parameters())


def test_autoencoders_are_taken_over(straight: Run, passing: None, tmp_path: Path) -> None:
    again = config(
        **{"model.reuse": str(straight.folder.path), "training.stage_steps": {"code": 3}, "training.steps": 9}
    )
    run = train_run(again, tmp_path / "run", data=DATA)
    before, after = straight.model.state_dict(), run.model.state_dict()
    for name in before:
        if name.startswith("autoencoders"):
            assert torch.equal(before[name], after[name]), name
    assert run.folder.state().total_steps == 9 + 3  # 9 divided among two stages, and 3
    with pytest.raises(ConfigError, match=r"trained with model\.noise 0\.1, here 0\.3"):
        train_run(
            config(**{"model.reuse": str(straight.folder.path), "model.noise": 0.3}), tmp_path / "other", data=DATA
        )
    with pytest.raises(ConfigError, match=r"autoencoders of .* do not fit .*model\.channels \d+, here 3"):
        train_run(
            config(**{"model.reuse": str(straight.folder.path), "model.channels": 3}), tmp_path / "other", data=DATA
        )


@pytest.mark.parametrize("shared", [True, False])
def test_some_of_the_autoencoders_are_taken_over_in_any_order(shared: bool) -> None:
    """Sources of one trunk are told apart by their place in it; what they see and draw is as before."""
    first = tiny_model("flow", [Source(name, (3, 8, 8)) for name in "abc"], shared_trunk=shared).eval()
    for parameter in first.autoencoders.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    for index, name in enumerate("abc"):
        first.autoencoders.calibrate(name, index + torch.randn(9, first.autoencoders.networks.size(name)))
    again = tiny_model("flow", [Source(name, (3, 8, 8)) for name in "cb"], shared_trunk=shared).eval()
    again.take_autoencoders(first)
    images = random_batch(again)
    for name, values in msvae.reconstruct(again, images).items():
        torch.testing.assert_close(values, msvae.reconstruct(first, images.select([name]))[name])
    alone = tiny_model("flow", [Source("a", (3, 8, 8)), Source("d", (3, 9, 8))], shared_trunk=shared)
    with pytest.raises(ConfigError, match=r"has no source d, but a, b, c; choose among them \(data\.sources\)"):
        alone.take_autoencoders(first)


def test_vectors_that_share_networks_are_taken_over_by_name() -> None:
    first = tiny_model("flow", [Source(name, (7,)) for name in "abc"]).eval()
    for parameter in first.autoencoders.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    again = tiny_model("flow", [Source(name, (7,)) for name in "cba"]).eval()
    again.take_autoencoders(first)
    images = random_batch(first)
    for name, values in msvae.reconstruct(again, images).items():
        torch.testing.assert_close(values, msvae.reconstruct(first, images)[name])
    alone = tiny_model("flow", [Source("a", (7,)), Source("d", (3, 8, 8))])
    lender = tiny_model("flow", [Source("a", (7,)), Source("b", (7,)), Source("d", (3, 8, 8))])
    with pytest.raises(ConfigError, match="a shares networks with others there, and would be alone here"):
        alone.take_autoencoders(lender)


def test_sources_that_share_networks_are_not_taken_over_alone() -> None:
    together = tiny_model("flow", [Source(name, (3, 8, 8)) for name in "abc"], shared_trunk=True)
    apart = tiny_model("flow", [Source(name, (3, 8, 8)) for name in "abc"], shared_trunk=False)
    with pytest.raises(ConfigError, match=r"do not fit this run's \(a, b, c\): they have model.shared_trunk False"):
        together.take_autoencoders(apart)
    with pytest.raises(ConfigError, match=r"do not fit this run's \(a, b, c\): they have model.shared_trunk True"):
        apart.take_autoencoders(together)


def test_autoencoders_of_other_sources_are_not_taken_over(straight: Run, passing: None, tmp_path: Path) -> None:
    reusing = {"model.reuse": str(straight.folder.path)}
    other = replace(DATA.sources[1], value_range=(-1.0, 1.0))
    sources = (DATA.sources[0], other, DATA.sources[2])
    splits = {name: replace(rows, sources=sources) for name, rows in DATA.splits.items()}
    with pytest.raises(ConfigError, match=r"has sources of another form \(b\)"):
        train_run(config(**reusing), tmp_path / "run", data=replace(DATA, splits=splits))
    model = build_model(DATA.sources, straight.model.config)
    assert isinstance(model, SharedFlow)
    extended = build_model(DATA.sources, straight.model.config.model_copy(update={"added": ("c",)}))
    with pytest.raises(ConfigError, match=r"sources were added to that run \(c\)"):
        model.take_autoencoders(extended)


def test_no_part_of_a_batch_has_too_few_rows_to_standardise_by(
    passing: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, set[int]] = {}
    loss = SharedFlow.loss

    def counted(self: SharedFlow, batch: SourceBatch, generator: torch.Generator | None = None) -> Loss:
        if self.training:
            seen.setdefault(str(self.stage), set()).add(len(batch))
        return loss(self, batch, generator)

    monkeypatch.setattr(SharedFlow, "loss", counted)
    train_run(config(**{"training.batch_size": 4, "training.accumulation": 4}), tmp_path / "small", data=DATA)
    assert min(seen["sources"]) == 8
    assert max(seen["code"]) == 1  # half of 4, in parts
    train_run(config(**{"training.batch_size": 64, "training.accumulation": 4}), tmp_path / "large", data=DATA)
    assert min(seen["sources"]) == 8


def test_gates_do_not_see_the_rows_in_the_order_of_their_files(
    passing: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setitem(gates.GATES, "code", lambda model, rows: seen.append(rows.labels) or Gate({"seen": 1.0}))
    labels = DATA.split("validation").labels
    assert labels is not None
    by_class = DATA.split("validation").take(labels.argsort())
    train_run(config(), tmp_path / "run", data=replace(DATA, splits={**DATA.splits, "validation": by_class}))
    (shown,) = seen
    assert shown.tolist() != sorted(shown.tolist()) == sorted(labels.tolist())


def test_averaging_can_be_turned_off(passing: None, tmp_path: Path) -> None:
    run = train_run(config(**{"training.ema_decay": 0.0}), tmp_path / "run", data=DATA)
    raw = run.folder.training_state()
    for name, value in run.folder.model_weights().items():
        assert torch.equal(value, raw[f"model/{name}"]), name
    late = {stage.name: stage.ema_decay(0.998) for stage in run.model.stages}
    assert late == pytest.approx({"sources": 0.998, "code": 0.998, "converter": 0.999, "renderer": 0.999})


def test_extensions_that_could_not_be_opened_are_refused_before_training(straight: Run, tmp_path: Path) -> None:
    generator_of_rows = np.random.default_rng(1)
    sources = [*DATA.sources, Source("d", (3, 8, 8))]
    rows = complete_rows(sources, {source.name: generator_of_rows.random((20, *source.shape)) for source in sources})
    settings = {**TINY_TRAINING, "training.steps": 12, "model.extends": str(straight.folder.path)}
    with pytest.raises(ConfigError, match="favoured questions are those of the last stage"):
        api.train(
            DataSet("more", {"train": rows}, shared_content=True),
            "flow",
            out=tmp_path / "run",
            settings={**settings, "model.favoured": {"a->d": 0.5}},
        )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "wrong",
    [
        {"codes_by": "mixtur"},
        {"precision": "float32"},
        {"guidance": math.nan},
        {"redraws": -1},
        {"doubted": 1.5},
        {"image_steps": 0},
    ],
)
def test_other_ways_to_sample_are_checked(wrong: dict[str, object]) -> None:
    model = tiny_model("flow")
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        model.sampling = replace(model.sampling, **wrong)


def test_a_source_wanted_twice_is_answered_once_and_no_codes_are_refused() -> None:
    model = tiny_model("flow").eval()
    codes = torch.randn(2, model.code_length)
    once, twice = (model.decode(codes, to).values for to in (["blue"], ["blue", "blue"]))
    torch.testing.assert_close(once, twice)
    with pytest.raises(SourceError, match="one row or more"):
        model.decode(codes[:0])


def test_a_source_is_added_and_the_others_answer_as_before(straight: Run, passing: None, tmp_path: Path) -> None:
    """Bit for bit; in every kind of question that does not name the new source."""
    generator_of_rows = np.random.default_rng(1)
    sources = [*DATA.sources, Source("d", (3, 8, 8))]
    images = {source.name: generator_of_rows.random((40, *source.shape)) for source in sources}
    rows = complete_rows(sources, images)
    rows.present["d"][::3] = False
    data = DataSet("more", {"train": rows, "test": rows}, shared_content=True)
    run = api.train(
        data,
        "flow",
        out=tmp_path / "run",
        settings={**TINY_TRAINING, "training.steps": 12, "model.extends": str(straight.folder.path)},
    )
    run = open_run(run.folder.path)
    assert run.model.source_names == ("a", "b", "c", "d")
    before, after = straight.model.state_dict(), run.model.state_dict()
    new = [name for name in after if name not in before]
    assert new
    assert all("of_d" in name for name in new)
    for name in before:
        assert torch.equal(before[name], after[name][: len(before[name])] if name == "spread" else after[name]), name
    old = DATA.split("test").batch(slice(0, 6)).select(["a", "b"])
    for mode in ("mean", "sample"):
        for rule in ("own", "product", "barycenter"):
            one, two = (
                model.sample(old, ["a", "c"], 2, {"a": 1.0, "b": 3.0}, mode, rule, generator()).values
                for model in (straight.model.eval(), run.model)
            )
            assert all(torch.equal(one[name], two[name]) for name in one)
    assert torch.equal(straight.model.draw(5, generator()), run.model.draw(5, generator()))
    assert torch.equal(straight.model.encode(old).mean, run.model.encode(old).mean)
    assert run.model.sample(old, ["d"]).values["d"].shape == (6, 3, 8, 8)
    with pytest.raises(ConfigError, match="no further source"):
        train_run(config(**{"model.extends": str(straight.folder.path)}), tmp_path / "none", data=DATA)
    with pytest.raises(ConfigError, match=r"'model\.trained' are set by 'model\.extends' alone"):
        train_run(config(**{"model.trained": ["a"]}), tmp_path / "none", data=DATA)
    reusing = replace(straight, model=copy.deepcopy(straight.model))
    assert isinstance(reusing.model, SharedFlow)
    reusing.model.config = reusing.model.config.model_copy(update={"reuse": "RUN"})
    chosen = config(**{"model.extends": str(straight.folder.path)})
    extended = inheriting.extended(reusing.model, chosen.model_copy(update={"model": parse(FlowConfig, {})}), data)
    assert extended.model.reuse is None  # the new source has no autoencoder yet
    assert isinstance(run.model, SharedFlow)
    everything = run.model.train().loss(data.split("train").batch(slice(3, 9)).select(["a", "b"]))
    assert bool(torch.isfinite(everything.total))
    both = {"model.extends": str(straight.folder.path), "model.reuse": str(straight.folder.path)}
    with pytest.raises(ConfigError, match="only one run can be built on"):
        train_run(config(**both), tmp_path / "none", data=DATA)


def test_the_images_that_an_added_source_lacks_are_the_same_ever_after(
    straight: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The new source stands first in the data and last in the model: images are removed in the model's order."""
    sources = [Source("d", (3, 8, 8)), *DATA.sources]
    rows = complete_rows(sources, {source.name: np.random.random((40, *source.shape)) for source in sources})
    data = DataSet("more", {"train": rows, "validation": rows, "test": rows}, shared_content=True)
    begun: list[tuple[RunConfig, DataSet]] = []

    def stopped(folder: RunFolder, config: RunConfig, rows: DataSet, *_: object, **__: object) -> Run:
        begun.append((config, rows))
        raise Interrupted("before the first step")

    monkeypatch.setattr("msvae.training.run._trained", stopped)
    settings = {**TINY_TRAINING, "training.steps": 4, "model.extends": str(straight.folder.path), "data.missing": 0.5}
    with pytest.raises(Interrupted):
        train_run(api.run_config(method="flow", settings=settings), tmp_path / "run", data=data)
    config, trained = begun[0]
    again = prepared(data, config.data)  # what resuming and testing do
    for name, has_it in trained.split("train").present.items():
        assert torch.equal(has_it, again.split("train").present[name]), name


def test_who_adds_a_source_may_choose_how_to_sample_but_not_other_sizes(
    straight: Run, passing: None, tmp_path: Path
) -> None:
    sources = [*DATA.sources, Source("d", (3, 8, 8))]
    rows = complete_rows(sources, {source.name: np.random.random((40, *source.shape)) for source in sources})
    data = DataSet("more", {"train": rows, "test": rows}, shared_content=True)

    def trained(name: str, **settings: object) -> Run:
        settings = {**TINY_TRAINING, "training.steps": 4, "model.extends": str(straight.folder.path), **settings}
        return api.train(data, "flow", out=tmp_path / name, settings=settings)

    run = trained("run", **{"model.guidance": 1.25, "model.code": straight.config.model.code})
    assert run.model.sampling.guidance == open_run(run.folder.path).model.sampling.guidance == 1.25
    assert isinstance(straight.model, SharedFlow)
    assert isinstance(run.model, SharedFlow)
    assert run.model.measured_guidance == straight.model.measured_guidance  # old answers stay as they are
    assert run.model.sampling.code_steps == straight.model.sampling.code_steps != FlowConfig().code_steps
    with pytest.raises(ConfigError, match=r"'model.code': 7 was given, but the model .* has 6"):
        trained("other", **{"model.code": 7})


@pytest.mark.parametrize("change", [{"contrast": 0.0}, {"prediction": 0.0}, {"detached": False}])
def test_each_switch_of_the_code_changes_its_loss(change: dict[str, object]) -> None:
    losses = []
    for settings in ({}, change):
        model = tiny_model("flow", **settings)
        model.enter_stage("code")
        losses.append(float(model.loss(random_batch(model, 8), generator()).total.detach()))
    assert losses[0] != losses[1]


def test_a_product_in_place_of_the_converter_has_no_stage_and_draws_normal_codes(passing: None, tmp_path: Path) -> None:
    run = train_run(config(**{"model.converter": "product"}), tmp_path / "run", data=DATA)
    assert run.folder.state().step == 16 - STEPS["converter"]
    batch = DATA.split("test").batch(slice(0, 4))
    rule = run.model.encode(batch.select(["a"]), rule="product").sample(generator())
    torch.testing.assert_close(run.model.codes(batch.select(["a"]), 1, None, "sample", "own", generator()), rule)
    assert float(run.model.draw(2000, generator(), from_prior=True).std()) == pytest.approx(1.0, abs=0.05)


def test_who_draws_codes_given_sources_is_measured(straight: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A converter of three steps knows less than a mixture; one that is compared with noise does not."""
    model = copy.deepcopy(straight.model)
    converter, mixture = model.energy_scores.tolist()
    assert mixture < converter
    batch = DATA.split("test").batch(slice(0, 4)).select(["a"])

    def drawn(codes_by: str | None) -> Tensor:
        model.sampling = replace(model.sampling, codes_by=codes_by)
        return model.codes(batch, 3, None, "sample", "own", generator())

    assert torch.equal(drawn(None), drawn("mixture"))
    assert not torch.equal(drawn(None), drawn("converter"))

    def noise(evidence: CodeEvidence, weights: None, generator: torch.Generator) -> Tensor:
        return 100 * torch.randn(evidence.present.shape[1], model.sampler.means.shape[1])

    monkeypatch.setattr(model, "_drawn_by_mixture", noise)
    model.end_stage("converter", DATA.split("train"))
    assert float(model.energy_scores[0]) == pytest.approx(converter, rel=0.2)
    assert float(model.energy_scores[1]) > 10
    assert torch.equal(drawn(None), drawn("converter"))
    assert straight.model.draw(3, generator()).shape == straight.model.draw(3, generator(), from_prior=True).shape


def test_a_source_that_is_given_narrows_what_the_mixture_draws(straight: Run) -> None:
    model = straight.model.eval()
    batch = DATA.split("test").batch(slice(0, 6))
    evidence = model.content.evidence(batch.select(["a"]))
    draws = torch.stack([model._drawn_by_mixture(evidence, None, generator(seed)) for seed in range(200)])
    free = model.draw(2000, generator())
    assert float(draws.var(dim=0).mean()) < min(float(free.var(dim=0).mean()), 1.1 * float(model.spread[0].mean()))


def test_rows_without_sources_are_drawn_by_the_sampler_beside_others(
    straight: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = copy.deepcopy(straight.model).eval()
    monkeypatch.setattr(
        model.sampler, "sample", lambda rows, generator: torch.full((rows, model.sampler.means.shape[1]), 7.0)
    )
    model.sampling = replace(model.sampling, codes_by="converter")
    batch = lacking(DATA.split("test").batch(slice(0, 4)), {name: [1] for name in model.source_names}, 0.0)
    codes = model.codes(batch, 2, None, "sample", "own", generator())
    assert codes.eq(7).all(dim=1).tolist() == [False, False, True, True, False, False, False, False]
    assert bool(model.codes(model.nothing(2), 1, None, "sample", "own", generator()).eq(7).all())


def test_a_run_of_before_samplers_draws_from_its_converter_as_it_did(passing: None, tmp_path: Path) -> None:
    run = train_run(config(**{"model.sampler": "none"}), tmp_path / "run", data=DATA)
    path = run.folder.path / "config.json"
    content = json.loads(path.read_text())
    for name in ("sampler", "sampler_components", "codes_by"):
        del content["config"]["model"][name]
    path.write_text(json.dumps({**content, "format_version": 1}))
    opened = open_run(run.folder.path).model
    assert not opened.has_fitted_sampler
    assert torch.equal(opened.draw(4, generator()), run.model.draw(4, generator()))
    opened.sampling = replace(opened.sampling, codes_by="mixture")
    with pytest.raises(ConfigError, match="no fitted mixture"):
        opened.sample(DATA.split("test").batch(slice(0, 2)))


def test_what_a_run_was_told_to_draw_by_is_read_again(passing: None, tmp_path: Path) -> None:
    train_run(config(**{"model.evidence": 2.0, "model.codes_by": "mixture"}), tmp_path / "run", data=DATA)
    opened = open_run(tmp_path / "run").model
    assert isinstance(opened, SharedFlow)
    assert opened.sampling.evidence == 2.0


@pytest.mark.parametrize(("before", "now"), [(2.0, None), (1.0, 1.0)])
def test_the_usual_evidence_of_before_was_the_converter_s(
    before: float, now: float | None, straight: Run, tmp_path: Path
) -> None:
    shutil.copytree(straight.folder.path, tmp_path / "run")
    content = json.loads((tmp_path / "run" / "config.json").read_text())
    content["config"]["model"]["evidence"] = before
    (tmp_path / "run" / "config.json").write_text(json.dumps({**content, "format_version": 2}))
    assert open_run(tmp_path / "run").config.model.evidence == now  # type: ignore[union-attr]


def test_the_converter_learns_its_own_draws_only_when_it_can_draw() -> None:
    model = tiny_model("flow")
    batch = lacking(random_batch(model, rows=12), {"blue": [0, 1, 2, 3], "grey": [3, 4, 5, 6]}, 0.0)
    coded = model.stage_rows("converter", Rows(model.sources, batch.values, batch.present))
    model.enter_stage("converter")

    def loss(share: float, steps: int, **settings: object) -> float:
        model.config = model.config.model_copy(update={"self_distillation": True, **settings})
        model.tell_progress(share, steps)
        return float(model.loss(coded.batch(slice(None)), generator()).total.detach())

    without = loss(0.9, 1000, self_distillation=False)
    assert loss(0.4, 1000) == without
    assert loss(0.9, 100) == without
    assert loss(0.9, 1000) != without


def test_a_mean_in_place_of_the_renderer_has_no_private_part() -> None:
    model = tiny_model("flow", renderer="mean").eval()
    code = model.draw(3, generator())
    drawn, expected = (model.decode(code, mode=mode, generator=generator()).values for mode in ("sample", "mean"))
    assert all(torch.equal(drawn[name], expected[name]) for name in drawn)
    flow = tiny_model("flow").eval()
    assert not torch.equal(
        flow.decode(code, "blue", "sample", generator()).values["blue"], flow.decode(code, "blue").values["blue"]
    )


def test_the_codes_encoders_begin_with_the_autoencoders_layers(passing: None, tmp_path: Path) -> None:
    steps = {**STEPS, "code": 0, "converter": 0, "renderer": 0}
    model = train_run(config(**{"training.stage_steps": steps}), tmp_path / "run", data=DATA).model
    assert isinstance(model, SharedFlow)
    known = model.autoencoders.networks.encoders.state_dict()
    taken = model.content.networks.encoders.state_dict()
    same = [name for name in taken if known[name].shape == taken[name].shape]
    assert len(same) > len(taken) / 2
    assert all(torch.equal(known[name], taken[name]) for name in same)


def test_content_on_a_grid_needs_a_renderer_of_tokens() -> None:
    assert parse(FlowConfig, {"grid": 2}).patch == 1
    widths = [parse(FlowConfig, given).renderer_width for given in ({}, {"patch": 1}, {"content": "scene"})]
    assert widths == [512, 128, 256]
    automatic = api.run_config(method="flow", settings={"model.grid": 8})
    scene = with_content(automatic, "scene").model  # what nobody chose does not stand in its way
    assert (scene.grid, scene.patch, scene.renderer_width) == (8, 4, 256)
    assert parse(FlowConfig, {"patch": 1, "renderer_width": 64}).renderer_width == 64
    with pytest.raises(ConfigError, match="give patch a number"):
        parse(FlowConfig, {"grid": 2, "patch": None})


def test_steps_of_unknown_stages_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"Unknown stage 'codes'.*Did you mean 'code'"):
        StagePlan([Stage("code")], TrainingConfig(stage_steps={"codes": 3}), 10)


def test_the_likelihood_bound_is_the_sum_of_its_terms(monkeypatch: pytest.MonkeyPatch) -> None:
    """With both flows at rest, p(w) and p(h | w) are standard normals, and all terms can be computed by hand."""

    def at_rest(state: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        return 0.0 * state

    model = tiny_model("flow", [Source(n, (3, 8, 8), likelihood="normal") for n in ("blue", "grey")]).eval()
    monkeypatch.setattr(model.converter, "velocity", lambda *_: at_rest)
    monkeypatch.setattr(model.renderer, "velocity", lambda *_: at_rest)
    batch = random_batch(model)
    batch.values["grey"][1:] = float("nan")
    batch = SourceBatch(batch.values, {**batch.present, "grey": torch.arange(len(batch)) < 1})
    found = likelihood_bound(model, batch, 1, steps=2, generator=generator())

    def gaussian(values: torch.Tensor, mean: torch.Tensor, deviation: torch.Tensor | float) -> torch.Tensor:
        return torch.distributions.Normal(mean, deviation).log_prob(values).flatten(1).sum(dim=1)

    source, drawing = generator(), model.encode(batch)
    code = drawing.sample(source)
    torch.randint(0, 2, code.shape, generator=source)  # the sign vector of the code's density
    zero = torch.zeros(())
    expected = gaussian(code, zero, 1.0) - gaussian(code, drawing.mean, (0.5 * drawing.log_variances[0]).exp())
    for name, rows in (("blue", slice(None)), ("grey", slice(0, 1))):
        images = batch.values[name][rows]
        mean = model.autoencoders.latents({name: images})[name]
        latents = mean + model.autoencoders.noise * torch.randn(mean.shape, generator=source)
        torch.randint(0, 2, mean.shape, generator=source)
        pixels = gaussian(images, model.autoencoders.image(name, latents), model.sources[0].scale)
        expected[rows] += pixels + gaussian(latents, zero, 1.0) - gaussian(latents, mean, model.autoencoders.noise)
    torch.testing.assert_close(found, expected, atol=1e-2, rtol=1e-5)


def generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("rule", ["own", "own, by the mixture", "product", "barycenter", "flow", "appearance"])
@pytest.mark.parametrize("mode", ["mean", "sample"])
def test_fusion_identities_of_all_rules(rule: str, mode: msvae.models.base.Mode) -> None:
    """Weight 0 removes a source exactly; a one-hot weight is the answer given that source alone."""
    model = tiny_model("flow", [Source(name, (3, 8, 8)) for name in ("blue", "grey", "green")]).eval()
    if rule == "own, by the mixture":
        assert isinstance(model, msvae.models.SharedFlow)
        assert model.sampler is not None
        model.sampler.fit(torch.randn(200, model.content.size, generator=generator()))
        model.energy_scores.copy_(torch.tensor([1.0, 0.5]))
        rule = "own"
    batch = random_batch(model)
    two, three = {"blue": 0.3, "green": 0.7}, {"blue": 0.3, "grey": 0.0, "green": 0.7}
    without = model.sample(batch.select(["blue", "green"]), weights=two, mode=mode, rule=rule, generator=generator())
    removed = model.sample(batch, weights=three, mode=mode, rule=rule, generator=generator())
    one_hot = model.sample(batch, weights={"grey": 2.0}, mode=mode, rule=rule, generator=generator())
    alone = model.sample(batch.select(["grey"]), weights={"grey": 1.0}, mode=mode, rule=rule, generator=generator())
    for name in model.source_names:
        torch.testing.assert_close(removed.values[name], without.values[name])
        torch.testing.assert_close(one_hot.values[name], alone.values[name])
    rebuilt = model.sample(batch.select(["grey"]), ["grey"]).values["grey"]
    torch.testing.assert_close(one_hot.values["grey"], rebuilt, atol=1e-5, rtol=0)


@pytest.mark.parametrize("codes_by", ["converter", "mixture"])
def test_evidence_counts_as_often_as_it_is_told_to(codes_by: str) -> None:
    """0 is a source that is not given, 1 the model as trained; more is nearer to the source's own code."""
    model = tiny_model("flow", [Source(name, (3, 8, 8)) for name in ("blue", "grey", "green")]).eval()
    assert isinstance(model, SharedFlow)
    assert isinstance(model.sampler, FittedMixture)
    model.sampler.fit(torch.randn(50, model.sampler.means.shape[1], generator=generator()))
    batch = random_batch(model).select(["blue", "grey"])

    def drawn(evidence: float | dict[str, float] | None, given: SourceBatch = batch) -> torch.Tensor:
        model.set_sampling({"codes_by": codes_by, "evidence": evidence})
        return model.codes(given, 1, None, "sample", "own", generator())

    without_grey = drawn({"blue": 3.0, "grey": 0.0})
    torch.testing.assert_close(without_grey, drawn({"blue": 3.0}, batch.select(["blue"])))
    assert not torch.allclose(without_grey, drawn({"blue": 3.0}))
    torch.testing.assert_close(drawn(None), drawn(1.0 if codes_by == "mixture" else 2.0))
    if codes_by == "mixture":
        torch.testing.assert_close(drawn({"blue": 2.0, "grey": 2.0}), drawn(2.0))
        own = model.encode(batch.select(["blue"])).mean.detach()
        alone = batch.select(["blue"])
        near = [float((drawn(evidence, alone) - own).square().mean()) for evidence in (0.0, 1.0, 20.0)]
        assert near == sorted(near, reverse=True)
    with pytest.raises(ConfigError, match="Did you mean 'grey'"):
        drawn({"gray": 1.0})


def test_a_run_is_opened_with_other_sampling_settings(straight: Run) -> None:
    opened = open_run(straight.folder.path, sampling={"guidance": 1.5, "sampling_precision": "fp32"}).model
    assert isinstance(opened, SharedFlow)
    assert (opened.guidance, opened.sampling.precision) == (1.5, "fp32")
    assert opened.sampling.evidence is None
    opened.set_sampling({"guidance": "1e0", "redraws": 2.0, "evidence": {"a": "5e-1"}})  # as YAML reads them
    assert (opened.guidance, opened.sampling.redraws, opened.sampling.evidence) == (1.0, 2, {"a": 0.5})
    with pytest.raises(ConfigError, match="Unknown source 'd'"):
        tiny_model("flow", evidence={"d": 2.0})
    with pytest.raises(ConfigError, match="Did you mean 'guidance'"):
        open_run(straight.folder.path, sampling={"gidance": 1.5})
    with pytest.raises(ConfigError, match="guidance"):
        open_run(straight.folder.path, sampling={"guidance": -1.0})
    with pytest.raises(ConfigError, match="draws in one way"):
        tiny_model("poe").set_sampling({"guidance": 1.5})


def test_autoencoders_alone_need_no_pairs_and_say_that_the_rest_is_untrained(
    passing: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    turns = torch.arange(40) % 3
    rows = DATA.split("train")
    alone = replace(rows, present={name: turns == turn for turn, name in enumerate(rows.present)})
    unpaired = replace(DATA, splits=dict.fromkeys(DATA.splits, alone))
    with pytest.raises(DataError, match="beside another one"):
        train_run(config(**{"data.missing": 0.0}), tmp_path / "all", data=unpaired)
    steps = {"sources": 4, "code": 0, "converter": 0, "renderer": 0}
    settings = {"data.missing": 0.0, "training.stage_steps": steps, "training.steps": 4}
    run = train_run(config(**settings), tmp_path / "run", data=unpaired)
    assert run.folder.state().finished
    open_run(run.folder.path)
    assert "the stages code, converter, renderer are not trained: they were given no steps" in caplog.text
    lent = {"model.reuse": str(run.folder.path), "training.stage_steps": STEPS | {"sources": 0}}
    train_run(config(**lent), tmp_path / "lent", data=DATA)  # their own stage is enough


def test_a_run_without_validation_rows_says_that_nothing_is_looked_at(tmp_path: Path) -> None:
    class Notes(Quiet):
        told: ClassVar[list[str]] = []

        def note(self, text: str) -> None:
            self.told.append(text)

    train_run(config(), tmp_path / "run", data=replace(DATA, splits={"train": DATA.split("train")}), display=Notes())
    assert any("no validation split" in text for text in Notes.told)


def test_what_is_not_a_number_passes_no_gate() -> None:
    model = tiny_model("flow").eval()
    with torch.no_grad():
        next(iter(model.autoencoders.networks.decoders.parameters())).fill_(math.nan)
    images = {source.name: torch.rand(4, *source.shape).numpy() for source in model.sources}
    assert "no better than the mean image" in str(
        gates.reconstruction(model, complete_rows(model.sources, images)).failure
    )


def test_guidance_that_begins_late_is_the_unguided_flow_until_then() -> None:
    model = tiny_model("flow").eval()
    code, state = torch.randn(4, 1, model.content.size), torch.randn(4, model.autoencoders.networks.size("blue"))
    for time, early in ((0.25, True), (0.75, False)):
        late, always, never = (model.renderer.guided("blue", code, *how) for how in ((3.0, 0.5), (3.0,), (1.0,)))
        times = torch.full((4,), time)
        guided, unguided = always(state, times), never(state, times)
        assert torch.equal(late(state, times), unguided if early else guided)
        assert not torch.equal(guided, unguided)


def test_every_second_step_takes_what_the_code_adds_from_the_one_before() -> None:
    model = tiny_model("flow").eval()
    code, states = torch.randn(4, 1, model.content.size), torch.randn(3, 4, model.autoencoders.networks.size("blue"))
    unknown = torch.zeros(4, dtype=torch.bool)
    given = model.renderer.velocity([("blue", 4)], code)
    free = model.renderer.velocity([("blue", 4)], code, unknown)
    guided = model.renderer.guided("blue", code, 3.0)
    guided(states[0], torch.zeros(4))
    added = given(states[0], torch.zeros(4)) - (model.renderer.mean("blue", code, unknown) - states[0])
    for number, state in enumerate(states):
        times = torch.full((4,), 0.25 * (number + 1))
        if number == 1:
            added = given(state, times) - free(state, times)
        torch.testing.assert_close(guided(state, times), given(state, times) + 2.0 * added)


def test_noise_says_nothing_of_rows_without_a_code_where_the_path_begins() -> None:
    """There their field is the mean less the noise; four guided steps are five evaluations, one row more."""
    model = tiny_model("flow").eval()
    code, noise = torch.randn(4, 1, model.content.size), torch.randn(4, model.autoencoders.networks.size("blue"))
    unknown, start = torch.zeros(4, dtype=torch.bool), torch.zeros(4)
    given, free = model.renderer.velocity([("blue", 4)], code), model.renderer.mean("blue", code, unknown)
    torch.testing.assert_close(free, free[:1].expand_as(free))
    torch.testing.assert_close(model.renderer.guided("blue", code, 1.0)(noise, start), given(noise, start))
    added = given(noise, start) - (free - noise)
    torch.testing.assert_close(model.renderer.guided("blue", code, 3.0)(noise, start), free - noise + 3.0 * added)
    evaluated = []
    model.renderer.field.register_forward_pre_hook(lambda _, asked: evaluated.append(len(asked[1])))
    for guidance in (1.0, 3.0):
        sample(model.renderer.guided("blue", code, guidance), noise, 4, solver="adams")
    assert evaluated == [4, 4, 4, 4, *(4, 1, 4, 8, 4)]


def test_a_row_of_one_source_teaches_the_renderer_nothing_of_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A code that is drawn from nothing has nothing to do with the row's image."""
    model = tiny_model("flow", sampled=1.0)
    batch = random_batch(model, rows=6)
    alone = torch.tensor([True, False] * 3)
    first, *others = model.source_names
    batch = SourceBatch(batch.values, {first: torch.ones(6, dtype=torch.bool), **dict.fromkeys(others, ~alone)})
    told = []
    monkeypatch.setattr(model.renderer, "loss", lambda *asked: told.append(asked) or torch.zeros(()))
    model._renderer_loss(model._coded(batch), generator())
    ((_, _, known, _),) = told
    assert sum(int(part.sum()) for part in known.values()) == 3
    assert sum(len(part) for part in known.values()) == 6


def test_without_rows_that_lack_their_code_nothing_is_guided() -> None:
    model = tiny_model("flow", dropped=0.0).eval()
    model._measure_guidance()
    assert model.guidance == 1.0


def test_appearance_of_nothing_given_is_any(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("flow", [Source(name, (3, 8, 8)) for name in ("blue", "grey")]).eval()
    drawn = model.sample(None, ["blue"], n=4, rule="appearance", generator=generator()).values["blue"]
    codes = model.draw(1, generator()).expand(4, -1)
    same = model.answer(codes, model.nothing(4), ["blue"], None, "sample", "appearance", generator()).values["blue"]
    assert len(drawn.flatten(1).unique(dim=0)) == len(same.flatten(1).unique(dim=0)) == 4


def test_what_is_drawn_has_grain_and_what_is_kept_has_none() -> None:
    model = tiny_model("flow", [Source(name, (3, 8, 8)) for name in ("blue", "grey")]).eval()
    batch = random_batch(model)

    def grained(weights: dict[str, float] | None, mode: msvae.models.base.Mode, rule: str = "own") -> float:
        answers = []
        for kernel in (0.0, 0.01):
            model.grain.get_buffer("kernel_of_blue").fill_(kernel)
            asked = model.sample(batch, ["blue"], weights=weights, mode=mode, rule=rule, generator=generator())
            answers.append(asked.values["blue"])
        return float((answers[1] - answers[0]).abs().mean())

    both = {"blue": 1.0, "grey": 1.0}
    assert grained(None, "sample") == 0.0  # its own autoencoder's image
    assert grained({"blue": 1.0}, "sample") == 0.0
    assert 0.0 < grained(both, "sample") < grained({"grey": 1.0}, "sample")
    assert grained({"grey": 1.0}, "mean") == 0.0
    assert grained(None, "sample", "appearance") == grained(both, "sample", "appearance") > 0.0


def test_grain_is_measured_while_training_and_taken_over(passing: None, tmp_path: Path) -> None:
    sources = [Source(name, (1, 8, 8)) for name in "ab"]
    images = torch.rand(2, 9000, 1, 8, 8, generator=generator())
    present = {name: torch.arange(9000) % 3 != index for index, name in enumerate("ab")}
    rows = Rows(tuple(sources), {"a": images[0], "b": images[1]}, present)
    data = DataSet("noise", {"train": rows, "test": rows}, shared_content=False)
    first = train_run(config(), tmp_path / "first", data=data).model
    plain = train_run(config(**{"model.grain": False}), tmp_path / "plain", data=data).model
    assert isinstance(first, SharedFlow)
    assert isinstance(plain, SharedFlow)
    assert [first.grain.has(name) for name in "ab"] == [True, True]
    assert not plain.grain.has("a")
    again = tiny_model("flow", sources)
    again.take_autoencoders(first)
    assert torch.equal(again.grain.get_buffer("kernel_of_a"), first.grain.get_buffer("kernel_of_a"))
    with pytest.raises(ConfigError, match="measured no grain"):
        again.take_autoencoders(plain)


@pytest.mark.parametrize(("change", "rule"), [({"converter": "product"}, "flow"), ({"renderer": "mean"}, "appearance")])
@pytest.mark.parametrize("mode", ["mean", "sample"])
def test_rules_of_parts_that_are_not_trained_are_refused(
    change: dict[str, object], rule: str, mode: msvae.models.base.Mode
) -> None:
    model = tiny_model("flow", [Source(name, (3, 8, 8)) for name in ("blue", "grey")], **change).eval()
    assert rule not in model.latent_rules
    with pytest.raises(ConfigError, match=f"Unknown latent rule '{rule}'"):
        model.sample(random_batch(model), weights={"blue": 1.0}, rule=rule, mode=mode)


def test_appearance_needs_latents_of_one_shape() -> None:
    model = tiny_model("flow").eval()
    with pytest.raises(SourceError, match="latents of one shape"):
        model.sample(random_batch(model), rule="appearance")


def test_garbage_in_absent_values_changes_no_sample() -> None:
    model = tiny_model("flow").eval()
    absent = {"blue": [0, 2], "grey": [1, 2]}
    answers = [
        model.sample(lacking(random_batch(model), absent, filler), generator=generator()).values
        for filler in (float("nan"), 0.5)
    ]
    for name in model.source_names:
        assert torch.equal(answers[0][name], answers[1][name])


def test_one_draw_of_the_code_serves_all_targets() -> None:
    """Asked for one source or for all, a row shows the same thing: codes are drawn before anything else."""
    model = tiny_model("flow").eval()
    given = random_batch(model).select(["grey"])
    first = model.codes(given, 2, None, "sample", "own", generator())
    assert torch.equal(first, model.codes(given, 2, None, "sample", "own", generator()))
    all_of_them = model.sample(given, n=2, generator=generator())
    blue = model.sample(given, ["blue"], n=2, generator=generator())
    torch.testing.assert_close(blue.values["blue"], all_of_them.values["blue"])


def test_a_given_source_comes_back_as_its_autoencoder_sees_it() -> None:
    model = tiny_model("flow").eval()
    assert isinstance(model, SharedFlow)
    batch = random_batch(model)
    latents = model.autoencoders.latents({"grey": batch.values["grey"]})["grey"]
    expected = model.autoencoders.image("grey", latents)
    torch.testing.assert_close(model.sample(batch, ["grey"]).values["grey"], expected)


def test_spatial_codes_and_vectors() -> None:
    sources = [
        Source("photo", (3, 16, 16)),
        Source("facts", (5,), likelihood="normal"),
        Source("map", (1, 12, 16), likelihood="categorical", categories=3),
    ]
    model = tiny_model("flow", sources, grid=2)
    batch = random_batch(model)
    batch.values["map"] = batch.values["map"].round()
    model.loss(batch).total.backward()
    answer = model.eval().sample(batch.select(["photo"]), n=2)
    assert answer.values["facts"].shape == (10, 5)
    assert set(answer.values["map"].unique().tolist()) <= {0.0, 1.0, 2.0}
    assert model.encode(batch).mean.shape == (5, 4 * 6)


@pytest.mark.parametrize(
    ("settings", "patch", "width"),
    [
        ({"training.budget": 599.0}, None, 512),
        ({"training.budget": 600.0}, 1, 128),
        ({"training.steps": 100_000}, None, 512),
        ({"training.budget": 600.0, "model.patch": None}, None, 512),
        ({"training.budget": 600.0, "model.patch": 2}, 2, 128),
        ({"training.budget": 600.0, "model.renderer_width": 64}, None, 64),
        ({"training.budget": 600.0, "model.extends": "RUN"}, None, 512),
        ({"training.budget": 600.0, "model.content": "scene"}, 4, 256),
    ],
)
def test_long_trainings_draw_with_tokens(settings: dict[str, object], patch: int | None, width: int) -> None:
    chosen = with_known_renderer(api.run_config(method="flow", settings=settings), Quiet()).model
    assert (chosen.patch, chosen.renderer_width) == (patch, width)


def test_settings_of_the_flow_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"Did you mean 'model\.guidance'"):
        api.run_config(method="flow", settings={"model.guidanse": 2})
    with pytest.raises(ConfigError, match=r"'model\.heads'"):
        api.run_config(method="flow", settings={"model.heads": 0})
    with pytest.raises(ConfigError, match="two sources"):
        build_model([Source("a", (3, 8, 8))], FlowConfig())
    with pytest.raises(ConfigError, match="heads"):
        parse(FlowConfig, {"renderer_width": 20, "heads": 3})
    with pytest.raises(ConfigError, match=r"greater than 0"):
        parse(FlowConfig, {"shares": {"converter": -1}})
