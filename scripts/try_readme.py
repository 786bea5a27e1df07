"""Type what README.md says, as it stands there: in a fresh clone, with an empty home, from nothing to speech.

    try_readme.py [CHECKOUT]    the last commit of CHECKOUT (this one)

The commands and the Python program are read from the README, so that they stay true: `make run` from "Run it" serves,
the block of "Speak and listen" speaks and listens to it, the program of "Python" runs. Only the ports are others, by
the environment, since somebody may have the usual ones.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import wave
from pathlib import Path
from typing import Final

PATIENCE_S: Final = 15 * 60
"""For the set-up with all its downloads, on a machine that does other things too."""
STOP_S: Final = 60


class NotTrue(Exception):
    """Raised where what the README says did not happen; the sentence says what."""


def main() -> int:
    checkout = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent).resolve()
    with tempfile.TemporaryDirectory(prefix="wavegate-readme-") as folder:
        try:
            try_readme(checkout, Path(folder))
        except NotTrue as exc:
            print(f"README: {exc}", file=sys.stderr)
            return 1
    return 0


def block_of(readme: str, heading: str, language: str = "") -> str:
    """Return the first block of code below a heading. Raises `NotTrue` where there is none."""
    section = re.search(rf"^## {re.escape(heading)}$(.*?)(?=^## |\Z)", readme, re.M | re.S)
    found = section and re.search(rf"^```{language}\n(.*?)^```$", section[1], re.M | re.S)
    if not found:
        raise NotTrue(f"there is no block of code below {heading!r}")
    return found[1]


def try_readme(checkout: Path, folder: Path) -> None:
    """Do what the README says, in `folder`. Raises `NotTrue`."""
    clone, home = folder / "clone", folder / "home"
    home.mkdir()
    git = shutil.which("git") or "git"
    subprocess.run([git, "clone", "--quiet", "--no-hardlinks", str(checkout), str(clone)], check=True)  # noqa: S603
    readme = (clone / "README.md").read_text(encoding="utf-8")
    serve = block_of(readme, "Run it").strip()
    speak = block_of(readme, "Speak and listen: the command line")
    program = block_of(readme, "Python", "python")
    environment = a_newcomers(home)

    print(f"== $ {serve}", flush=True)
    log = folder / "serve.log"
    with log.open("w") as out:
        server = subprocess.Popen(  # noqa: S603
            ["bash", "-c", serve],  # noqa: S607 - the README's words, for the shell of its readers
            cwd=clone,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            banner = wait_for_banner(server, log)
            print(banner, flush=True)
            try_it = re.search(r"Try it: (.+)", banner)
            if try_it is None:
                raise NotTrue("the banner shows no command to type")
            activate, _, commands = speak.partition("\n")
            typed(f"{activate}\n{try_it[1]} -o first.wav", clone, environment)
            if "cannot listen" in banner:
                # Without the recognizer the README's other commands cannot work here, and the banner said so.
                commands = "\n".join(
                    line for line in commands.splitlines() if line.startswith("wavegate say")
                )
            said = typed(f"{activate}\n{commands}", clone, environment)
            typed(f"{activate}\npython - <<'PROGRAM'\n{program}PROGRAM", clone, environment)
        except BaseException:
            print(log.read_text()[-4000:], file=sys.stderr)
            raise
        finally:
            in_time = stopped(server)
    if not in_time:
        raise NotTrue(f"the server did not end within {STOP_S} s of its interrupt")
    if "Traceback" in log.read_text():
        raise NotTrue(f"the server did not end in peace:\n{log.read_text()[-4000:]}")
    for name in ("first.wav", "hello.wav"):
        check_audio(clone / name)
    if "wavegate listen" in commands and "hello" not in said.lower():
        raise NotTrue("what was spoken was not understood: there is no 'hello' in what was heard")
    print("README: its commands work from a fresh clone with an empty home")


def a_newcomers(home: Path) -> dict[str, str]:
    """This environment, without what is set up for wavegate or kept at home, and with ports of its own."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(
            ("WAVEGATE_", "WAVES_LOCAL_", "SMALLEST_", "OTEL_", "XDG_", "MAKE", "COVERAGE_")
        )
        and name not in {"VIRTUAL_ENV", "MFLAGS", "ARGS"}
    }
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    own = {"HOME": str(home), "WAVEGATE_METRICS_LISTEN": "off"}
    return {**kept, **own, "WAVEGATE_LISTEN": address, "WAVEGATE_TARGET": address}


def wait_for_banner(server: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + PATIENCE_S
    while "Try it: " not in (printed := log.read_text()) or not printed.endswith("\n"):
        if server.poll() is not None:
            raise NotTrue(f"the server ended with {server.returncode} before it served")
        if time.monotonic() > deadline:
            raise NotTrue(f"it did not serve within {PATIENCE_S} s")
        time.sleep(0.2)
    return printed


def typed(commands: str, folder: Path, environment: dict[str, str]) -> str:
    """Run commands as one shell session that stops at the first that fails; return what they printed."""
    print(re.sub(r"^", "== $ ", commands.strip(), flags=re.M), flush=True)
    done = subprocess.run(  # noqa: S603
        ["bash", "-ec", commands],  # noqa: S607
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    print(done.stdout, end="", flush=True)
    if done.returncode != 0:
        raise NotTrue(f"a command ended with {done.returncode}")
    return done.stdout


def stopped(server: subprocess.Popen[bytes]) -> bool:
    """Interrupt it as Ctrl-C does, the whole group. True once it has ended, False where force was needed."""
    if server.poll() is None:
        os.killpg(server.pid, signal.SIGINT)
    try:
        # make and the shell say that they were interrupted, by their own codes.
        server.wait(STOP_S)
    except subprocess.TimeoutExpired:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
        return False
    return True


def check_audio(path: Path) -> None:
    if not path.exists():
        raise NotTrue(f"{path.name} was not written")
    with wave.open(str(path)) as audio:
        seconds = audio.getnframes() / audio.getframerate()
        samples = memoryview(audio.readframes(audio.getnframes())).cast("h")
    if seconds < 0.3 or max(map(abs, samples)) < 1000:
        raise NotTrue(f"{path.name} holds no speech: {seconds:.2f} s, at most {max(map(abs, samples))}")


if __name__ == "__main__":
    sys.exit(main())
