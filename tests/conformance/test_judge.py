"""The judge itself: a driver that does something wrong is red where it is wrong, and hangs nobody."""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from wavegate.speech import v1

from clients.conformance import scenarios
from clients.conformance.drivers import python as python_driver
from clients.conformance.judge import process, script
from clients.conformance.judge.matrix import as_markdown, as_text
from clients.conformance.judge.messages import Wrong, event_of, message_of, problem_of_status
from clients.conformance.judge.runner import Cell, judge
from clients.conformance.judge.script import ALL
from clients.conformance.judge.world import World

REPOSITORY = Path(__file__).resolve().parents[2]
README = (REPOSITORY / "clients/conformance/README.md").read_text()
SHORT = [
    "speak/whole-text",
    "settings/refused",
    "errors/refused-start",
    "listen/whole",
    "resume/meanwhile",
]
SPOKEN = ["speak/whole-text", "settings/refused", "resume/meanwhile"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world() -> AsyncIterator[World]:
    async with World() as world:
        yield world


async def judged(world: World, what: str, names: list[str]) -> dict[str, Cell]:
    command = [sys.executable, "tests/conformance/wrong_driver.py", what]
    cells = await judge("wrong", command, [ALL[name] for name in names], world, jobs=1)
    return {cell.scenario: cell for cell in cells}


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("what", "red", "says"),
    [
        ("nothing", [], ""),
        ("lose-audio", SPOKEN, "chunk_index|what was heard"),
        ("double-audio", SPOKEN, "chunk_index|what was heard"),
        ("swap-audio", SPOKEN, "chunk_index|what was heard"),
        ("no-details", ["settings/refused", "errors/refused-start"], "fields"),
        ("one-kind", ["settings/refused", "errors/refused-start"], "wanted: INVALID_REQUEST"),
        ("no-resumed", ["resume/meanwhile"], "resumed"),
        ("stubborn", ["resume/meanwhile"], "CONNECTION_LOST"),
        ("garbage", SHORT, "not in the protocol.*|it said"),
        ("crashing", SPOKEN, "ended with 3"),
        ("leaking", [*SPOKEN, "listen/whole"], "left behind"),
    ],
)  # fmt: skip
async def test_what_is_wrong_is_red_and_the_rest_is_not(
    world: World, what: str, red: list[str], says: str
) -> None:
    cells = await judged(world, what, SHORT)
    assert sorted(name for name, cell in cells.items() if cell.state == "FAIL") == sorted(red)
    for name in red:
        assert re.search(says, cells[name].what), cells[name].what


@pytest.mark.asyncio(loop_scope="module")
async def test_a_driver_that_says_nothing_does_not_hang_the_judge(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "ANSWER_WITHIN_S", 2.0)
    monkeypatch.setattr(script, "PATIENCE_S", 2.0)
    cells = await judged(world, "silent", ["speak/whole-text", "listen/whole"])
    assert cells["speak/whole-text"].what.startswith("wait was not answered within 2 s")
    assert cells["listen/whole"].state == "pass"
    cells = await judged(world, "no-events", ["listen/whole", "errors/refused-start"])
    assert cells["errors/refused-start"].state == "pass"
    assert cells["listen/whole"].state == "FAIL"
    monkeypatch.setattr(process, "QUIT_WITHIN_S", 1.0)
    cells = await judged(world, "clinging", ["errors/refused-start"])
    assert cells["errors/refused-start"].state == "pass"
    assert cells["quit"].state == "FAIL"


@pytest.mark.asyncio(loop_scope="module")
async def test_a_driver_that_cancels_nothing(world: World) -> None:
    cells = await judged(world, "deaf", ["cancel/all", "speak/whole-text"])
    assert "wanted: 'utterance_cancelled'" in cells["cancel/all"].what
    assert cells["speak/whole-text"].state == "pass"


@pytest.mark.asyncio(loop_scope="module")
async def test_what_a_client_has_not_is_no_failure_and_no_pass(world: World) -> None:
    cells = await judged(world, "poor", ["listen/whole", "speak/whole-text"])
    assert cells["listen/whole"].state == "not implemented"
    assert cells["speak/whole-text"].state == "pass"


@pytest.mark.asyncio(loop_scope="module")
async def test_the_last_words_of_a_driver_are_told(world: World) -> None:
    cells = await judged(world, "crashing", ["speak/whole-text"])
    assert "stderr: something terrible has happened" in cells["speak/whole-text"].what


