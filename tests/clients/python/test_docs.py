"""Every program in docs/python-client.md is complete and runs."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.clients.python.fake_gateway import FakeGateway

PAGE = Path(__file__).parents[3] / "docs" / "python-client.md"
PROGRAMS = re.findall(r"^(#+ [^\n]+)$|^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def programs() -> list[tuple[str, str]]:
    found, heading = [], ""
    for title, program in PROGRAMS:
        heading = title.lstrip("# ") or heading
        if program:
            found.append((heading, program))
    return found


@pytest.mark.parametrize(("heading", "program"), programs(), ids=[heading for heading, _ in programs()])
def test_runs(
    heading: str,
    program: str,
    threaded_gateway: FakeGateway,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("WAVEGATE_TARGET", threaded_gateway.target)
    monkeypatch.chdir(tmp_path)
    soundfile.write("hello.wav", np.zeros(8000), 8000)
    exec(compile(program, f"{PAGE.name}: {heading}", "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out, "each shows something"


def test_the_page_has_programs() -> None:
    assert len(programs()) >= 9
