"""docs/telemetry.md has every span and attribute, and each is used."""

from __future__ import annotations

import re
from pathlib import Path

import wavegate_server
from wavegate_server.telemetry import names

PAGE = Path(__file__).parents[3] / "docs" / "telemetry.md"
SOURCE = Path(names.__file__).read_text(encoding="utf-8")
# Names of things, not of spans or attributes.
OTHERS = {"SERVICE_NAME", "SCOPE", "PROVIDER", "PULSE"}


def constants(text: str) -> set[str]:
    return set(re.findall(r"^([A-Z_]+): Final", text, re.M)) - OTHERS


HEAD, _, REST = SOURCE.partition("# Attributes by the conventions.")
SPANS = constants(HEAD)
ATTRIBUTES = constants(REST.partition("# Fields of log lines.")[0])


def table(heading: str) -> list[list[str]]:
    """The rows of the first table below a heading, without its head."""
    section = PAGE.read_text(encoding="utf-8").partition(f"\n### {heading}\n")[2].partition("\n### ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows[2:]]


def test_the_page_has_every_span() -> None:
    documented = [row[0].strip("`") for row in table("Spans")]
    assert documented[0] == "package.Service/Method"
    assert sorted(documented[1:]) == sorted(str(getattr(names, name)) for name in SPANS)
    kinds = {row[1] for row in table("Spans")}
    assert kinds == {"SERVER", "CLIENT", "INTERNAL", "PRODUCER", "CONSUMER"}


def test_the_page_has_every_attribute_in_the_order_of_the_names() -> None:
    documented = [row[0].strip("`").removesuffix("KEY") for row in table("Attributes")]
    in_order = [name for name in re.findall(r"^([A-Z_]+): Final", REST, re.M) if name in ATTRIBUTES]
    assert documented == [str(getattr(names, name)) for name in in_order]
    assert all(len(row) == 4 and all(row) for row in table("Attributes"))


def test_units_are_those_of_the_names() -> None:
    units = {"_ms": "ms", "_hz": "Hz", "bytes": "bytes", "characters": "characters"}
    for attribute, _, unit, _ in table("Attributes"):
        for ending, wanted in units.items():
            if attribute.strip("`").endswith(ending):
                assert unit == wanted, attribute


def test_every_name_is_used() -> None:
    folder = Path(wavegate_server.__file__).parent
    used = set()
    for file in folder.rglob("*.py"):
        used |= set(re.findall(r"\bnames\.([A-Z_]+)\b", file.read_text(encoding="utf-8")))
    assert used >= SPANS | ATTRIBUTES
    assert len(SPANS) > 10
    assert len(ATTRIBUTES) > 60
