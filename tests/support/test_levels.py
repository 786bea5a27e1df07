"""A level is what it says."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest

from tests.support import levels

TESTS = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("path", "level"),
    [
        ("server/session/test_log.py", "unit"),
        ("server/session/test_transport.py", ""),
        ("server/waves/test_tts.py", "unit"),
        ("server/test_app.py", ""),
        ("e2e/test_drops.py", "e2e"),
    ],
)
def test_a_file_has_its_level_by_its_place(path: str, level: str) -> None:
    assert levels.level_of(PurePosixPath(path)) == level


@pytest.mark.parametrize("place", [*levels.UNIT, *levels.NOT_UNIT, *levels.E2E])
def test_each_place_exists(place: str) -> None:
    assert (TESTS / place).exists()


def test_what_is_started_and_opened_is_seen() -> None:
    with levels.watched() as found:
        socket.create_server(("127.0.0.1", 0)).close()
        subprocess.run([sys.executable, "--version"], check=True, capture_output=True)
        for one in socket.socketpair():
            one.close()
    assert [event.split()[0] for event in found] == ["socket.bind", "subprocess.Popen"]
