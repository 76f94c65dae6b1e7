"""The report of a run: one self-contained HTML file, made from its model, its data and its metrics.json."""

import platform
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml

from msvae.data import DataSet
from msvae.errors import DataError
from msvae.evaluation.yardstick import mean
from msvae.files import read_json, write_text
from msvae.models.base import MultiSourceModel
from msvae.questions import convert, generate, impute, reconstruct
from msvae.reporting import page
from msvae.reporting.beside import beside_section
from msvae.reporting.fusing import fusion_section
from msvae.reporting.grids import strip
from msvae.reporting.plots import loss_curves
from msvae.reporting.tables import number, sources_lines, summary_lines
from msvae.source import Source, SourceBatch
from msvae.training.log import MetricsLog
from msvae.training.opening import Run, open_run
from msvae.training.progress import Display, Quiet, tracked

SHOWN_ROWS = 12
VERSIONS = ("msvae", "torch", "accelerate", "numpy", "scikit-learn", "torchmetrics")


def write_report(
    run: str | Path | Run,
    out: str | Path | None = None,
    *,
    data: DataSet | None = None,
    beside: str | Path | Run | None = None,
    display: Display | None = None,
) -> Path:
    """Write the report, by default to `RUN/report.html`; figures appear once the run has been evaluated.

    Args:
        beside: another run on the same data, evaluated, whose figures and generated rows stand beside this one's.

    Returns:
        The file's path.

    Raises:
        DataError: if the run beside has not been evaluated.
    """
    opened = run if isinstance(run, Run) else open_run(run)
    model, folder = opened.model, opened.folder.path
    rows = opened.data(data)
    figures = read_json(folder / "metrics.json") if (folder / "metrics.json").exists() else None
    drawable = [source for source in model.sources if source.is_image]
    parts: list[Callable[[], str]] = [
        lambda: _cards(opened, figures),
        lambda: _data(rows, drawable),
        lambda: _losses(opened),
        lambda: _tests(figures, model),
        lambda: _reconstructions(model, rows, drawable),
        lambda: _conversions(model, rows, drawable),
        lambda: fusion_section(model, rows, drawable),
        lambda: _generated(model, drawable),
        lambda: _imputed(model, rows, drawable),
        lambda: _beside(opened, figures, beside),
        lambda: _settings(opened),
    ]
    sections = [part() for part in tracked(parts, display or Quiet(), "drawing the report", len(parts))]
    names = ", ".join(model.source_names)
    title = f"{opened.config.model.method} on {rows.name}"
    subtitle = f"One generative model over {len(model.sources)} sources: {names}. All figures are of test rows."
    path = Path(out) if out is not None else folder / "report.html"
    write_text(path, page.page(title, subtitle, [section for section in sections if section]))
    return path


def _cards(run: Run, figures: dict[str, Any] | None) -> str:
    state = run.folder.state()
    parameters = sum(parameter.numel() for parameter in run.model.parameters())
    entries = [
        ("training time", f"{state.seconds:.0f} s"),
        ("optimiser steps", f"{state.step:,}"),
        ("parameters", f"{parameters / 1e6:.2f} M"),
    ]
    if figures is not None and figures.get("steps", state.step) != state.step:
        entries.append(("tested at step", f"{figures['steps']:,}; run msvae evaluate again"))
    if figures is None:
        return page.cards(entries)
    best: list[tuple[str, str]] = []
    for key, label in (("psnr", "PSNR from all sources, dB"), ("single_psnr", "PSNR of VAEs trained alone, dB")):
        value = mean([entry[key] for entry in figures["sources"].values()])
        if value is not None:
            best.append((label, number(value, 1)))
    coherence = figures["conditional_coherence"].get("1")
    if coherence is not None:
        best.insert(0, ("coherence from one source", number(coherence)))
    if figures["joint_coherence"] is not None:
        ceiling = number(figures["ceilings"].get("joint_coherence"))
        best.insert(1, (f"joint coherence, generated (real {ceiling})", number(figures["joint_coherence"])))
    return page.cards([*best, *entries])


