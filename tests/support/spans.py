"""Spans as the gateway records them, without a collector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span, Status
from wavegate_server.telemetry.otel import OtelTelemetry
from wavegate_server.telemetry.tracer import Knobs

from tests.support.collector import attributes

METHOD = "wavegate.speech.v1.SynthesisService/SynthesizeStream"


@dataclass(frozen=True)
class Recorded:
    """One span that has ended."""

    raw: Span
    attributes: dict[str, Any]

    @property
    def name(self) -> str:
        return self.raw.name

    @property
    def kind(self) -> str:
        return Span.SpanKind.Name(self.raw.kind).removeprefix("SPAN_KIND_")

    @property
    def trace_id(self) -> str:
        return self.raw.trace_id.hex()

    @property
    def span_id(self) -> str:
        return self.raw.span_id.hex()

    @property
    def parent_id(self) -> str:
        return self.raw.parent_span_id.hex()

    @property
    def error(self) -> str | None:
        """`error.type` of one that failed."""
        if self.raw.status.code != Status.STATUS_CODE_ERROR:
            return None
        return str(self.attributes["error.type"])

    @property
    def links(self) -> set[tuple[str, str]]:
        return {(link.trace_id.hex(), link.span_id.hex()) for link in self.raw.links}


class Recording:
    """A telemetry that keeps what it is told, and a call to begin with."""

    def __init__(self, method: str = METHOD, metadata: Any = (), **knobs: Any) -> None:
        self.telemetry = OtelTelemetry("1", knobs=Knobs(**knobs))
        self.call = self.telemetry.server_span(method, metadata)

    @property
    def options(self) -> dict[str, Any]:
        """For a session's context."""
        return {"telemetry": self.telemetry, "span": self.call}

    @property
    def raw(self) -> bytes:
        self.telemetry.tracer.flush()
        return b"".join(span for _, span in self.telemetry.tracer.recent)

    @property
    def spans(self) -> list[Recorded]:
        """Those that have ended, in that order."""
        return [Recorded(s, attributes(s.attributes)) for s in ScopeSpans.FromString(self.raw).spans]

    def named(self, name: str) -> list[Recorded]:
        """Spans by name; a model may follow it."""
        return [s for s in self.spans if s.name == name or s.name.startswith(f"{name} ")]

    def one(self, name: str) -> Recorded:
        (found,) = self.named(name)
        return found

    def chunks(self, direction: str, below: Recorded | None = None) -> list[Recorded]:
        return [s for s in self.named(f"chunk.{direction}") if below is None or s.parent_id == below.span_id]

    def outline(self) -> list[str]:
        """The tree, a span a line, chunks of one parent and kind in one, siblings in the order of their ends."""
        spans = self.spans
        ids = {s.span_id for s in spans}

        def lines(parent: str, depth: int) -> list[str]:
            said: list[str] = []
            for span in spans:
                if span.parent_id != parent and not (not parent and span.parent_id not in ids):
                    continue
                said += [f"{'  ' * depth}{span.name}", *lines(span.span_id, depth + 1)]
            return [line for n, line in enumerate(said) if "chunk." not in line or line not in said[:n]]

        return lines("", 0)
