"""`msvae data check`: what is in a person's own data, what does not fit, and a first `sources.yaml`."""

from collections import Counter
from pathlib import Path
from typing import Any

from msvae.data.base import SPLITS
from msvae.data.own.cache import trial
from msvae.data.own.finding import find_layout
from msvae.data.own.settings import read_settings, write_settings
from msvae.data.own.survey import Survey, propose, summary, survey
from msvae.training.progress import Tell

RARE_SHARE = 0.05


def check_own(
    path: Path, settings_file: Path, tell: Tell, *, force: bool = False, allow_outside: bool = False
) -> dict[str, Any]:
    """Look at everything, and write the settings that follow where there are none (or `force`).

    Returns:
        What was found: sources, rows, subsets, splits, classes, problems, notes, and whether settings were written.

    Raises:
        ConfigError: for settings that do not fit.
        DataError: if there is no source, or no file of one can be read.
    """
    path = path.expanduser().resolve()
    settings = None if force else read_settings(settings_file)
    layout = find_layout(path, settings, allow_outside)
    found = survey(layout, settings, tell)
    written = settings is None
    if settings is None:
        settings = propose(found).model_copy(update={"allow_outside": allow_outside})
        write_settings(settings_file, settings)
    tried = trial(layout, settings, tell)
    known = {(problem.source, problem.where) for problem in found.problems}
    problems = [*found.problems, *(p for p in tried.problems if (p.source, p.where) not in known)]
    answer = summary(found, settings)
    answer["rows"] = len(tried.have)
    subsets = Counter("+".join(name for name in layout.origins if name in have) for have in tried.have.values())
    answer["subsets"] = dict(subsets.most_common())
    answer["problems"] = [str(problem) for problem in problems]
    counted = Counter(tried.split_of.values())
    answer["splits"] = {split: counted[split] for split in SPLITS if counted[split]}
    answer["split_rule"] = tried.rule
    answer["classes"] = list(tried.class_names)
    answer["notes"] = [*tried.notes, *_rare(tried.have, list(layout.origins)), *_unlike(found)]
    answer["skip_unreadable"] = settings.skip_unreadable
    answer["settings"] = str(settings_file)
    answer["settings_written"] = written
    return answer


def _rare(have: dict[str, frozenset[str]], names: list[str]) -> list[str]:
    """Sources that few rows have."""
    notes = []
    for name in names:
        share = sum(name in sources for sources in have.values()) / max(1, len(have))
        if share < RARE_SHARE:
            notes.append(f"{share:.1%} of the rows have {name}; --set training.balance=0.5 draws them more often.")
    return notes


def _unlike(found: Survey) -> list[str]:
    """Sources whose volumes lie differently in space, so that answers cannot say where they lie."""
    return [
        f"The volumes of {name} have {len(seen.affines)} different affines; its answers get the identity."
        for name, seen in found.sources.items()
        if len(seen.affines) > 1
    ]


def words(answer: dict[str, Any]) -> str:
    """The answer for people."""
    lines = [f"{answer['root']}: {answer['rows']} rows in {answer['layout']}"]
    for name, source in answer["sources"].items():
        ends = source["range"]
        span = f"numbers {ends[0]:g} to {ends[1]:g} as {_listed(source['numbers'])}" if ends else "no numbers"
        lines.append(
            f"  {name}: {source['images']} images in {source['files']} files ({_listed(source['formats'])}), "
            f"sizes {_listed(source['sizes'])}, channels {_listed(source['channels'])}, {span}"
        )
        lines.append(f"    read as {source['shape']} by fit: {source['fit']}")
        if source["notes"]:
            lines.append(f"    {', '.join(f'{count} x {note}' for note, count in source['notes'].items())}")
        if source["files_with_nan"]:
            lines.append(f"    {source['files_with_nan']} images hold NaN")
    lines.append("Rows that have:")
    shown = list(answer["subsets"].items())
    lines += [f"  {subset or 'nothing'}: {count}" for subset, count in shown[:12]]
    if len(shown) > 12:
        lines.append(f"  and {len(shown) - 12} other subsets")
    splits = ", ".join(f"{count} {split}" for split, count in answer["splits"].items())
    lines.append(f"Splits: {splits} ({answer['split_rule']})")
    if answer["classes"]:
        lines.append(f"Classes: {', '.join(answer['classes'][:20])}{', ..' * (len(answer['classes']) > 20)}")
    lines += [f"Note: {note}" for note in answer["notes"]]
    if answer["ignored"]:
        more = ", .." if len(answer["ignored"]) > 5 else ""
        lines.append(f"Not read: {', '.join(answer['ignored'][:5])}{more} ({len(answer['ignored'])} in all)")
    if answer["problems"]:
        what = "they count as missing" if answer["skip_unreadable"] else "training refuses them"
        lines.append(f"{len(answer['problems'])} files cannot be used; {what}:")
        lines += [f"  {problem}" for problem in answer["problems"]]
    written = "Written" if answer["settings_written"] else "Kept as it is"
    lines.append(f"{written}: {answer['settings']}")
    return "\n".join(lines)


def _listed(counts: dict[str, int]) -> str:
    if len(counts) == 1:
        return next(iter(counts)) or "none"
    return ", ".join(f"{what or 'none'} ({count})" for what, count in counts.items())
