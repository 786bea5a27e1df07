"""A lock that is not complete is found, so that installing without resolving is safe."""

from __future__ import annotations

from importlib.metadata import Distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from scripts.check_locks import PYTHONS, Lock, installed_in

ASKED = [Requirement("reports>=1"), Requirement('old-only>=1; python_version < "3.12"')]
PINS = {
    "reports": "reports==1.0",
    "measures": "measures==1.0",
    "reads": "reads==1.0",
    "old-only": "old-only==1.0 ; python_full_version < '3.12'",
}


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, Distribution]:
    """`reports` asks for `measures[toml]`, and that extra of it for `reads`."""
    site = tmp_path / "venv" / "lib" / "python3.11" / "site-packages"
    for name, requires in (("reports", "measures[toml]>=1"), ("measures", 'reads; extra == "toml"')):
        info = site / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nRequires-Dist: {requires}\n"
        )
    return installed_in(tmp_path / "venv")


def problems(
    folder: Path, installed: dict[str, Distribution], *, without: str = "", **changed: str
) -> list[str]:
    path = folder / "some.lock"
    entries = {**PINS, **changed}
    entries.pop(without, None)
    path.write_text("".join(f"{entry} \\\n    --hash=sha256:0\n" for entry in entries.values()))
    return Lock(path, ASKED, installed).problems()


def test_a_complete_lock_has_no_problem(tmp_path: Path, installed: dict[str, Distribution]) -> None:
    assert problems(tmp_path, installed) == []


@pytest.mark.parametrize(
    ("without", "for_whom"), [("reports", ""), ("measures", " (for reports)"), ("reads", " (for measures)")]
)
def test_what_is_missing_is_named_for_each_python(
    without: str, for_whom: str, tmp_path: Path, installed: dict[str, Distribution]
) -> None:
    found = problems(tmp_path, installed, without=without)
    assert len(found) == len(PYTHONS)
    for python, problem in zip(PYTHONS, found, strict=True):
        assert f"Python {python} wants {without}" in problem
        assert problem.endswith(f"{for_whom} and gets nothing")


def test_a_pin_for_other_pythons_does_not_count(tmp_path: Path, installed: dict[str, Distribution]) -> None:
    (problem,) = problems(tmp_path, installed, measures="measures==1.0 ; python_full_version < '3.15'")
    assert "Python 3.15 wants measures[toml]>=1 (for reports) and gets nothing" in problem


def test_a_pin_that_is_too_old_is_named(tmp_path: Path, installed: dict[str, Distribution]) -> None:
    assert (
        "wants measures[toml]>=1 (for reports) and gets 0.9"
        in problems(tmp_path, installed, measures="measures==0.9")[0]
    )


def test_what_is_not_installed_is_not_followed_and_named(tmp_path: Path) -> None:
    path = tmp_path / "some.lock"
    path.write_text("reports==1.0 \\\n    --hash=sha256:0\n")
    lock = Lock(path, [Requirement("reports")], {})
    assert lock.problems() == []
    assert {pin.name for pin in lock.not_followed} == {"reports"}
