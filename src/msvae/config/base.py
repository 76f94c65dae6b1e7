"""What all settings have in common: typed, bounded and frozen."""

from typing import Any

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """Base of all settings: unknown keys are refused, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @property
    def chosen(self) -> dict[str, Any]:
        """What was chosen, without the defaults, which may hang on it."""
        return {name: getattr(self, name) for name in self.model_fields_set}
