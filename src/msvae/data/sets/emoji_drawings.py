"""Packages of emoji: which emoji there are, what each shows, and how every vendor draws it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from msvae.data.fetch import Package

TONES = frozenset(("1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff"))
PERSON = "1f9d1"
GENDERED = frozenset(("1f468", "1f469"))
SIGNS = frozenset(("2640", "2642", "27a1"))  # female, male, facing right
JOINER, VARIATION = "200d", "fe0f"
ICONS = ("package/icons.json", "package/chars.json", "package/metadata.json")

NOTO = Package(
    client="npm",
    name="@iconify-json/noto",
    version="1.2.9",
    members=ICONS,
    sha256="1ea8277db22719e7769ed438ed0d02875e647c8426737f3aeeabd3e67d505563",
    megabytes=3.1,
    licence="Apache-2.0, Google Inc (Noto Emoji)",
)
TWEMOJI = Package(
    client="npm",
    name="@iconify-json/twemoji",
    version="1.2.5",
    members=ICONS,
    sha256="57f00f076380f5b67e4b3f0bd8f853b9a07b129df15768143b316139b94d9168",
    megabytes=1.6,
    licence="CC BY 4.0, Twitter and contributors (Twemoji)",
)
FLUENT = Package(
    client="npm",
    name="@iconify-json/fluent-emoji-flat",
    version="1.2.6",
    members=ICONS,
    sha256="c1206f6b49baab1d0e036f78c5d9fe6528446c24295b44ad3fcdcc440d811204",
    megabytes=1.2,
    licence="MIT, Microsoft Corporation (Fluent Emoji)",
)
OPENMOJI = Package(
    client="npm",
    name="openmoji",
    version="17.0.0",
    members=("package/color/svg/*.svg", "package/black/svg/*.svg"),
    sha256="cd2f987b20ad2af32864f49c500be8ce3978448e564ea4775d32eda7d01fca27",
    megabytes=4.3,
    licence="CC BY-SA 4.0, OpenMoji project",
)
FLUENT_3D = Package(
    client="npm",
    name="@lobehub/fluent-emoji-3d",
    version="1.1.0",
    members=("package/assets/*.webp",),
    sha256="3cdf478f22c373146187ce54bb433cd02c923476ee4bdd0d256f792c7ae94031",
    megabytes=15.8,
    licence="MIT, Microsoft Corporation (Fluent Emoji), packed by LobeHub",
)


@dataclass(frozen=True)
class Emoji:
    """One emoji.

    Args:
        code: its code points, such as `1f469-200d-1f527`, without variation selectors.
        base: what it shows, without skin tone, gender and direction; splits keep a base together.
        name: in English.
        group: of Unicode.
    """

    code: str
    base: str
    name: str
    group: str

    @property
    def toned(self) -> bool:
        return bool(TONES & set(self.code.split("-")))


def code_of(text: str) -> str:
    """Code points in lower case without variation selectors: how all packages can be compared."""
    return "-".join(part for part in text.lower().split("-") if part != VARIATION)


def base_of(code: str) -> str:
    """The code without skin tones, gender and direction: a man, a woman and a person at one work are one base."""
    parts = [PERSON if part in GENDERED else part for part in code.split("-") if part not in TONES]
    kept: list[str] = []
    for part in parts:
        if part in SIGNS and kept[-1:] == [JOINER]:
            kept.pop()
        else:
            kept.append(part)
    return "-".join(kept)


def catalogue(noto: Mapping[str, bytes]) -> list[Emoji]:
    """All emoji that Noto knows, by code."""
    groups = json.loads(noto["package/metadata.json"])["categories"]
    group_of = {icon: group for group, icons in groups.items() for icon in icons}
    codes = {code_of(code): icon for code, icon in json.loads(noto["package/chars.json"]).items()}
    return [
        Emoji(code, base_of(code), icon.replace("-", " "), group_of[icon])
        for code, icon in sorted(codes.items())
        if icon in group_of
    ]


def iconify_drawings(files: Mapping[str, bytes]) -> dict[str, str]:
    """`{code: SVG}` of a package of drawings in one JSON file."""
    pack = json.loads(files["package/icons.json"])
    drawn = {}
    for code, name in json.loads(files["package/chars.json"]).items():
        icon = pack["icons"].get(name)
        if icon is not None:
            box = [icon.get(key, pack.get(key, 0)) for key in ("left", "top", "width", "height")]
            head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{" ".join(map(str, box))}">'
            drawn[code_of(code)] = f"{head}{icon['body']}</svg>"
    return drawn


def file_drawings(files: Mapping[str, bytes], folder: str) -> dict[str, bytes]:
    """`{code: content}` of a package with a file for every emoji."""
    return {
        code_of(name.rpartition("/")[2].rpartition(".")[0]): content
        for name, content in files.items()
        if name.startswith(folder)
    }
