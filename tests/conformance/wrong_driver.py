"""The driver of the Python client with one thing wrong: what the judge has to find.

python tests/conformance/wrong_driver.py WHAT
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
_spec = importlib.util.spec_from_file_location(
    "python_driver", REPOSITORY / "clients/conformance/drivers/python.py"
)
assert _spec is not None
assert _spec.loader is not None
right = importlib.util.module_from_spec(_spec)
sys.modules["python_driver"] = right
_spec.loader.exec_module(right)
right.LEAKS_END_WITHIN_S = 0.5


class Wrong(right.Driver):  # type: ignore[name-defined,misc]
    """Passes each line that goes to the judge through `line`, which may change it, or take it away."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def line(self, line: dict[str, Any]) -> list[dict[str, Any]]:
        return [line]

    def say(self, **line: Any) -> None:
        for one in self.line(line):
            super().say(**one)


def _audio(line: dict[str, Any]) -> Any:
    return line.get("event", {}).get("audio")


def _change(change: Callable[[Wrong, dict[str, Any]], list[dict[str, Any]]]) -> type[Wrong]:
    return type("Changed", (Wrong,), {"line": change})


def _lose_audio(self: Wrong, line: dict[str, Any]) -> list[dict[str, Any]]:
    self.count += bool(_audio(line))
    return [] if _audio(line) and self.count == 5 else [line]


def _double_audio(self: Wrong, line: dict[str, Any]) -> list[dict[str, Any]]:
    self.count += bool(_audio(line))
    return [line, line] if _audio(line) and self.count == 5 else [line]


def _swap_audio(self: Wrong, line: dict[str, Any]) -> list[dict[str, Any]]:
    if _audio(line):
        self.count += 1
        if self.count == 5:
            self.held = line
            return []
        if self.count == 6:
            return [line, self.held]
    return [line]


def _no_details(self: Wrong, line: dict[str, Any]) -> list[dict[str, Any]]:
    if "error" in line:
        line["error"].pop("retry_delay", None)
        line["error"].pop("field_violations", None)
    return [line]


def _one_kind(self: Wrong, line: dict[str, Any]) -> list[dict[str, Any]]:
    if "error" in line:
        line["error"]["kind"] = "OTHER"
    return [line]


def _no_events(self: Wrong, line: dict[str, Any]) -> list[dict[str, Any]]:
    return [] if "event" in line else [line]


def _garbage(self: Wrong, line: dict[str, Any]) -> list[dict[str, Any]]:
    self.count += 1
    if self.count == 4:
        sys.stdout.write("Starting up, please wait\n")
    return [line]


def _no_resumed(self: Wrong, line: dict[str, Any]) -> list[dict[str, Any]]:
    return [] if "session_resumed" in line.get("event", {}) else [line]


class Silent(Wrong):
    """Never answers what waits for an utterance."""

    async def do_wait(self, **_: Any) -> dict[str, Any]:
        await asyncio.Event().wait()
        return {}


class Crashing(Wrong):
    """Ends in the middle."""

    async def do_say(self, **_: Any) -> dict[str, Any]:
        sys.stderr.write("something terrible has happened\n")
        sys.stderr.flush()
        os._exit(3)


class Leaking(Wrong):
    """Leaves a task behind with each session."""

    async def do_end(self, session: str) -> None:
        self.leak = asyncio.create_task(asyncio.Event().wait())
        await super().do_end(session)


class Stubborn(Wrong):
    """Does not resume and does not move."""

    async def do_open_synthesis(self, **arguments: Any) -> Any:
        return await super().do_open_synthesis(**{**arguments, "resume_window": 0, "move": False})


class Deaf(Wrong):
    """Cancels nothing."""

    async def do_cancel(self, **_: Any) -> None:
        return


class Poor(Wrong):
    """Has no transcription."""

    async def do_open_transcription(self, **_: Any) -> Any:
        raise right.NotImplementedHere("open_transcription")


class Clinging(Wrong):
    """Does not end."""

    async def do_quit(self) -> None:
        await asyncio.Event().wait()


WRONGS: dict[str, type[Wrong]] = {
    "nothing": Wrong,
    "lose-audio": _change(_lose_audio),
    "double-audio": _change(_double_audio),
    "swap-audio": _change(_swap_audio),
    "no-details": _change(_no_details),
    "one-kind": _change(_one_kind),
    "no-events": _change(_no_events),
    "garbage": _change(_garbage),
    "no-resumed": _change(_no_resumed),
    "silent": Silent,
    "crashing": Crashing,
    "leaking": Leaking,
    "stubborn": Stubborn,
    "deaf": Deaf,
    "poor": Poor,
    "clinging": Clinging,
}

if __name__ == "__main__":
    asyncio.run(WRONGS[sys.argv[1]]().run())
