"""Train, test, report: the long work on a run, in Python. The questions to a trained run are in `msvae.questions`."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msvae.config import ModelConfig, RunConfig, merged, parse, seconds
from msvae.data import DataSet, Rows, load_data, prepared
from msvae.errors import ConfigError, DataError
from msvae.evaluation import Extent, Yardstick, evaluate_model, make_yardstick
from msvae.files import refuse_unwritable, write_json
from msvae.metrics.imagenet import load_efficientnet
from msvae.models import METHODS, Method, method_named, with_method
from msvae.networks.pairs import Pair
from msvae.reporting import write_report as report
from msvae.training.checkpoint import RunFolder
from msvae.training.opening import Run, open_run
from msvae.training.progress import Display, Quiet
from msvae.training.run import past_gates, resume_run, train_run

BASELINE_FOLDER = "single"
#: What suits a minute of training on two cores; found on validation rows.
DEMO_SETTINGS = {
    "model.width": 16,
    "model.latent": 64,
    "training.batch_size": 32,
}
#: And a flow of a minute: small networks and latents, and few steps that have to go far. A thousand rows are soon known
#: to the autoencoders and the renderer; what needs the steps is the converter, which learns what codes there are.
DEMO_FLOW_SETTINGS = {
    "model.content": "class",
    "model.width": 16,
    "model.content_width": 16,
    "model.side": 2,
    "model.channels": 8,
    "model.converter_width": 64,
    "model.renderer_width": 128,
    "training.batch_size": 64,
    "training.learning_rate": 4e-3,
    "training.warmup_steps": 30,
}
FLOW_FOLDER, FLOW_TIME = "flow", 3.0
#: The demo's time, and steps with which it shows something, which a slow or busy machine takes whatever their time.
DEMO_BUDGET, DEMO_LEAST, DEMO_FLOW_LEAST = 17.0, 150, 600
DEMO_GENERATED = 500
LENGTHS = ("training.budget", "training.steps", "training.epochs")


def run_config(
    data: str | None = None,
    method: str | None = None,
    budget: str | int | float | None = None,
    settings: Mapping[str, Any] | None = None,
    base: Mapping[str, Any] | None = None,
) -> RunConfig:
    """Settings of a run: a base (such as a YAML file's content), over it `data`, `method`, `budget`, then `settings`.

    Args:
        settings: dotted names, such as `{"training.seed": 1, "model.latent": 64, "data.options.pairing": "class"}`.

    Raises:
        ConfigError: naming every setting that does not fit; also for two different lengths of training.
    """
    own = dict(settings or {})
    if isinstance(own.get("training"), Mapping):  # a group counts as its settings do, each by its name
        own |= {f"training.{name}": value for name, value in own.pop("training").items()}
    if budget is not None:
        own["training.budget"] = budget
    if own.get("training.budget") is not None:
        own["training.budget"] = seconds(own["training.budget"])
    lengths = [key for key in LENGTHS if own.get(key) is not None]
    if len(lengths) > 1:
        raise ConfigError(f"A run has one length; {' and '.join(lengths)} are given.")
    if lengths:
        own = {**dict.fromkeys(LENGTHS), **own}  # it replaces whatever length the base has
    if data is not None:
        own["data.name"] = data
    plain = merged(base or {}, dotted={})
    training = plain.get("training")
    if isinstance(training, dict):
        if isinstance(training.get("budget"), str):
            training["budget"] = seconds(training["budget"])
        several = [key for key in LENGTHS if training.get(key.removeprefix("training.")) is not None]
        if len(several) > 1 and not lengths:
            raise ConfigError(f"A run has one length; {' and '.join(several)} are given.")
    model = plain.get("model", {})
    if isinstance(model, Mapping) and method is not None:
        plain["model"] = with_method(method, model)
    plain = merged(plain, dotted=own)
    model = plain.get("model", {})
    if isinstance(model, Mapping):
        plain["model"] = with_method(None, model)
    return parse(RunConfig, plain)


def train(
    data: str | Path | DataSet = "colours",
    method: str | None = None,
    *,
    out: str | Path,
    budget: str | int | float | None = None,
    settings: Mapping[str, Any] | None = None,
    networks: Mapping[str, Pair] | None = None,
    display: Display | None = None,
) -> Run:
    """Train a model into the folder `out`.

    Args:
        data: the name of a built-in set, a path of your own images, or rows of your own.
        method: a preset (see `msvae.methods`), `mopoe` by default.
        budget: such as `90s` or `10m`; without it `training.steps` or `training.epochs` of the settings count.
        settings: any other settings by dotted names, as in `run_config`.
        networks: your own `{source: (encoder, decoder)}` modules, which are copied.
    """
    if not isinstance(data, str | Path | DataSet):
        raise DataError(f"Expected the name of a data set, a path, or a DataSet; got {type(data).__name__}.")
    own = data if isinstance(data, DataSet) else None
    config = run_config(None if own is not None else str(data), method, budget, settings)
    return train_run(config, out, data=own, networks=networks, display=display)


def resume(
    out: str | Path,
    *,
    data: DataSet | None = None,
    networks: Mapping[str, Pair] | None = None,
    display: Display | None = None,
) -> Run:
    """Go on with an interrupted run, bit for bit; rows and modules of your own have to be given again."""
    return resume_run(out, data=data, networks=networks, display=display)


def evaluate(
    run: str | Path | Run,
    *,
    baseline: bool = True,
    seed: int | None = None,
    data: DataSet | None = None,
    networks: Mapping[str, Pair] | None = None,
    photographs: int = 0,
    generated: int = Extent.generated,
    yardstick: Yardstick | None = None,
    display: Display | None = None,
) -> dict[str, Any]:
    """Test a run on its test rows and write `metrics.json` into it.

    Args:
        baseline: also train (once, kept in the run's folder `single`) the same networks as independent single-source
            VAEs with the same seed and number of steps, to compare with.
        seed: of sampling and probes; the run's own by default. The verifiers have one of their own.
        data: the rows of a run that was trained on a data set of your own.
        networks: your own modules with fresh weights for the baseline, where the run has such.
        photographs: images in each Fréchet distance in ImageNet features (`FD, EfficientNet-Lite0`), such as 5000;
            0 leaves these out. They need the extra `msvae[metrics]`.
        generated: rows made from nothing; at least as many as `photographs`.
        yardstick: the judges of another run on the same rows (`make_yardstick`), which need not be trained again then.

    Raises:
        CheckpointError: if the run's folder cannot be written to.
        DataError: for a set without test rows.
        ConfigError: if photographs are asked for and cannot be looked at. All of them before anything is trained.
    """
    opened = run if isinstance(run, Run) else open_run(run, networks=networks)
    refuse_unwritable(opened.folder.path)
    state = opened.folder.state()
    rows = opened.data(data)
    rows.split("test")  # refuses a set without one
    if photographs:
        load_efficientnet()  # refuses where it is not installed
    if photographs and yardstick is not None and yardstick.photographs is None:
        raise ConfigError("The yardstick was made without photographs; make it with Extent(photographs=..) for these.")
    single = None
    if baseline and isinstance(opened.config.model, ModelConfig) and opened.config.model.method != "single":
        single = single_baseline(opened, data=data, networks=networks, display=display).model
    figures = evaluate_model(
        opened.model,
        rows,
        verifier_rows=_complete_training_rows(opened, data) if opened.config.data.missing else rows.split("train"),
        seed=opened.config.training.seed if seed is None else seed,
        single=single,
        extent=Extent(generated=max(generated, photographs), photographs=photographs),
        yardstick=yardstick,
        display=display,
    )
    figures["method"] = opened.config.model.method
    figures["steps"] = state.step
    figures["training_seconds"] = round(state.seconds, 1)
    write_json(opened.folder.path / "metrics.json", figures)
    return figures


def _complete_training_rows(run: Run, own: DataSet | None) -> Rows:
    """Training rows before any image was removed for an experiment: the yardstick is the same for every share."""
    whole = run.config.data.model_copy(update={"missing": 0.0})
    return (prepared(own, whole) if own is not None else load_data(whole)).split("train")


def single_baseline(
    run: Run,
    *,
    data: DataSet | None = None,
    networks: Mapping[str, Pair] | None = None,
    display: Display | None = None,
) -> Run:
    """The same networks as M independent single-source VAEs: same rows, seed and number of steps that these networks
    had; trained once.

    Where the joint model's sources share a trunk, the baseline's do not: independent VAEs share nothing.
    """
    folder = run.folder.path / BASELINE_FOLDER
    title = "training the single-source VAEs"
    steps = _autoencoder_steps(run)
    stored = RunFolder(folder)
    if stored.checkpoints() and stored.config().training.steps == steps:
        if stored.state().finished:
            return open_run(folder, networks=networks)
        return resume_run(folder, data=data, networks=networks, display=display, title=title)
    own_networks = run.folder.description().get("own_networks", [])
    if own_networks and sorted(networks or {}) != own_networks:
        raise ConfigError(
            f"The baseline needs fresh modules of your own for: {', '.join(own_networks)}; give networks=, "
            "or evaluate with baseline=False."
        )
    stored.discard()  # of another number of steps: the run has been trained on since
    joint = run.config.model
    if not isinstance(joint, ModelConfig):
        raise ConfigError(f"Method {joint.method!r} has no single-source baseline: its first stage is that.")
    model = {
        **with_method("single", joint.model_dump()),
        "latent": joint.latent + joint.private,  # as many numbers as a source is drawn from in the joint model
        "shared_trunk": False,
    }
    config = parse(
        RunConfig,
        {
            "data": run.config.data.model_dump(),
            "model": model,
            "training": {
                **run.config.training.model_dump(),
                "budget": None,
                "epochs": None,
                "steps": steps,
                "stage_steps": {},
                "batch_size": run.config.training.batch_size * run.folder.description().get("processes", 1),
            },
        },
    )
    return train_run(config, folder, data=data, networks=networks, display=display, title=title)


def _autoencoder_steps(run: Run) -> int:
    """How long a joint model's encoders and decoders were trained; `mld` trains another network after them."""
    state = run.folder.state()
    stages = state.extra.get("stages", {}).get("lengths", {})
    return int(stages.get("sources", state.step))


def methods() -> Mapping[str, Method]:
    """The methods by name: what each is, its paper, its cost and its limits."""
    return METHODS


def demo(
    out: str | Path = "runs/demo",
    budget: str | int | float | None = None,
    method: str = "poe",
    seed: int = 0,
    *,
    flow: bool = True,
    display: Display | None = None,
) -> tuple[Path, dict[str, Any]]:
    """The whole way on the embedded digits: train jointly, train alone, test, report.

    Args:
        budget: training time of the joint model; the baseline takes as many steps again. Without any, 17 seconds, or
            longer where the machine is too slow to learn anything in these.
        flow: also train the flow, for three times that, and report it beside the joint model.

    Raises:
        ConfigError: for a method that is no joint VAE.

    Returns:
        The report's path and the figures; their `seconds` count the whole demo, those of the flow are under `flow`.
    """
    if "fusion" not in method_named(method).settings:
        raise ConfigError(f"The demo trains a joint VAE (and the flow beside it): expected one, got {method!r}.")
    began = time.perf_counter()
    display = display or Quiet()
    out = Path(out)
    display.note("Three sources draw the same handwritten digits: blue ink, yellow neon, green brush.")
    least = (DEMO_LEAST, DEMO_FLOW_LEAST) if budget is None else (0, 0)
    length = DEMO_BUDGET if budget is None else seconds(budget)
    own = {**DEMO_SETTINGS, "training.seed": seed, "training.least_steps": least[0]}
    run = past_gates(
        lambda: train("colours", method, out=out, budget=length, settings=own, display=display),
        lambda: resume(out, display=display),
        display,
    )
    yardstick = make_yardstick(run.data(), Extent(), display=display)
    figures = evaluate(run, generated=DEMO_GENERATED, yardstick=yardstick, display=display)
    if not flow:
        return report(run, display=display), {**figures, "seconds": round(time.perf_counter() - began, 1)}
    folder = out / FLOW_FOLDER
    settings = {**DEMO_FLOW_SETTINGS, "training.seed": seed, "training.least_steps": least[1]}
    beside = past_gates(
        lambda: train("colours", "flow", out=folder, budget=FLOW_TIME * length, settings=settings, display=display),
        lambda: resume(folder, display=display),
        display,
    )
    figures = {**figures, "flow": evaluate(beside, generated=DEMO_GENERATED, yardstick=yardstick, display=display)}
    path = report(run, beside=beside, display=display)
    return path, {**figures, "seconds": round(time.perf_counter() - began, 1)}