@pytest.mark.asyncio(loop_scope="module")
async def test_a_command_that_is_none(world: World) -> None:
    cells = await judge("none", ["/no/such/driver"], [ALL["speak/whole-text"]], world)
    assert "cannot be started" in cells[0].what
    broken = [sys.executable, "-c", "import sys; sys.exit('no such library')"]
    cells = await judge("broken", broken, [ALL["speak/whole-text"]], world)
    assert "while it had to answer hello: it ended with 1\n  stderr: no such library" in cells[0].what


def test_the_table() -> None:
    cells = [Cell("a", "x/y", "pass"), Cell("b", "x/y", "FAIL", "no"), Cell("a", "x/z", "not implemented")]
    assert as_text(cells).splitlines() == ["scenario  a     b", "x/y       pass  FAIL", "x/z       -"]
    assert as_markdown(cells).splitlines() == [
        "| scenario | a | b |",
        "| --- | --- | --- |",
        "| `x/y` | ✓ | **✗** |",
        "| `x/z` | – |  |",
    ]


class TestMessages:
    def test_either_case_is_read(self) -> None:
        one = event_of({"utterance_completed": {"utterance_id": "u", "metrics": {"audio_bytes": "7"}}})
        other = event_of({"utteranceCompleted": {"utteranceId": "u", "metrics": {"audioBytes": 7}}})
        assert one == other
        assert one.message.metrics.audio_bytes == 7

    def test_an_error_object_is_as_good_as_a_status(self) -> None:
        said = {
            "kind": "CAPACITY",
            "code": "RESOURCE_EXHAUSTED",
            "reason": "CALLER_QUOTA",
            "message": "too many",
            "retry_delay": 1.5,
            "quota_violations": [{"subject": "caller", "description": "1 session"}],
        }
        base = "type.googleapis.com/google.rpc."
        status = {
            "code": 8,
            "message": "too many",
            "details": [
                {"@type": base + "ErrorInfo", "reason": "CALLER_QUOTA", "domain": "wavegate.speech"},
                {"@type": base + "RetryInfo", "retryDelay": "1.5s"},
                {
                    "@type": base + "QuotaFailure",
                    "violations": [{"subject": "caller", "description": "1 session"}],
                },
                {"@type": "type.googleapis.com/some.newer.Detail", "value": 1},
            ],
        }
        one, other = (
            event_of({"utterance_failed": {"utterance_id": "u", "error": error}}) for error in (said, status)
        )
        assert problem_of_status(one.message.error) == problem_of_status(other.message.error)
        assert problem_of_status(one.message.error).retry_delay == 1.5

    @pytest.mark.parametrize(
        "line", [{}, {"audio": 7}, {"audio": {"chunk_index": "x"}}, {"novelty": {}}, "audio", None]
    )
    def test_what_is_no_event_is_said_to_be_none(self, line: object) -> None:
        with pytest.raises(Wrong):
            event_of(line)

    def test_new_fields_are_passed_over(self) -> None:
        assert message_of({"utterance_id": "u", "novelty": 1}, v1.UtteranceStarted).utterance_id == "u"


def test_every_command_of_the_protocol_is_used_and_known_to_the_python_driver() -> None:
    table = README[README.index("| `do` |") : README.index("## Events")]
    rows = re.findall(r"^\| (`[a-z_`, ]+`) \|", table, re.MULTILINE)
    commands = {command for row in rows for command in re.findall(r"`(\w+)`", row)} - {"do"}
    assert len(commands) > 30
    code = "".join(
        path.read_text()
        for path in (REPOSITORY / "clients/conformance").rglob("*.py")
        if path.parent.name != "drivers"
    )
    assert {c for c in commands if f'"{c}"' not in code} == set()
    assert {c for c in commands if not hasattr(python_driver.Driver, f"do_{c}")} == set()


def test_every_reason_of_the_errors_page_is_judged() -> None:
    page = (REPOSITORY / "docs/errors.md").read_text()
    rows = re.findall(r"^\| `([A-Z_]+)` \| `([A-Z_]+)` \|", page, re.MULTILINE)
    assert dict(rows) == {reason: code for reason, (code, _) in scenarios.REASONS.items()}


def test_every_scenario_says_what_is_so() -> None:
    assert len(ALL) > 100
    assert [name for name, scenario in ALL.items() if len(scenario.what) < 25] == []


def test_the_page_shows_every_scenario() -> None:
    page = (REPOSITORY / "docs" / "clients.md").read_text().partition("## What each client does")[2]
    rows = re.findall(r"^\| `([a-z0-9/-]+)` \|", page, re.MULTILINE)
    assert rows == sorted(ALL), "write it anew: make conformance, --markdown"
