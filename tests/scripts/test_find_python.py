"""The Python that the set-up takes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "find-python"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A PATH with the tools of the script, and Pythons that know only their version."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in ("bash", "env", "grep", "sort"):
        (found,) = subprocess.run(
            ["sh", "-c", f"command -v {tool}"], capture_output=True, text=True, check=True
        ).stdout.split()
        (folder / tool).symlink_to(found)
    return folder


def put(path: Path, *versions: str, broken: bool = False) -> None:
    """Pythons by these names. They answer the script's question, whether they are old and new enough, as they would."""
    for version in versions:
        minor = int(version.partition(".")[2])
        python = path / f"python{version}"
        # `python -c QUESTION NEWEST`
        python.write_text(
            "#!/bin/sh\n"
            + (
                "exit 127\n"
                if broken
                else f'newest=${{3#3.}}\n[ {minor} -ge 11 ] && [ {minor} -le "$newest" ]\n'
            )
        )
        python.chmod(0o755)


def find(path: Path, *arguments: str, python: str = "") -> tuple[int, str, str]:
    done = subprocess.run(
        [str(SCRIPT), *arguments],
        env={"PATH": str(path), "PYTHON": python},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, Path(done.stdout.strip()).name, done.stderr


@pytest.mark.parametrize(
    ("there", "taken"),
    [
        (["3.11", "3.12", "3.13", "3.14"], "python3.13"),
        (["3.14", "3.15"], "python3.14"),
        (["3.9", "3.10", "3.15"], "python3.15"),
        (["3.20"], "python3.20"),
    ],
)
def test_one_with_ready_made_engines_is_taken_first_then_the_oldest(
    there: list[str], taken: str, path: Path
) -> None:
    put(path, *there)
    assert find(path)[:2] == (0, taken)


def test_a_shim_for_a_version_that_is_not_there_is_passed_over(path: Path) -> None:
    put(path, "3.13", broken=True)
    put(path, "3.11")
    assert find(path)[:2] == (0, "python3.11")


def test_without_one_it_says_what_to_install(path: Path) -> None:
    put(path, "3.10")
    code, _, said = find(path)
    assert code == 1
    assert "No Python 3.11 or newer with its venv module is on PATH" in said


def test_one_that_is_named_is_taken_and_one_that_does_not_do_is_refused(path: Path) -> None:
    put(path, "3.10", "3.13", "3.15")
    assert find(path, python="python3.15")[:2] == (0, "python3.15")
    code, _, said = find(path, python="python3.10")
    assert code == 1
    assert "PYTHON=python3.10 does not do: wavegate needs Python 3.11 or newer" in said


def test_where_there_is_a_newest_a_newer_one_is_passed_over_even_if_named(path: Path) -> None:
    put(path, "3.14", "3.15")
    assert find(path, "3.14", python="python3.15")[:2] == (0, "python3.14")
    (path / "python3.14").unlink()
    code, _, said = find(path, "3.14")
    assert code == 1
    assert "No Python 3.11 to 3.14" in said
