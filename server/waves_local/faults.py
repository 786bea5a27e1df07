"""Scripted faults: what goes wrong, on which connection, and when.

A `Fault` is a value; `Faults` holds those in force and may be changed at any time, also for connections that
are open already. `FaultPlan` is the view of one connection: the connection tells it what happens and asks
it what to do.

The command line writes a fault as `KIND:ACTION[=VALUE][,KEY=VALUE]…`:

    tts:close=1011,after-frames=3          every TTS socket is closed with 1011 after three frames
    stt:drop,after-messages=10,nth=1       the first STT connection is reset after ten messages
    tts:refuse=503,retry-after=2,times=2   two handshakes are refused
    *:slow=0.2,every=3                     every third connection waits 0.2 s before each frame
    sse:bad-json,probability=0.5,seed=7    half of the SSE responses carry one broken frame
"""

from __future__ import annotations

import asyncio
import itertools
import random
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import msgspec

Kind = Literal["*", "tts", "stt", "sse", "tts-http", "stt-http", "voices"]

Action = Literal[
    "refuse",  # answer the handshake with `status`
    "hang",  # never answer the handshake
    "close",  # close with `code`; an HTTP response ends where it is
    "drop",  # reset the TCP connection
    "stall",  # send nothing more, keep reading
    "deaf",  # read nothing more, keep sending
    "vanish",  # send and read nothing more, answer no ping, do not close: a half-open socket
    "slow",  # wait `delay_s` before each frame
    "slow-read",  # wait `delay_s` before each message is read, pings as well
    "error",  # send an error frame with `body` as its message
    "bad-json",  # the frame is no JSON
    "bad-utf8",  # the frame is no UTF-8
    "bad-base64",  # the frame's audio is no base64
    "wrong-type",  # the frame's fields have other types than documented
    "unknown-frame",  # a frame of a kind that no document names goes before the frame
    "binary",  # the frame goes out as a binary one
    "duplicate",  # the frame goes out twice
    "empty-audio",  # the frame's audio is empty
]

HANDSHAKE_ACTIONS = frozenset({"refuse", "hang"})
CONNECTION_ACTIONS = frozenset({"close", "drop", "stall", "deaf", "vanish", "error"})


_NO_FRAME_ACTIONS = HANDSHAKE_ACTIONS | CONNECTION_ACTIONS | {"slow-read"}