def _data(data: DataSet, sources: Sequence[Source]) -> str:
    train = data.split("train")
    shown = train.batch(slice(0, SHOWN_ROWS))
    strips = [page.labelled_strip(source.name, _strip(shown, source)) for source in sources]
    counts = ", ".join(f"{len(rows)} {split}" for split, rows in data.splits.items())
    shares = ", ".join(f"{name} {float(present.float().mean()):.0%}" for name, present in train.present.items())
    what = data.card.get("what", "your own rows")
    text = f"Training rows of {data.name}: {what}. Rows: {counts}. Present in training rows: {shares}."
    return page.section("The data", text, *strips)


def _strip(batch: SourceBatch, source: Source) -> Any:
    """A strip of one source, absent images left blank."""
    has_it = batch.present[source.name].view(-1, 1, 1, 1)
    blank = torch.full_like(batch.values[source.name], source.value_range[1])
    return strip(torch.where(has_it, batch.values[source.name], blank), source)


def _losses(run: Run) -> str:
    records = MetricsLog(run.folder.metrics_log).records()
    if not records:
        return ""
    return page.section("Losses", "Thin: training batches. Thick: validation rows.", loss_curves(records))


def _tests(figures: dict[str, Any] | None, model: MultiSourceModel) -> str:
    if figures is None:
        return page.section("Tests", "Not tested yet; run msvae evaluate on this run.")
    content = [page.table(*sources_lines(figures["sources"]))]
    if figures["conversion"]:
        content += [
            "<h3>Conversion: coherence, and PSNR in dB</h3>",
            _heat(figures["conversion"], model),
        ]
    content += [
        "<h3>Coherence, generation, code</h3>",
        page.table(["", ""], [list(line) for line in summary_lines(figures)]),
    ]
    text = (
        "Joint: decoded from all given sources. From itself: decoded from that source alone. Trained alone: the same "
        "networks as an independent VAE with the same number of steps. Coherence: a classifier trained on real "
        "training images sees the right class, and is sure of it."
    )
    return page.section("Tests", text, *content)


def _heat(conversions: dict[str, Any], model: MultiSourceModel) -> str:
    cells: dict[tuple[str, str], tuple[float, str, str]] = {}
    for label, entry in conversions.items():
        given, target = label.split("->")
        right, psnr, pixels = entry["coherence"], entry["psnr"], entry.get("accuracy")
        share = right if right is not None else pixels if pixels is not None else (psnr or 0.0) / 40
        small = f"{pixels:.1%} of pixels" if pixels is not None else "" if psnr is None else f"{psnr:.1f} dB"
        cells[given, target] = ((share - 0.5) * 2, number(right), small)
    rows = list(dict.fromkeys(given for given, _ in cells))
    return page.heat_map(rows, model.source_names, cells)


def _reconstructions(model: MultiSourceModel, data: DataSet, sources: Sequence[Source]) -> str:
    batch = data.split("test").batch(slice(0, SHOWN_ROWS))
    rebuilt = reconstruct(model, batch)
    content = []
    for source in sources:
        content.append(page.labelled_strip(f"{source.name}, real", _strip(batch, source)))
        content.append(page.labelled_strip("reconstructed", strip(rebuilt[source.name], source)))
    return page.section("Reconstruction", "Real test images, and what the model makes of them.", *content)


def _conversions(model: MultiSourceModel, data: DataSet, sources: Sequence[Source]) -> str:
    if len(sources) < 2:
        return ""
    batch = data.split("test").batch(slice(0, SHOWN_ROWS))
    content = []
    for given in sources:
        others = [source for source in sources if source.name != given.name]
        shown, names = batch.select([given.name]), [source.name for source in others]
        answers = convert(model, shown, names)
        drawn = convert(model, shown, names, mode="sample") if model.draws_images else {}
        content += [f"<h3>Given {given.name} alone</h3>", page.labelled_strip(given.name, _strip(batch, given))]
        for source in others:
            content.append(page.labelled_strip(f"→ {source.name}", strip(answers[source.name], source)))
            if drawn:
                content.append(page.labelled_strip("drawn", strip(drawn[source.name], source)))
    text = "One source given, the others converted from it: the expected code's image"
    text += ", and one of the many that go with it." if model.draws_images else "."
    return page.section("Every source from every other", text, *content)


