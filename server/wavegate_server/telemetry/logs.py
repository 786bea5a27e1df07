"""Logging: text for people or JSON for machines, to stderr, with the ids of the call and session on each line.

Modules log with the standard `logging`; `extra={...}` becomes fields of the line. What `bind` was told stands
on every line of the current task and of the tasks that it starts. No line shows a key: whatever looks like a
credential, and every secret that `hide` was told, is blanked in the finished line, tracebacks included.
"""

from __future__ import annotations

import logging
import re
import sys
from typing import Any, Final, TextIO

import structlog
from structlog.typing import Processor

_HIDDEN: Final = "[hidden]"
_VALUE: Final = r"""((?!\[hidden\])[^\s"'\\,;&)}\]]{6,})"""
_CREDENTIALS: Final = (
    # Authorization: Bearer x; authorization='x'; "x-api-key": "x"; ('authorization', 'Bearer x'); api_key=x
    re.compile(
        r"""((?:authorization|api[-_ ]?key|token|secret)\\?["']?\s*[:=,]\s*\(?\\?["']?(?:bearer\s+)?)"""
        + _VALUE,
        re.IGNORECASE,
    ),
    re.compile(r"(\bbearer\s+)" + _VALUE, re.IGNORECASE),
    re.compile(r"()(\bsk_[A-Za-z0-9_-]{8,})"),
)
_secrets: list[str] = []
"""The longest first: one may be a part of another."""

# Their DEBUG lines are for those who develop them; those of `websockets` and `grpc` show headers.
_LOUD: Final = (
    "aiohttp",
    "asyncio",
    "grpc",
    "httpcore",
    "httpx",
    "opentelemetry",
    "urllib3",
    "websockets",
)


def bind(**fields: str) -> None:
    """Put fields on every line of this task, and of the tasks that it starts from now on. Empty ones are left
    out."""
    structlog.contextvars.bind_contextvars(**{name: value for name, value in fields.items() if value})


def hide(secret: str) -> None:
    """Never show this string in a log line."""
    if (
        len(secret) >= 4 and secret not in _secrets
    ):  # shorter ones would blank half of every line, for nothing
        _secrets.append(secret)
        _secrets.sort(key=len, reverse=True)


def redact(line: str) -> str:
    """`line` without what looks like a credential and without hidden secrets."""
    for secret in _secrets:
        line = line.replace(secret, _HIDDEN)
    for pattern in _CREDENTIALS:
        line = pattern.sub(rf"\g<1>{_HIDDEN}", line)
    return line


class _Formatter(structlog.stdlib.ProcessorFormatter):
    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


def configure(style: str, level: str, stream: TextIO | None = None) -> None:
    """Send all logging of this process to `stream` (None: stderr) from now on.

    `style` is `text` or `json`; `level` is `debug`, `info`, `warning` or `error`.
    """
    out = stream if stream is not None else sys.stderr
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    render: list[Any]
    if style == "json":
        render = [
            structlog.processors.format_exc_info,
            structlog.processors.EventRenamer("message"),
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ]
    else:
        render = [
            structlog.dev.ConsoleRenderer(
                colors=out.isatty(),
                # The richer ones print local variables: text, audio and keys.
                exception_formatter=structlog.dev.plain_traceback,
            )
        ]
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        _Formatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    number = logging.getLevelNamesMapping()[level.upper()]
    root.setLevel(number)
    for name in _LOUD:
        logging.getLogger(name).setLevel(max(number, logging.WARNING))