class FaultSyntaxError(ValueError):
    """Raised when a fault cannot be read. The message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong.

    It concerns the connections of kind `on` that `nth`, `every` and `probability` choose, at most `times` of
    them. It strikes when all of `after_frames`, `after_bytes`, `after_messages` and `after_s` are reached, at
    once where all are 0: a `drop` with `after_frames=0` drops right after the handshake.
    """

    on: Kind
    do: Action
    nth: int = 0
    """Only the connection of that number of its kind, from 1. 0: any."""
    every: int = 0
    """Only each n-th connection of its kind. 0: any."""
    probability: float = 1.0
    """The share of connections concerned, drawn from `seed` and the connection's number."""
    seed: int = 0
    times: int = 0
    """How many connections are struck in all. 0: no limit."""
    after_frames: int = 0
    """Frames that the server has sent."""
    after_bytes: int = 0
    """Bytes of audio that went either way."""
    after_messages: int = 0
    """Messages that the client has sent."""
    after_s: float = 0.0
    """Seconds since the handshake."""
    frames: int = 1
    """How many frames or messages are damaged or delayed, from that point on. 0: all, the default of `slow` and
    `slow-read`."""
    status: int = 503
    retry_after_s: float | None = None
    body: str = ""
    code: int = 1011
    reason: str = ""
    delay_s: float = 0.0

    def __post_init__(self) -> None:
        if self.on not in get_args(Kind) or self.do not in get_args(Action):
            raise FaultSyntaxError(f"no such fault: {self.on}:{self.do}")
        for name in ("nth", "every", "times", "after_frames", "after_bytes", "after_messages", "frames"):
            if getattr(self, name) < 0:
                raise FaultSyntaxError(f"{name} must not be negative")
        if not 0.0 <= self.probability <= 1.0:
            raise FaultSyntaxError("probability must be from 0 to 1")
        if self.after_s < 0 or self.delay_s < 0:
            raise FaultSyntaxError("times must not be negative")
        if self.do == "refuse" and not 400 <= self.status <= 599:
            raise FaultSyntaxError("refuse needs a status from 400 to 599")
        if (self.do == "close" and not (1000 <= self.code <= 4999)) or self.code in {1004, 1005, 1006, 1015}:
            raise FaultSyntaxError("close needs a code from 1000 to 4999 that may be sent on the wire")

    @classmethod
    def parse(cls, spec: str) -> Fault:
        """Read the command line's form. Raises FaultSyntaxError."""
        kind, separator, rest = spec.strip().partition(":")
        if not separator:
            raise FaultSyntaxError(f"{spec!r} is not KIND:ACTION[=VALUE][,KEY=VALUE]…")
        first, *pairs = rest.split(",")
        action, _, value = first.partition("=")
        values: dict[str, Any] = {"on": kind.strip(), "do": action.strip()}
        if value:
            names = {
                "refuse": "status",
                "close": "code",
                "slow": "delay_s",
                "slow-read": "delay_s",
                "error": "body",
            }
            if action not in names:
                raise FaultSyntaxError(f"{action!r} takes no value: {spec!r}")
            values[names[action]] = value
        for pair in pairs:
            key, separator, value = pair.partition("=")
            name = _FIELD_OF_KEY.get(key.strip())
            if not separator or name is None:
                raise FaultSyntaxError(f"{pair!r} is none of {', '.join(sorted(_FIELD_OF_KEY))} with =VALUE")
            values[name] = value
        return cls.from_dict(values)

    @classmethod
    def from_dict(cls, values: Any) -> Fault:
        """Read field values, numbers as text too. Raises FaultSyntaxError."""
        if not isinstance(values, dict):
            raise FaultSyntaxError("a fault is a text or an object")
        if values.get("do") in {"slow", "slow-read"}:
            values = {"frames": 0, **values}
        for name, allowed in (("on", get_args(Kind)), ("do", get_args(Action))):
            if values.get(name) not in allowed:
                raise FaultSyntaxError(f"{values.get(name)!r} is none of {', '.join(allowed)}")
        try:
            return msgspec.convert(values, cls, strict=False)
        except msgspec.ValidationError as error:
            cause = error.__cause__ if isinstance(error.__cause__, FaultSyntaxError) else error
            raise FaultSyntaxError(str(cause)) from error

    def to_dict(self) -> dict[str, Any]:
        """The fields that differ from their defaults."""
        return {f.name: value for f in fields(self) if (value := getattr(self, f.name)) != f.default}

    def concerns(self, kind: str, number: int) -> bool:
        """Whether this connection is one of those chosen (`times` apart)."""
        if self.on not in {"*", kind}:
            return False
        if self.nth and number != self.nth:
            return False
        if self.every and number % self.every:
            return False
        if self.probability < 1.0:
            draw = random.Random(f"{self.seed}/{self.on}/{self.do}/{kind}/{number}").random()  # noqa: S311
            return draw < self.probability
        return True


_FIELD_OF_KEY = {
    **{f.name.replace("_", "-"): f.name for f in fields(Fault) if f.name not in {"on", "do"}},
    "retry-after": "retry_after_s",
    "after": "after_s",
    "delay": "delay_s",
}


class Faults:
    """The faults in force."""

    def __init__(self, faults: Iterable[Fault | str] = ()) -> None:
        self._ids = itertools.count(1)
        self._in_force: dict[int, Fault] = {}
        self._struck: dict[int, int] = {}
        self._plans: weakref.WeakSet[FaultPlan] = weakref.WeakSet()
        for fault in faults:
            self.add(fault)

    def add(self, fault: Fault | str) -> int:
        """Put a fault into force, also for open connections. Returns a number for `remove`."""
        if isinstance(fault, str):
            fault = Fault.parse(fault)
        number = next(self._ids)
        self._in_force[number] = fault
        self._changed()
        return number

    def remove(self, number: int) -> None:
        """Take one fault out of force. What it has done stays done. Unknown numbers are ignored."""
        self._in_force.pop(number, None)
        self._changed()

    def clear(self) -> None:
        """Take all faults out of force; stalled and deaf connections go on."""
        self._in_force.clear()
        self._changed()

    def struck(self, number: int) -> int:
        """How many connections the fault has struck."""
        return self._struck.get(number, 0)

    def plan(self, kind: str, number: int) -> FaultPlan:
        """The faults of one connection."""
        plan = FaultPlan(self, kind, number)
        self._plans.add(plan)
        return plan

    def items(self) -> Iterator[tuple[int, Fault]]:
        yield from tuple(self._in_force.items())

    def __len__(self) -> int:
        return len(self._in_force)

    def _changed(self) -> None:
        for plan in tuple(self._plans):
            plan._reload()

    def _may_strike(self, number: int) -> bool:
        fault = self._in_force.get(number)
        return fault is not None and not (fault.times and self.struck(number) >= fault.times)

    def _strikes(self, number: int) -> None:
        self._struck[number] = self.struck(number) + 1


