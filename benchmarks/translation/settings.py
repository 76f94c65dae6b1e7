"""Which direction of a set is compared, and both sides' settings for sets whose sources show the same scene."""

from typing import Any

DIRECTIONS = {
    "emoji": ("outline", "openmoji"),
    "earth": ("topography", "day"),
    "brain": ("t1", "grey"),
}
#: Batches of the U-Net, as many rows as the flow's last stage has. In equal time small batches bring its images nearer
#: to the truth (validation rows): with 4 rows 30.5 dB on the brain and 19.5 on emoji, with 8 rows 29.6 and 19.4 (350
#: and 300 CPU seconds); with 32 rows 21.7 and 17.1 where 8 have 28.0 and 19.5 (80 seconds).
UNET_ROWS = 4
#: Of both sides: small sets would be learned by heart.
CHANGED: dict[str, dict[str, Any]] = {
    "emoji": {"training.augment.flip_horizontal": 0.5, "training.augment.shift": 0.06, "training.augment.scale": 0.15},
    "earth": {"training.augment.flip_horizontal": 0.5, "training.augment.flip_vertical": 0.5},
    "brain": {"training.augment.flip_horizontal": 0.5, "training.augment.shift": 0.05},
}


def flow_settings(data: str) -> dict[str, Any]:
    """By dotted names."""
    return {"model.content": "scene", **CHANGED[data]}
