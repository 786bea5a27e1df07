"""Spans from Jaeger's query API."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any, Final, cast

from wavegate._target import is_loopback_host
from wavegate.cli import trace_names as names
from wavegate.traces import SpanKind, TraceSpan

DEFAULT_URL: Final = "http://127.0.0.1:16686"
KNOCK_S: Final = 0.3
"""How long one may take that nobody asked for."""
TIMEOUT_S: Final = 30.0
LOOK_BACK_S: Final = 7 * 24 * 3600
MAX_TRACES: Final = 100


class JaegerError(Exception):
    """Raised when there is no Jaeger, or it does not answer as one; the text says so."""


class Jaeger:
    """The query API of a Jaeger at `url`, such as `http://127.0.0.1:16686`. Its methods block."""

    def __init__(self, url: str) -> None:
        """Raises `JaegerError` for what is no URL."""
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise JaegerError(f"{url!r} is no URL of a Jaeger: write http://HOST:16686")
        self.url = url.rstrip("/")
        # A proxy of the environment does not lead to this machine.
        proxies: dict[str, str] | None = {} if is_loopback_host(parts.hostname) else None
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler(proxies))

    def services(self, timeout_s: float = TIMEOUT_S) -> list[str]:
        """Who sends spans to it. Raises `JaegerError`."""
        return [str(name) for name in self._get("services", timeout_s)]

    def trace(self, trace_id: str) -> list[TraceSpan]:
        """The spans of a trace; none where it knows none. Raises `JaegerError`."""
        return _spans(self._get(f"traces/{trace_id}"))

    def session(self, session_id: str) -> list[TraceSpan]:
        """The spans of all traces of a session, of the last seven days. Raises `JaegerError`."""
        now_us = time.time_ns() // 1000
        found: dict[tuple[str, str], TraceSpan] = {}
        for service in self.services():
            query = {
                "service": service,
                "tags": json.dumps({names.SESSION_ID: session_id}),
                "start": str(now_us - LOOK_BACK_S * 10**6),
                "end": str(now_us + 60 * 10**6),
                "limit": str(MAX_TRACES),
            }
            traces = self._get(f"traces?{urllib.parse.urlencode(query)}")
            found |= {(span.trace_id, span.span_id): span for span in _spans(traces)}
        return list(found.values())

    def _get(self, path: str, timeout_s: float = TIMEOUT_S) -> list[Any]:
        try:
            with self._opener.open(f"{self.url}/api/{path}", timeout=timeout_s) as answer:
                data = json.load(answer)["data"]
        except urllib.error.HTTPError as exc:
            if exc.code == 404:
                return []
            raise JaegerError(f"Jaeger at {self.url} answers {exc.code} {exc.reason}") from exc
        except OSError as exc:
            why = getattr(exc, "reason", None) or exc
            raise JaegerError(f"there is no Jaeger at {self.url}: {why}") from exc
        except (ValueError, KeyError, TypeError) as exc:
            raise JaegerError(f"what answers at {self.url} is no Jaeger") from exc
        return data if isinstance(data, list) else []


def _spans(traces: list[Any]) -> list[TraceSpan]:
    try:
        return [_span(told) for trace in traces for told in trace["spans"]]
    except (KeyError, TypeError, AttributeError) as exc:
        raise JaegerError("what answers is no Jaeger: its spans cannot be read") from exc


def _span(told: dict[str, Any]) -> TraceSpan:
    tags = {tag["key"]: tag["value"] for tag in told.get("tags") or []}
    references = told.get("references") or []
    parents = [
        r["spanID"] for r in references if r["refType"] == "CHILD_OF" and r["traceID"] == told["traceID"]
    ]
    start_ns = round(told["startTime"]) * 1000
    kind = str(tags.pop("span.kind", "internal")).upper()
    fields = tags.get(names.UPDATE_FIELDS)
    if isinstance(fields, str) and fields.startswith("["):
        tags[names.UPDATE_FIELDS] = json.loads(fields)  # Jaeger knows no lists
    return TraceSpan(
        trace_id=told["traceID"],
        span_id=told["spanID"],
        parent_id=parents[0] if parents else "",
        name=told["operationName"],
        kind=cast(SpanKind, kind),
        start_ns=start_ns,
        end_ns=start_ns + round(told["duration"]) * 1000,
        attributes=tags,
        failed=tags.get("error") is True or tags.get("otel.status_code") == "ERROR",
        error_message=str(tags.get("otel.status_description") or ""),
        links=tuple((r["traceID"], r["spanID"]) for r in references if r["refType"] == "FOLLOWS_FROM"),
    )
