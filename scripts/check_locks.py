"""Check that the lock files are what pyproject.toml asks for. Needs no network.

Every direct requirement has a pin that meets it on each Python that is supported, every pin has hashes, the
container's lock has the same pins as the developers', and nothing in a lock names a host, an index or a path.
"""

import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PYTHONS = ("3.11", "3.12", "3.13")


@dataclass(frozen=True, slots=True)
class Pin:
    """One `name==version ; marker` of a lock, with the number of its hashes."""

    name: str
    version: str
    marker: Marker | None
    hashes: int


def read_lock(path: Path) -> list[Pin]:
    """Return the pins of a lock in the format of pip's requirements files; options are no pins."""
    text = "\n".join(line for line in path.read_text().splitlines() if not line.lstrip().startswith("#"))
    pins = []
    for entry in text.replace("\\\n", " ").splitlines():
        if entry.strip() and not entry.startswith("-"):
            head, *hashes = entry.split(" --hash=")
            requirement = Requirement(head.strip())
            version = str(requirement.specifier).removeprefix("==")
            pins.append(Pin(canonicalize_name(requirement.name), version, requirement.marker, len(hashes)))
    return pins


def applies(marker: Marker | None, python: str) -> bool:
    """Say whether a marker holds on this machine with that Python."""
    return marker is None or marker.evaluate({"python_version": python, "python_full_version": f"{python}.0"})


def problems_of(path: Path, pins: list[Pin], wanted: list[Requirement]) -> list[str]:
    """Return what is wrong with one lock, a sentence each."""
    found = [f"{path}: {pin.name} has no hash" for pin in pins if pin.hashes == 0]
    found += [
        f"{path}:{number}: names a host, an index or a path: {line.strip()}"
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if "/" in line or line.startswith("-")
    ]
    for requirement in wanted:
        for python in PYTHONS:
            if not applies(requirement.marker, python):
                continue
            versions = [
                pin.version
                for pin in pins
                if pin.name == canonicalize_name(requirement.name) and applies(pin.marker, python)
            ]
            if len(versions) != 1 or not requirement.specifier.contains(versions[0], prereleases=True):
                held = " and ".join(versions) or "nothing"
                found.append(f"{path}: Python {python} wants {requirement} and gets {held}")
    return found


def main() -> int:
    """Check all locks; return the exit code."""
    settings = tomllib.loads(Path("pyproject.toml").read_text())
    project, groups = settings["project"], settings["dependency-groups"]
    base = project["dependencies"]
    asked = {
        "requirements.lock": [*base, *project["optional-dependencies"]["speech"], *groups["dev"]],
        "requirements-runtime.lock": base,
        "requirements-tools.lock": groups["tools"],
    }
    locks = {name: read_lock(Path(name)) for name in asked}
    problems = [
        problem
        for name, wanted in asked.items()
        for problem in problems_of(Path(name), locks[name], [Requirement(text) for text in wanted])
    ]
    known = {(pin.name, pin.version, str(pin.marker)) for pin in locks["requirements.lock"]}
    problems += [
        f"requirements-runtime.lock: {pin.name} {pin.version} is not what requirements.lock has"
        for pin in locks["requirements-runtime.lock"]
        if (pin.name, pin.version, str(pin.marker)) not in known
    ]
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems:
        print("The locks do not fit pyproject.toml. Run: make lock", file=sys.stderr)
        return 1
    print(f"locks: {', '.join(f'{name} {len(pins)} pins' for name, pins in locks.items())}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
