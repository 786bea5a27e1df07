"""Prometheus and promtool for the tests of dashboards and alerts; nothing else needs them.

    prometheus.py path    print the folder that holds both

Taken from the PATH; else from the distribution's package, unpacked into the cache without installing it (Debian,
Ubuntu; seconds); else built from the Go module (about ten minutes).
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from tool_cache import GoProgram, Say, ToolError, from_package, go_programs

BINARIES: Final = ("prometheus", "promtool")
# What the rules and their tests ask for: `keep_firing_for`, and queries that say which series they read.
OLDEST: Final = (2, 42)
# v0.307.3 of the module is v3.7.3 of Prometheus.
MODULE: Final = GoProgram(
    name="prometheus",
    module="github.com/prometheus/prometheus",
    version="v0.307.3",
    checksum="h1:zGIN3EpiKacbMatcUL2i6wC26eRWXdoXfNPjoBc2l34=",
    go=(1, 24),
    packages={name: f"./cmd/{name}" for name in BINARIES},
    takes="about ten minutes on two cores, 4 GB of disk of which 260 MB stay",
)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("path",))
    parser.parse_args()
    say = Say("prometheus")
    try:
        print(on_path() or packaged(say) or go_programs(MODULE, say))
    except ToolError as exc:
        say(str(exc))
        return 1
    return 0


def on_path() -> Path | None:
    """The folder of the installed ones, where they are new enough."""
    found = shutil.which("prometheus")
    return Path(found).parent if found and works(Path(found).parent) else None


def packaged(say: Say) -> Path | None:
    """The folder of the distribution's, unpacked; None where there is no such package or it does not run here."""
    try:
        binaries = [f"usr/bin/{name}" for name in BINARIES]
        return from_package("prometheus", binaries, works, size="20 MB", say=say)
    except ToolError as exc:
        say(f"{exc}\ntrying its Go module")
        return None


def works(folder: Path) -> bool:
    """Both are there, run, and are new enough."""
    for name in BINARIES:
        try:
            asked = subprocess.run(  # noqa: S603 - asked for its version only
                [str(folder / name), "--version"], capture_output=True, text=True, timeout=60, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return False
        # Older ones print it on stderr.
        found = re.search(r"version (\d+)\.(\d+)", asked.stdout + asked.stderr)
        if found is None or (int(found[1]), int(found[2])) < OLDEST:
            return False
    return True


if __name__ == "__main__":
    sys.exit(main())
