"""The speech engines of the local upstream, installed into the environment of the Python that runs this.

    speech_engines.py [--stamp FILE]    install what requirements-speech.lock names, as far as it goes here
    speech_engines.py --must            the same, and fail where something is missing

Every engine comes as a wheel where there is one. pocketsphinx, which listens, has none for a Python that is newer than
its release (3.14 and later): it is built, with what requirements-speech-build.lock names, where there is a C compiler.
Where there is none, a sentence says what to do, and the rest works: the gateway runs, and the local upstream
speaks. `FILE` is written once nothing is left to try; it is not where the index cannot be reached, so that the next run
tries again.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import sysconfig
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from tool_cache import Say, ToolError, run

ROOT: Final = Path(__file__).resolve().parent.parent
LOCK: Final = ROOT / "requirements-speech.lock"
BUILD_LOCK: Final = ROOT / "requirements-speech-build.lock"
SPEAKS: Final = "espeakng-loader"
LISTENS: Final = "pocketsphinx"
HERE: Final = f"Python {sys.version_info.major}.{sys.version_info.minor}"
# The locks are complete: nothing is left to resolve, whatever has been published since.
INSTALL: Final = ("install", "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes")
ONLY_WHEELS: Final = ("--only-binary", ":all:")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--must", action="store_true")
    parser.add_argument("--stamp", type=Path)
    arguments = parser.parse_args()
    say = Say("speech engines")
    tried = install(say)
    left = missing()
    if left:
        say(what_is_lost(left))
    if tried and arguments.stamp:
        arguments.stamp.touch()
    return 1 if left and arguments.must else 0


def pins(lock: Path) -> dict[str, str]:
    """Return name → its entry in a lock (`name==version`, marker, hashes), in the order of the lock."""
    return {
        entry.partition("==")[0]: entry
        for entry in re.split(r"\n(?=[a-z])", re.sub(r"(?m)^\s*#.*\n", "", lock.read_text()))
        if "==" in entry
    }


def missing() -> list[str]:
    """Return the engines that are not installed as the lock has them."""
    return [name for name in (SPEAKS, LISTENS) if installed(name) != pinned(name)]


def pinned(name: str) -> str:
    return pins(LOCK)[name].split("==")[1].split()[0]


def installed(name: str) -> str | None:
    """Return the version that is installed, or None."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def install(say: Say) -> bool:
    """Install what can be had. Return False where it is worth trying again, since nothing could be fetched."""
    if not missing():
        return True
    try:
        pip(
            *INSTALL, *ONLY_WHEELS, "--requirement", str(LOCK), doing="installing the speech engines", say=say
        )
        return True
    except ToolError:
        pass
    # One by one, to tell a wheel that is not there from an index that is not.
    failed = {}
    for name, entry in pins(LOCK).items():
        try:
            pip_entry(entry, *ONLY_WHEELS, doing=f"installing {name}", say=say)
        except ToolError as exc:
            failed[name] = exc
    if len(failed) == len(pins(LOCK)):
        say(f"{failed[SPEAKS]}\nnone of them could be fetched; the next `make setup` tries again")
        return False
    for name, error in failed.items():
        if name != LISTENS:
            say(str(error))
    if LISTENS in failed:
        build(say)
    return True


def build(say: Say) -> None:
    """Build pocketsphinx, or say why not."""
    lacks = [
        what
        for what, there in (
            ("a C compiler", shutil.which(os.environ.get("CC", "cc"))),
            ("Python's headers", Path(sysconfig.get_path("include"), "Python.h").exists()),
        )
        if not there
    ]
    what = f"{LISTENS} {pinned(LISTENS)} has no wheel for {HERE} on this machine"
    if lacks:
        package = f"python{sys.version_info.major}.{sys.version_info.minor}-dev"
        say(
            f"{what}, and to build it, {' and '.join(lacks)} {'are' if len(lacks) > 1 else 'is'} missing. Install "
            f"{'them' if len(lacks) > 1 else 'it'} (on Debian or Ubuntu: apt install gcc {package}), then: make speech"
        )
        return
    say(f"{what}: building it, once (a minute or more)")
    try:
        with tempfile.TemporaryDirectory() as folder:
            tools, wheels = Path(folder, "tools"), Path(folder, "wheels")
            run([sys.executable, "-m", "venv", "--without-pip", tools], doing="making room", say=say)
            entry = Path(folder, "entry.txt")
            entry.write_text(pins(LOCK)[LISTENS])
            into = ("--python", str(tools))
            pip(*into, *INSTALL, "--requirement", str(BUILD_LOCK), doing="getting the build tools", say=say)
            # With the tools from the lock, not with those of today.
            making = ("wheel", "--quiet", "--no-deps", "--require-hashes", "--no-build-isolation")
            pip(
                *(*into, *making, "--wheel-dir", str(wheels), "--requirement", str(entry)),
                doing=f"building {LISTENS}",
                say=say,
                env={**os.environ, "PATH": f"{tools / 'bin'}{os.pathsep}{os.environ['PATH']}"},
            )
            (wheel,) = wheels.glob("*.whl")
            pip(
                "install",
                "--quiet",
                "--no-deps",
                "--no-index",
                str(wheel),
                doing=f"installing {LISTENS}",
                say=say,
            )
    except ToolError as exc:
        say(f"{exc}\n{LISTENS} could not be built. To try again: make speech")
    else:
        say(f"built ({say.minutes()})")


def what_is_lost(left: list[str]) -> str:
    """Say what does not work without these engines, and what to do instead."""
    lost = {
        (SPEAKS, LISTENS): "neither speaks nor listens",
        (SPEAKS,): "listens and cannot speak",
        (LISTENS,): "speaks and cannot listen",
    }[tuple(left)]
    ready_made = "Python 3.11 to 3.13 have ready-made engines: make PYTHON=python3.13 clean setup"
    return (
        f"without {' and '.join(left)}, the local upstream {lost}. Everything else works, and with SMALLEST_API_KEY "
        f"the real service does both. {ready_made if sys.version_info >= (3, 14) else 'To try again: make speech'}"
    )


def pip(*arguments: str, doing: str, say: Say, env: dict[str, str] | None = None) -> None:
    """Run pip to its end. Raises `ToolError`."""
    run([sys.executable, "-m", "pip", *arguments], doing=doing, say=say, env=env)


def pip_entry(entry: str, *arguments: str, doing: str, say: Say) -> None:
    """Install one entry of a lock. Raises `ToolError`."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(entry)
        file.flush()
        pip(*INSTALL, *arguments, "--requirement", file.name, doing=doing, say=say)


if __name__ == "__main__":
    sys.exit(main())
