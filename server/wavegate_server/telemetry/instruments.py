"""Every metric: its name, unit, meaning, labels and buckets. One place; the names are OpenTelemetry's.

In Prometheus a name has underscores for dots and its unit at the end (`wavegate_first_audio_seconds`), and a
counter `_total`. Labels never hold text, ids of sessions or callers: their values are few. Those that callers put on
their sessions are added where the operator allows the key (`session_labels`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final


class Kind(Enum):
    """What an instrument does with its values."""

    COUNTER = auto()
    GAUGE = auto()
    """Read when somebody looks."""
    HISTOGRAM = auto()


@dataclass(frozen=True, slots=True, eq=False)
class Instrument:
    """One metric. `unit` is UCUM's: `s`, `By`, `{chunk}`, ..."""

    name: str
    kind: Kind
    unit: str
    description: str
    labels: tuple[str, ...] = ()
    """Attribute names, in the order in which their values are handed over."""
    buckets: tuple[float, ...] = ()
    of_session: bool = False
    """True where each value belongs to one session: it may carry that session's own labels; see `session_labels`."""
    known: tuple[tuple[str, ...], ...] = ()
    """Label values whose series are 0 from the start: who watches the rate of one that appears with its first event
    does not see that event."""


LATENCY_S: Final = (
    0.005,
    0.01,
    0.025,
    0.05,
    0.075,
    0.1,
    0.15,
    0.2,
    0.3,
    0.4,
    0.5,
    0.75,
    1.0,
    1.5,
    2.0,
    3.0,
    5.0,
    10.0,
)
"""From a local upstream to a turn that was given up; close together where people notice a difference."""
RESIDENCE_S: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
)  # fmt: skip
"""From what a chunk takes at best to what a slow reader makes it wait."""
CALL_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)

_C, _G, _H = Kind.COUNTER, Kind.GAUGE, Kind.HISTOGRAM
_KINDS: Final = (("tts",), ("stt",))

CALL_DURATION: Final = Instrument(
    "rpc.server.call.duration",
    _H,
    "s",
    "Duration of calls, streams included, by method and status.",
    ("rpc.method", "rpc.response.status_code"),
    CALL_S,
)
FIRST_AUDIO: Final = Instrument(
    "wavegate.first_audio",
    _H,
    "s",
    "From an utterance's first text to its first audio handed to the caller.",
    (),
    LATENCY_S,
    of_session=True,
)
UPSTREAM_FIRST_AUDIO: Final = Instrument(
    "wavegate.upstream.first_audio",
    _H,
    "s",
    "From an utterance's first text sent upstream to its first audio received from there.",
    (),
    LATENCY_S,
    of_session=True,
)
FINALIZE_LATENCY: Final = Instrument(
    "wavegate.finalize.latency",
    _H,
    "s",
    "From a caller's finalize to the final transcript that answers it.",
    (),
    LATENCY_S,
    of_session=True,
)
TIME_TO_FINAL: Final = Instrument(
    "wavegate.time_to_final",
    _H,
    "s",
    "From the reception of the last audio that a final transcript covers to that transcript.",
    (),
    LATENCY_S,
    of_session=True,
)
CHUNK_RESIDENCE: Final = Instrument(
    "wavegate.chunk.residence",
    _H,
    "s",
    "From a chunk's bytes received to its bytes handed on.",
    ("kind", "direction"),
    RESIDENCE_S,
    known=(("tts", "in"), ("tts", "out"), ("stt", "in"), ("stt", "out")),
)
CLIENT_WAIT: Final = Instrument(
    "wavegate.client.wait",
    _H,
    "s",
    "How long the caller's transport took to take a chunk.",
    ("kind",),
    RESIDENCE_S,
    known=(("tts",),),
)
LOOP_LAG: Final = Instrument(
    "wavegate.loop.lag", _H, "s", "How late the gateway's event loop runs.", (), RESIDENCE_S
)
SESSIONS_ACTIVE: Final = Instrument("wavegate.sessions.active", _G, "{session}", "Live sessions.", ("kind",))
SLOTS_USED: Final = Instrument(
    "wavegate.account.slots.used", _G, "{request}", "Active requests of the account.", ("account",)
)
SLOTS_LIMIT: Final = Instrument(
    "wavegate.account.slots.limit", _G, "{request}", "Active requests that it may have; 0: any.", ("account",)
)
SLOTS_WAITING: Final = Instrument(
    "wavegate.account.slots.waiting", _G, "{request}", "Requests that wait for a slot.", ("account",)
)
SOCKETS_USED: Final = Instrument(
    "wavegate.account.sockets.used", _G, "{connection}", "Connections of the account.", ("account",)
)
SOCKETS_LIMIT: Final = Instrument(
    "wavegate.account.sockets.limit",
    _G,
    "{connection}",
    "Connections that it may have; 0: any.",
    ("account",),
)
ADMISSION_WAIT: Final = Instrument(
    "wavegate.admission.wait",
    _H,
    "s",
    "How long an utterance waited for the account.",
    (),
    LATENCY_S,
    of_session=True,
)
UPSTREAM_CONNECT: Final = Instrument(
    "wavegate.upstream.connect",
    _H,
    "s",
    "How long an upstream connection took to open.",
    ("kind",),
    LATENCY_S,
    known=_KINDS,
    of_session=True,
)
RECONNECTS: Final = Instrument(
    "wavegate.reconnects",
    _C,
    "{reconnect}",
    "Upstream connections that replaced another, by why.",
    ("kind", "reason"),
    of_session=True,
)
UTTERANCES: Final = Instrument(
    "wavegate.utterances",
    _C,
    "{utterance}",
    "Utterances that ended, by how.",
    ("outcome",),
    known=(("completed",), ("cancelled",), ("failed",)),
    of_session=True,
)
BARGE_IN: Final = Instrument(
    "wavegate.barge_in",
    _H,
    "s",
    "From a caller's cancel to the event that says so handed over.",
    (),
    RESIDENCE_S,
    of_session=True,
)
AUDIO_BYTES: Final = Instrument(
    "wavegate.audio.size",
    _C,
    "By",
    "Audio received from callers or handed to them.",
    ("kind", "direction"),
    known=(("tts", "out"), ("stt", "in")),
    of_session=True,
)
AUDIO_SECONDS: Final = Instrument(
    "wavegate.audio.duration",
    _C,
    "s",
    "Playing time of that audio.",
    ("kind",),
    known=_KINDS,
    of_session=True,
)
CHARACTERS: Final = Instrument(
    "wavegate.characters", _C, "{character}", "Characters of text received.", of_session=True
)
LATE_AUDIO: Final = Instrument(
    "wavegate.audio.late",
    _C,
    "s",
    "Playing time that an upstream sent for utterances after their end was reported. Anything but 0 is speech cut off.",
)
ERRORS: Final = Instrument(
    "wavegate.errors", _C, "{error}", "Calls and utterances that failed, by reason.", ("reason",)
)
TRACE_SPANS: Final = Instrument(
    "wavegate.trace.spans",
    _C,
    "{span}",
    "Spans by what became of them: produced = sent + dropped, once all is settled.",
    ("outcome",),
    known=(("produced",), ("sent",), ("dropped",)),
)

ALL: Final = tuple(value for value in globals().values() if isinstance(value, Instrument))
