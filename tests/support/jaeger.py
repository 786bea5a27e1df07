"""The Jaeger of `make jaeger` on ports of its own, and its query API as tests ask it.

Its calls block: where a session of this process has to go on meanwhile, `asyncio.to_thread(jaeger.wait_for_trace, …)`.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from tests.support import tools


@dataclass(frozen=True, slots=True)
class JaegerSpan:
    """One span as Jaeger tells it. Times are microseconds since 1970."""

    trace_id: str
    span_id: str
    parent_id: str
    """Empty for the root of its trace."""
    name: str
    start_us: int
    duration_us: int
    tags: dict[str, Any]
    links: tuple[tuple[str, str], ...]
    """Trace and span id of what it is linked to."""
    events: tuple[dict[str, Any], ...]
    process: dict[str, Any]
    """The resource: `service.name` under `service`, and its attributes."""
    warnings: tuple[str, ...]

    @property
    def kind(self) -> str:
        """`server`, `client`, `producer`, `consumer`; empty for an internal one."""
        return str(self.tags.get("span.kind", ""))

    @property
    def end_us(self) -> int:
        return self.start_us + self.duration_us


@dataclass(frozen=True, slots=True)
class JaegerTrace:
    """The spans that Jaeger has of a trace so far."""

    trace_id: str
    spans: tuple[JaegerSpan, ...]

    def named(self, name: str) -> list[JaegerSpan]:
        """The spans of that name, oldest first."""
        return sorted((s for s in self.spans if s.name == name), key=lambda s: s.start_us)

    def one(self, name: str) -> JaegerSpan:
        (found,) = self.named(name)
        return found

    def children(self, parent: JaegerSpan) -> list[JaegerSpan]:
        return sorted((s for s in self.spans if s.parent_id == parent.span_id), key=lambda s: s.start_us)

    def roots(self) -> list[JaegerSpan]:
        """Spans whose parent is not here: one, where the trace is whole and began here."""
        ids = {s.span_id for s in self.spans}
        return [s for s in self.spans if s.parent_id not in ids]

    def outline(self) -> str:
        """The tree in words, for a test that failed."""

        def lines(span: JaegerSpan, depth: int) -> Iterator[str]:
            yield f"{'  ' * depth}{span.name} [{span.kind or 'internal'}] {span.duration_us} us {span.tags}"
            for child in self.children(span):
                yield from lines(child, depth + 1)

        return "\n".join(line for root in self.roots() for line in lines(root, 0))


class Jaeger:
    """A Jaeger that runs. `otlp_grpc` and `otlp_http` are what `OTEL_EXPORTER_OTLP_ENDPOINT` is set to."""

    def __init__(self, otlp_grpc_port: int, otlp_http_port: int, ui_port: int) -> None:
        self.otlp_grpc = f"http://127.0.0.1:{otlp_grpc_port}"
        self.otlp_http = f"http://127.0.0.1:{otlp_http_port}"
        self.url = f"http://127.0.0.1:{ui_port}"
        self._http = httpx.Client(base_url=self.url, timeout=30, trust_env=False)

    def services(self) -> list[str]:
        return list(self._get("services"))

    def trace(self, trace_id: str) -> JaegerTrace | None:
        """None where it knows none of that id."""
        found = self._get(f"traces/{trace_id}")
        return _trace(found[0]) if found else None

    def traces(self, service: str, tags: str = "", limit: int = 100) -> list[JaegerTrace]:
        """The newest of a service within the last hour. `tags`: JSON, as the search page sends it."""
        params = {"service": service, "limit": str(limit), "lookback": "1h"}
        return [_trace(t) for t in self._get("traces", **params, **({"tags": tags} if tags else {}))]

    def wait_for_trace(
        self, trace_id: str, holds: Callable[[JaegerTrace], bool], patience_s: float = 30.0
    ) -> JaegerTrace:
        """The trace, once `holds` says that all of it is there."""

        def asked() -> list[JaegerTrace]:
            found = self.trace(trace_id)
            return [] if found is None else [found]

        return _wait(asked, holds, f"trace {trace_id}", patience_s)

    def wait_for_trace_of(
        self, service: str, holds: Callable[[JaegerTrace], bool], patience_s: float = 30.0
    ) -> JaegerTrace:
        """The newest trace of a service for which `holds` does."""
        return _wait(lambda: self.traces(service), holds, f"a trace of {service}", patience_s)

    def _get(self, path: str, **params: str) -> list[Any]:
        answer = self._http.get(f"/api/{path}", params=params)
        if answer.status_code == 404:
            return []
        assert answer.status_code == 200, f"{answer.url}: {answer.status_code} {answer.text}"
        return answer.json()["data"] or []


@contextmanager
def running_jaeger() -> Iterator[Jaeger]:
    """Start `scripts/jaeger.py run`, which builds it first where it must. Fails where it cannot."""
    grpc_port, http_port, ui_port, query_grpc_port = tools.free_ports(4)
    environment = {
        **os.environ,
        "JAEGER_OTLP_GRPC_PORT": str(grpc_port),
        "JAEGER_OTLP_HTTP_PORT": str(http_port),
        "JAEGER_UI_PORT": str(ui_port),
        "JAEGER_QUERY_GRPC_PORT": str(query_grpc_port),
    }
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            tools.script("jaeger.py", "run"),
            stdout=log,
            stderr=log,
            env=environment,
            stdin=subprocess.DEVNULL,
        )

        def ready() -> bool:
            if process.poll() is not None:
                log.seek(0)
                raise AssertionError(f"there is no Jaeger to test against:\n{log.read()}")
            return all(map(tools.listens, (grpc_port, http_port, ui_port)))

        try:
            tools.wait_until(ready, "Jaeger listens", tools.BUILD_PATIENCE_S)
            yield Jaeger(grpc_port, http_port, ui_port)
        finally:
            process.terminate()
            process.wait(30)


def _wait(
    asked: Callable[[], list[JaegerTrace]],
    holds: Callable[[JaegerTrace], bool],
    what: str,
    patience_s: float,
) -> JaegerTrace:
    deadline = time.monotonic() + patience_s
    while True:
        found = asked()
        for trace in found:
            if holds(trace):
                return trace
        assert time.monotonic() < deadline, (
            f"Jaeger has not shown {what} as it was waited for within {patience_s:g} s; it shows\n"
            + ("\n".join(trace.outline() for trace in found) or "nothing")
        )
        time.sleep(0.1)


def _trace(told: dict[str, Any]) -> JaegerTrace:
    return JaegerTrace(
        told["traceID"], tuple(_span(s, told["processes"][s["processID"]]) for s in told["spans"])
    )


def _span(told: dict[str, Any], process: dict[str, Any]) -> JaegerSpan:
    references = told.get("references") or []
    parents = [
        r["spanID"] for r in references if r["refType"] == "CHILD_OF" and r["traceID"] == told["traceID"]
    ]
    return JaegerSpan(
        trace_id=told["traceID"],
        span_id=told["spanID"],
        parent_id=parents[0] if parents else "",
        name=told["operationName"],
        start_us=told["startTime"],
        duration_us=told["duration"],
        tags=_tags(told["tags"]),
        links=tuple((r["traceID"], r["spanID"]) for r in references if r["refType"] == "FOLLOWS_FROM"),
        events=tuple(_tags(entry["fields"]) for entry in told.get("logs") or []),
        process={"service": process["serviceName"], **_tags(process["tags"])},
        warnings=tuple(told.get("warnings") or ()),
    )


def _tags(told: list[dict[str, Any]]) -> dict[str, Any]:
    return {tag["key"]: tag["value"] for tag in told}