def _generated(model: MultiSourceModel, sources: Sequence[Source]) -> str:
    if not sources:
        return ""
    content = []
    ways = [(True, "From the prior")]
    if model.has_fitted_sampler:
        ways = [(False, "From the sampler fitted to training codes"), (True, "From the prior, for comparison")]
    for from_prior, heading in ways:
        content.append(f"<h3>{heading}</h3>")
        content += _generated_strips(model, sources, from_prior)
    return page.section("Generated rows", "From nothing: each column is one new thing, seen by every source.", *content)


def _generated_strips(model: MultiSourceModel, sources: Sequence[Source], from_prior: bool = False) -> list[str]:
    if not sources:
        return []
    made = generate(model, SHOWN_ROWS, [source.name for source in sources], from_prior=from_prior)
    return [page.labelled_strip(source.name, strip(made[source.name], source)) for source in sources]


def _imputed(model: MultiSourceModel, data: DataSet, sources: Sequence[Source]) -> str:
    if len(model.sources) < 2:
        return ""
    rows = data.split("test").with_missing(0.5, seed=7)
    batch = rows.batch(slice(0, SHOWN_ROWS))
    whole = impute(model, batch)
    content = ["<h3>Half of the images missing</h3>"]
    content += [page.labelled_strip(source.name, _strip(batch, source)) for source in sources]
    content.append("<h3>Filled in</h3>")
    content += [page.labelled_strip(source.name, strip(whole.images[source.name], source)) for source in sources]
    return page.section("Imputation", "What a row lacks, from what it has; what was there is unchanged.", *content)


def _beside(run: Run, figures: dict[str, Any] | None, beside: str | Path | Run | None) -> str:
    if beside is None:
        return ""
    other = beside if isinstance(beside, Run) else open_run(beside)
    ours, theirs = (_tested_on(each) for each in (run, other))
    if ours != theirs:
        raise DataError(f"The run {other.folder.path} beside has other test rows: {theirs}, not {ours}.")
    path = other.folder.path / "metrics.json"
    if not path.exists():
        raise DataError(f"The run {other.folder.path} beside has not been tested: run msvae evaluate on it first.")
    drawable = [source for source in other.model.sources if source.is_image]
    strips = _generated_strips(other.model, drawable)
    return beside_section(run, figures, other, read_json(path), strips)


def _tested_on(run: Run) -> str:
    """What test rows a run has, in words: the set, its fingerprint where it has one, and the sources."""
    card = run.folder.description().get("data", {})
    options = ", ".join(f"{key}={value}" for key, value in sorted(run.config.data.options.items()))
    words = [run.config.data.name, options, card.get("fingerprint", "")[:8], "+".join(run.model.source_names)]
    return " ".join(word for word in words if word)


def _settings(run: Run) -> str:
    config = run.config.model_dump(mode="json")
    shown = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    versions = ", ".join(f"{name} {version(name)}" for name in VERSIONS)
    machine = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    return page.section(
        "Settings",
        _how_to_repeat(run),
        f"<pre>{page.escape(shown)}</pre>",
        f"<footer>{page.escape(versions)}. {page.escape(machine)}, {torch.get_num_threads()} threads.</footer>",
    )


def _how_to_repeat(run: Run) -> str:
    """The command, or what one has to have besides."""
    description = run.folder.description()
    if description.get("own_data") or description.get("own_networks"):
        return "This run had rows or networks of its own, given in Python: msvae.train repeats it with these settings."
    train = f"msvae train --config settings.yaml {_length(run)} -o again"
    command = f"{train} && msvae evaluate again && msvae report again"
    return f"Save the settings below as settings.yaml; then this repeats the run: {command}"


def _length(run: Run) -> str:
    """Options for as many steps: a time budget gives every stage a number of its own, which a total does not tell."""
    state = run.folder.state()
    lengths = state.extra.get("stages", {}).get("lengths", {})
    stages = ", ".join(f"{name}: {steps}" for name, steps in lengths.items())
    own = f" --set training.stage_steps='{{{stages}}}'" if len(lengths) > 1 else ""
    return f"--steps {state.step}{own}"
