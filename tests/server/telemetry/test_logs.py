"""Log lines: their ids, their formats, and what they never show."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from wavegate_server.telemetry import logs

KEY = "sk_live_0123456789abcdef"


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """`configure` is for a whole process; give it back as it was."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    levels = {name: logging.getLogger(name).level for name in (*logs._LOUD, "wavegate_server")}
    secrets = list(logs._secrets)
    structlog.contextvars.clear_contextvars()
    yield
    structlog.contextvars.clear_contextvars()
    logs._secrets[:] = secrets
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, number in levels.items():
        logging.getLogger(name).setLevel(number)


@pytest.fixture
def out() -> io.StringIO:
    return io.StringIO()


def lines(out: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_json_lines_carry_message_level_logger_time_and_fields(out: io.StringIO) -> None:
    logs.configure("json", "info", out)
    logging.getLogger("wavegate_server.x").info("call %s", "ended", extra={"code": "OK"})
    (line,) = lines(out)
    assert line.pop("timestamp").endswith("Z")
    assert line == {"message": "call ended", "level": "info", "logger": "wavegate_server.x", "code": "OK"}


def test_text_lines_are_for_people(out: io.StringIO) -> None:
    logs.configure("text", "info", out)
    logging.getLogger("wavegate_server.x").warning("careful", extra={"code": "OK"})
    assert "warning" in out.getvalue()
    assert "careful" in out.getvalue()
    assert "code=OK" in out.getvalue()
    assert "\x1b" not in out.getvalue(), "no colours where there is no terminal"


async def test_every_line_of_a_call_and_its_tasks_has_its_ids(out: io.StringIO) -> None:
    logs.configure("json", "info", out)
    logger = logging.getLogger("wavegate_server.x")

    async def helper() -> None:
        logger.info("inner")

    async def call(number: str) -> None:
        logs.bind(trace_id=f"trace-{number}", span_id=f"span-{number}")
        await asyncio.sleep(0)
        logs.bind(session_id=f"session-{number}", empty="")
        await asyncio.create_task(helper())

    await asyncio.gather(*(asyncio.create_task(call(str(n))) for n in range(3)))
    logger.info("outer")
    found = lines(out)
    assert sorted((x["trace_id"], x["span_id"], x["session_id"]) for x in found[:3]) == [
        (f"trace-{n}", f"span-{n}", f"session-{n}") for n in range(3)
    ]
    assert found[3].keys() & {"trace_id", "span_id", "session_id"} == set()
    assert "empty" not in out.getvalue()


def test_the_level_holds_and_loud_libraries_stay_quiet(out: io.StringIO) -> None:
    logs.configure("json", "debug", out)
    logging.getLogger("wavegate_server.x").debug("ours")
    for name in ("websockets.client", "httpx", "httpcore.http11", "grpc._cython.cygrpc", "aiohttp.access"):
        logging.getLogger(name).debug("> Authorization: Bearer %s", KEY)
        logging.getLogger(name).info("theirs")
    assert [line["message"] for line in lines(out)] == ["ours"]
    logs.configure("json", "error", out)
    logging.getLogger("websockets").warning("not that either")
    assert len(lines(out)) == 1


@pytest.mark.parametrize("style", ["text", "json"])
@pytest.mark.parametrize(
    "words",
    [
        f"Authorization: Bearer {KEY}",
        f"> authorization: {KEY}",
        f"{{'Authorization': 'Bearer {KEY}'}}",
        f'{{\'headers\': {{"x-api-key": "{KEY}"}}}}',
        f"(('authorization', 'Bearer {KEY}'), ('user-agent', 'x'))",
        f"GET /x?api_key={KEY}&model=y",
        f"api key {KEY} was refused",
        "Authorization: Bearer any-other-kind-of-token/+=",
        "token=any-other-kind-of-token",
    ],
)
def test_credentials_never_appear(out: io.StringIO, style: str, words: str) -> None:
    logs.configure(style, "info", out)
    logging.getLogger("wavegate_server.x").info(words)
    assert KEY not in out.getvalue()
    assert "any-other" not in out.getvalue()
    assert "[hidden]" in out.getvalue()
    if style == "json":
        lines(out)  # still JSON


def test_fields_and_tracebacks_are_no_way_around(out: io.StringIO) -> None:
    logs.configure("json", "info", out)
    logger = logging.getLogger("wavegate_server.x")
    logger.info("connecting", extra={"headers": {"Authorization": f"Bearer {KEY}"}})
    try:
        raise ValueError(f"refused: authorization: Bearer {KEY}")
    except ValueError:
        logger.exception("failed")
    assert KEY not in out.getvalue()
    assert "ValueError" in out.getvalue()


def test_tracebacks_show_no_variables(out: io.StringIO) -> None:
    """Those hold text, audio and keys."""
    logs.configure("text", "info", out)

    def work(text: str) -> None:
        local = text * 2
        raise ValueError(len(local))

    try:
        work("what the caller said ")
    except ValueError:
        logging.getLogger("wavegate_server.x").exception("failed")
    assert "ValueError: 42" in out.getvalue()
    assert "what the caller said what" not in out.getvalue()


def test_a_secret_that_looks_like_nothing_is_hidden_by_name(out: io.StringIO) -> None:
    logs.configure("json", "info", out)
    logs.hide("correct-horse-battery")
    logs.hide("")
    logging.getLogger("wavegate_server.x").info("got correct-horse-battery from a file")
    assert [line["message"] for line in lines(out)] == ["got [hidden] from a file"]


@pytest.mark.parametrize(
    "words",
    [
        "the token is not known here; check it",
        "read the tokens file /etc/tokens again",
        "3 tokens, 200 characters",
        "max tokens: 5",
        "the bearer of bad news",
    ],
)
def test_ordinary_words_stay(out: io.StringIO, words: str) -> None:
    logs.configure("json", "info", out)
    logging.getLogger("wavegate_server.x").info(words)
    assert lines(out)[0]["message"] == words
