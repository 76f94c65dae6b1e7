"""What cannot be trained, refused before anything is written: settings that contradict, rows that do not do."""

from msvae.config import FlowConfig, RunConfig
from msvae.data import DataSet
from msvae.errors import ConfigError, DataError
from msvae.models import MultiSourceModel, SharedFlow


def refuse_contradictions(config: RunConfig) -> None:
    """Settings that no single one of them makes wrong."""
    model = config.model
    if not isinstance(model, FlowConfig):
        return
    if model.extends is None and (model.added or model.trained):
        raise ConfigError("Settings 'model.added' and 'model.trained' are set by 'model.extends' alone.")
    if model.extends is not None and model.reuse is not None:
        raise ConfigError("Settings 'model.extends' and 'model.reuse': only one run can be built on.")


def refuse_rows(data: DataSet, model: MultiSourceModel, config: RunConfig) -> None:
    """Rows that the model cannot be trained on.

    Raises:
        DataError: for a source that no training row has, rows that lack sources where none may, or rows of one source
            each where the method learns from pairs.
    """
    if isinstance(model, SharedFlow) and config.training.stage_steps.get("code") != 0:
        _refuse_unpaired(data, model)
    for split, rows in data.splits.items():
        present = rows.presence(model.source_names)
        never = ~present.any(dim=1)
        if split == "train" and bool(never.any()):
            name = model.source_names[int(never.nonzero()[0])]
            raise DataError(f"No training row of {data.name!r} has source {name!r}; leave it out (data.sources).")
        lacking = ~present.all(dim=0)
        if model.needs_complete_rows and split != "test" and bool(lacking.any()):
            row = int(lacking.nonzero()[0])
            lost = [name for name, has in zip(model.source_names, present[:, row].tolist(), strict=True) if not has]
            raise DataError(
                f"The method {config.model.method!r} needs complete rows; {int(lacking.sum())} of the {len(rows)} rows "
                f"of {split!r} lack a source, first row {row} ({', '.join(lost)}). `msvae methods` tells which methods "
                "do not."
            )


def _refuse_unpaired(data: DataSet, model: SharedFlow) -> None:
    """The shared code is learnt from rows of two sources or more; of added sources each has to be in one."""
    present = data.split("train").presence(model.source_names)
    paired = (present & (present.sum(dim=0) > 1)).any(dim=1)
    alone = [name for name, has in zip(model.source_names, paired.tolist(), strict=True) if not has]
    added = [name for name in alone if name in model.config.trained]
    if len(present) > 1 and (added or not bool(paired.any())):
        raise DataError(
            f"No training row of {data.name!r} has source {(added or alone)[0]!r} beside another one, and what sources "
            "share is learnt from such rows. Do the names of their files fit?"
        )
