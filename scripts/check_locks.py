"""Check that the lock files are what pyproject.toml asks for. Needs no network.

Every requirement has a pin that meets it on each Python that is supported, those of the pinned packages too: so a lock
may be installed without resolving (`pip install --no-deps`). Every pin has hashes, the container's and the engines'
locks have the same pins as the developers', and nothing in a lock names a host, an index or a path.

The requirements of a pinned package are read where it is installed, in `.venv` and `.tools`. A pin that neither
holds, such as one for another Python, is checked itself, and named as not followed further.
"""

import sys
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PYTHONS = ("3.11", "3.12", "3.13", "3.14", "3.15")


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


def holds(marker: Marker | None, python: str, extra: str = "") -> bool:
    """True where a marker holds on this machine with that Python, for that extra of the package that asks."""
    here = {"python_version": python, "python_full_version": f"{python}.0", "extra": extra}
    return marker is None or marker.evaluate(here)


@dataclass(slots=True)
class Lock:
    """One lock, and what it has to answer for."""

    path: Path
    asked: list[Requirement]
    """What the project itself asks for."""
    installed: dict[str, Distribution]
    """Canonical name → the package, where one is installed."""
    pins: list[Pin] = field(init=False)
    not_followed: set[Pin] = field(init=False, default_factory=set)
    """Pins of packages whose own requirements are not known here."""

    def __post_init__(self) -> None:
        self.pins = read_lock(self.path)

    def problems(self) -> list[str]:
        """Return what is wrong with it, a sentence each."""
        found = [f"{self.path}: {pin.name} has no hash" for pin in self.pins if pin.hashes == 0]
        found += [
            f"{self.path}:{number}: names a host, an index or a path: {line.strip()}"
            for number, line in enumerate(self.path.read_text().splitlines(), 1)
            if "/" in line or line.startswith("-")
        ]
        for python in PYTHONS:
            found += self._unmet(python)
        return found

    def _unmet(self, python: str) -> list[str]:
        """Return each requirement, direct or not, that no pin meets on that Python."""
        found: list[str] = []
        todo = [("", requirement) for requirement in self.asked if holds(requirement.marker, python)]
        seen = set()
        while todo:
            whose, requirement = todo.pop()
            # "": the package itself. One that is asked for with extras has their requirements too.
            for extra in ("", *sorted(requirement.extras)):
                asked = (canonicalize_name(requirement.name), str(requirement.specifier), extra)
                if asked in seen:
                    continue
                seen.add(asked)
                pin = self._pin_for(requirement, python)
                if pin is None:
                    of = f" (for {whose})" if whose else ""
                    held = " and ".join(p.version for p in self._pins_of(requirement, python)) or "nothing"
                    found.append(f"{self.path}: Python {python} wants {requirement}{of} and gets {held}")
                    break
                todo += [(pin.name, further) for further in self._required_by(pin, python, extra)]
        return found

    def _pins_of(self, requirement: Requirement, python: str) -> list[Pin]:
        name = canonicalize_name(requirement.name)
        return [pin for pin in self.pins if pin.name == name and holds(pin.marker, python)]

    def _pin_for(self, requirement: Requirement, python: str) -> Pin | None:
        pins = self._pins_of(requirement, python)
        fits = len(pins) == 1 and requirement.specifier.contains(pins[0].version, prereleases=True)
        return pins[0] if fits else None

    def _required_by(self, pin: Pin, python: str, extra: str) -> Iterable[Requirement]:
        package = self.installed.get(pin.name)
        if package is None or package.version != pin.version:
            self.not_followed.add(pin)
            return
        for text in package.requires or ():
            requirement = Requirement(text)
            if holds(requirement.marker, python, extra):
                yield requirement


def installed_in(folder: Path) -> dict[str, Distribution]:
    """Return what a virtual environment holds: canonical name → package."""
    site_packages = [str(path) for path in folder.glob("lib/python3.*/site-packages")]
    return {canonicalize_name(package.name): package for package in distributions(path=site_packages)}


def main() -> int:
    """Check all locks; return the exit code."""
    settings = tomllib.loads(Path("pyproject.toml").read_text())
    project, groups = settings["project"], settings["dependency-groups"]
    venv, tools = installed_in(Path(".venv")), installed_in(Path(".tools"))
    base, speech = project["dependencies"], project["optional-dependencies"]["speech"]
    asked = {
        "": ([*base, *groups["dev"]], venv),
        "-runtime": (base, venv),
        "-speech": (speech, venv),
        "-speech-build": (groups["speech-build"], venv),
        "-tools": (groups["tools"], tools),
    }
    locks = {
        name: Lock(Path(f"requirements{name}.lock"), [Requirement(text) for text in wanted], installed)
        for name, (wanted, installed) in asked.items()
    }
    problems = [problem for lock in locks.values() for problem in lock.problems()]
    # Both go into the same environment as the developers' lock, or into one that is to behave like it.
    known = {(pin.name, str(pin.marker)): pin.version for pin in locks[""].pins}
    problems += [
        f"{lock.path}: {pin.name} {pin.version} is not what requirements.lock has"
        for lock in (locks["-runtime"], locks["-speech"])
        for pin in lock.pins
        if known.get((pin.name, str(pin.marker)), None if lock is locks["-runtime"] else pin.version)
        != pin.version
    ]
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems:
        print("The locks do not fit pyproject.toml. Run: make lock", file=sys.stderr)
        return 1
    print(f"locks: {', '.join(f'{lock.path} {len(lock.pins)} pins' for lock in locks.values())}")
    not_followed = sorted(
        {f"{pin.name} {pin.version}" for lock in locks.values() for pin in lock.not_followed}
    )
    print(f"not installed here, and so not followed further: {', '.join(not_followed) or 'none'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