class FaultPlan:
    """The faults of one connection, and how far it has come."""

    def __init__(self, faults: Faults, kind: str, number: int) -> None:
        self._faults = faults
        self._kind = kind
        self._number = number
        self._mine: dict[int, Fault] = {}
        self._spent: dict[int, int] = {}
        """Frames damaged so far, by fault; for those that act once, 1."""
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._opened_at_s: float | None = None
        self._act: Callable[[Fault], None] | None = None
        self._woken = asyncio.Event()
        self.frames_sent = 0
        self.audio_bytes = 0
        self.messages_received = 0
        self._reload()

    # --- the handshake

    def handshake(self) -> Fault | None:
        """The fault that meets the handshake, if any."""
        for number, fault in self._mine.items():
            if fault.do in HANDSHAKE_ACTIONS and self._faults._may_strike(number):
                self._faults._strikes(number)
                return fault
        return None

    def opened(self, act: Callable[[Fault], None]) -> None:
        """The handshake is done: from now on `act` is called with each connection fault that is due."""
        self._act = act
        self._opened_at_s = asyncio.get_running_loop().time()
        self._arm()
        self._check()

    def closed(self) -> None:
        """The connection is gone: nothing can strike it any more."""
        self._act = None
        self._opened_at_s = None
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._faults._plans.discard(self)
        self.wake()

    # --- what happens on the connection

    def received(self, audio_bytes: int = 0) -> None:
        """The client has sent a message."""
        self.messages_received += 1
        self.audio_bytes += audio_bytes
        if self._mine:
            self._check()

    def sent(self, audio_bytes: int = 0) -> None:
        """The server has sent a frame."""
        self.frames_sent += 1
        self.audio_bytes += audio_bytes
        if self._mine:
            self._check()

    def frame_faults(self) -> list[Fault]:
        """What happens to the frame that is about to be sent."""
        return self._due(lambda fault: fault.do not in _NO_FRAME_ACTIONS) if self._mine else []

    def reading_delay_s(self) -> float:
        """Seconds to wait before the next message is read."""
        return sum(f.delay_s for f in self._due(lambda f: f.do == "slow-read")) if self._mine else 0.0

    def _due(self, concerns: Callable[[Fault], bool]) -> list[Fault]:
        """The faults of frames or messages that meet the next one; each is counted."""
        due = []
        for number, fault in self._mine.items():
            if not concerns(fault) or not self._is_due(fault):
                continue
            spent = self._spent.get(number, 0)
            if fault.frames and spent >= fault.frames:
                continue
            if spent == 0:
                if not self._faults._may_strike(number):
                    continue
                self._faults._strikes(number)
            self._spent[number] = spent + 1
            due.append(fault)
        return due

    def in_force(self, *actions: Action) -> bool:
        """True while a lasting fault (`stall`, `deaf`, `vanish`) of one of these kinds has struck and stands."""
        return any(f.do in actions and self._spent.get(n) for n, f in self._mine.items())

    async def wait_while(self, *actions: Action, unless: Callable[[], bool]) -> None:
        """Wait as long as such a lasting fault stands. `unless` ends it too, once `wake` is called."""
        while self.in_force(*actions) and not unless():
            self._woken.clear()
            await self._woken.wait()

    def wake(self) -> None:
        """Let those who wait look again."""
        self._woken.set()

    # --- inside

    def _reload(self) -> None:
        self._mine = {n: f for n, f in self._faults.items() if f.concerns(self._kind, self._number)}
        for number in tuple(self._timers):
            if number not in self._mine:
                self._timers.pop(number).cancel()
        if self._opened_at_s is not None:
            self._arm()
            self._check()
        self.wake()

    def _is_due(self, fault: Fault) -> bool:
        if self._opened_at_s is None:
            return False
        return (
            self.frames_sent >= fault.after_frames
            and self.audio_bytes >= fault.after_bytes
            and self.messages_received >= fault.after_messages
            and (fault.after_s == 0 or asyncio.get_running_loop().time() - self._opened_at_s >= fault.after_s)
        )

    def _arm(self) -> None:
        assert self._opened_at_s is not None
        loop = asyncio.get_running_loop()
        for number, fault in self._mine.items():
            if fault.after_s and fault.do in CONNECTION_ACTIONS and number not in self._timers:
                # A hair later than asked, so that the clock has surely passed the point.
                at_s = self._opened_at_s + fault.after_s + 0.001
                self._timers[number] = loop.call_at(at_s, self._check)

    def _check(self) -> None:
        for number, fault in tuple(self._mine.items()):
            if fault.do not in CONNECTION_ACTIONS or self._spent.get(number) or self._act is None:
                continue
            if self._is_due(fault) and self._faults._may_strike(number):
                self._spent[number] = 1
                self._faults._strikes(number)
                self._act(fault)
