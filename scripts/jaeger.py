"""A real Jaeger on this machine: the one on the PATH, else a container, else one built from its Go module.

    jaeger.py path    print the binary's path, building it first where it has to be (once, about ten minutes)
    jaeger.py run     run it in the foreground until Ctrl-C
    jaeger.py get     have what `run` needs at hand: pull the image, or build

`run` listens on 127.0.0.1 alone. The ports are set by the environment: JAEGER_OTLP_GRPC_PORT (4317),
JAEGER_OTLP_HTTP_PORT (4318), JAEGER_UI_PORT (16686, the query API as well), JAEGER_QUERY_GRPC_PORT (16685);
JAEGER_MAX_TRACES (500) bounds its memory.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Final

import tool_cache
from tool_cache import GoProgram, Say, ToolError, go_programs

CONFIG: Final = Path(__file__).resolve().parent.parent / "deploy" / "jaeger.yaml"
# v1.76.0 of the module is v2.13.0 of Jaeger: both are released from one tree, and cmd/jaeger is the second.
VERSION: Final = "2.13.0"
MODULE: Final = GoProgram(
    name="jaeger",
    module="github.com/jaegertracing/jaeger",
    version="v1.76.0",
    checksum="h1:sWCOOF1dr+NL0PLil7mFo3BqqQL8k4WiM7aguFbc14g=",
    go=(1, 24, 6),
    packages={"jaeger": "./cmd/jaeger"},
    takes="about ten minutes on two cores, 3 GB of memory, 5 GB of disk of which 85 MB stay",
    ldflags=f"-s -w -X github.com/jaegertracing/jaeger/internal/version.latestVersion=v{VERSION}",
)
IMAGE: Final = f"docker.io/jaegertracing/jaeger:{VERSION}"
PORTS: Final = {
    "JAEGER_OTLP_GRPC_PORT": 4317,
    "JAEGER_OTLP_HTTP_PORT": 4318,
    "JAEGER_UI_PORT": 16686,
    "JAEGER_QUERY_GRPC_PORT": 16685,
}
NO_UI: Final = (
    "its Go module holds no web pages, and they are not on npm: the address shows a placeholder. The API behind it "
    "works, and `wavegate trace` draws. With a container engine, or a release of Jaeger "
    f"{VERSION} on the PATH, the pages are there."
)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("path", "run", "get"))
    arguments = parser.parse_args()
    say = Say("jaeger")
    try:
        if arguments.what == "run":
            return run(say)
        container = engine() if arguments.what == "get" and on_path() is None else None
        if container:
            tool_cache.run([container, "pull", "--quiet", IMAGE], doing=f"pulling {IMAGE}", say=say)
        else:
            print(on_path() or built(say))
        return 0
    except ToolError as exc:
        say(str(exc))
        return 1
    except KeyboardInterrupt:
        return 130


def on_path() -> Path | None:
    """A Jaeger 2 on the PATH. Jaeger 1 has other arguments; it is passed over."""
    found = shutil.which("jaeger")
    if found is None:
        return None
    try:
        asked = subprocess.run(  # noqa: S603 - asked for its version only
            [found, "version"], capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return Path(found) if '"v2.' in asked.stdout else None


def built(say: Say) -> Path:
    """The one that is built from the Go module. Raises `ToolError`."""
    return go_programs(MODULE, say) / "jaeger"


def engine() -> str | None:
    """A container engine that answers."""
    for name in ("docker", "podman"):
        found = shutil.which(name)
        if found is None:
            continue
        try:
            asked = subprocess.run([found, "info"], capture_output=True, timeout=20, check=False)  # noqa: S603
        except (OSError, subprocess.TimeoutExpired):
            continue
        if asked.returncode == 0:
            return found
    return None


def run(say: Say) -> int:
    """Become Jaeger. Returns only where it is a container that has ended."""
    ports = {name: port_of(name, default) for name, default in PORTS.items()}
    for name, port in ports.items():
        check_free(name, port)
    said = {name: str(port) for name, port in ports.items()}
    # It would trace itself, and send that to the default port of all collectors.
    environment = {"OTEL_TRACES_SAMPLER": "always_off", **os.environ, "JAEGER_HOST": "127.0.0.1", **said}
    found = on_path()
    container = None if found else engine()
    if container:
        command = container_command(container, ports)
        note = ""
    else:
        binary = found or built(say)
        command = [str(binary), "--config", str(CONFIG)]
        note = "" if found else NO_UI
    say(f"traces are shown at http://127.0.0.1:{ports['JAEGER_UI_PORT']} (Ctrl-C ends it, and they are gone)")
    if note:
        say(note)
    say(f"OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:{ports['JAEGER_OTLP_GRPC_PORT']} make run")
    os.execve(command[0], command, environment)  # noqa: S606 - signals go to it without a middleman


def container_command(container: str, ports: dict[str, int]) -> list[str]:
    """Its ports inside are those outside: its environment says both."""
    command = [container, "run", "--rm", "--init"]
    command += ["--env", "JAEGER_HOST=0.0.0.0", "--env", "JAEGER_MAX_TRACES", "--env", "JAEGER_LOG_LEVEL"]
    command += ["--env", "OTEL_TRACES_SAMPLER"]
    for name, port in ports.items():
        command += ["--env", name, "--publish", f"127.0.0.1:{port}:{port}"]
    return [*command, "--volume", f"{CONFIG}:/etc/jaeger.yaml:ro,z", IMAGE, "--config", "/etc/jaeger.yaml"]


def port_of(name: str, default: int) -> int:
    said = os.environ.get(name, "")
    if not said:
        return default
    if not said.isdecimal() or not 0 < int(said) < 65536:
        raise ToolError(f"{name} must be a port, got {said!r}")
    return int(said)


def check_free(name: str, port: int) -> None:
    """Better said here than in the middle of Jaeger's start."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as exc:
            raise ToolError(
                f"port {port} is taken ({exc.strerror}); is a Jaeger running already? Else set {name}."
            ) from exc


if __name__ == "__main__":
    sys.exit(main())
