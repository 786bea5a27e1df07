"""The two distributions say the same of themselves."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def project(path: str) -> dict[str, object]:
    """The `[project]` table of a pyproject.toml."""
    table = tomllib.loads((ROOT / path).read_text())["project"]
    assert isinstance(table, dict)
    return table


WHOLE = project("pyproject.toml")
CLIENT = project("clients/python/pyproject.toml")


def requirements(value: object) -> set[str]:
    """A list of requirements, as a set."""
    assert isinstance(value, list)
    return set(value)


def test_both_have_the_same_version_and_pythons() -> None:
    for key in ("version", "requires-python", "license"):
        assert CLIENT[key] == WHOLE[key], key


def test_the_client_asks_for_nothing_that_the_whole_does_not() -> None:
    extras = CLIENT["optional-dependencies"]
    whole_extras = WHOLE["optional-dependencies"]
    assert isinstance(extras, dict)
    assert isinstance(whole_extras, dict)
    asked = requirements(CLIENT["dependencies"]) | requirements(extras["cli"])
    assert asked <= requirements(WHOLE["dependencies"])
    assert extras["play"] == whole_extras["play"]


def test_the_client_carries_the_same_licence() -> None:
    for name in ("LICENSE", "NOTICE"):
        assert (ROOT / "clients/python" / name).read_text() == (ROOT / name).read_text()
