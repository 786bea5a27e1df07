"""A streaming call as a test drives it, and what is true of every one of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from wavegate.speech import v1

PATIENCE_S = 60.0
"""No answer takes this long; what waits longer hangs."""
TERMINAL = ("utterance_completed", "utterance_cancelled", "utterance_failed")


def seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9


@dataclass(frozen=True)
class Failure:
    """A status with its details unpacked; `code` is a `grpc.StatusCode`."""

    code: Any
    message: str = ""
    reason: str = ""
    violations: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    retry_s: float | None = None
    quota: str = ""

    @property
    def what(self) -> tuple[str, str]:
        """Code and reason by name: the row of the table of errors."""
        return self.code.name, self.reason


_CODES = {code.value[0]: code for code in grpc.StatusCode}


def failure(status: Any) -> Failure:
    """Unpack a `google.rpc.Status`, or the contract's copy of it."""
    parsed = status_pb2.Status.FromString(status.SerializeToString())
    found: dict[str, Any] = {}
    for detail in parsed.details:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            info = error_details_pb2.ErrorInfo.FromString(detail.value)
            assert info.domain == "wavegate.speech"
            found |= {"reason": info.reason, "metadata": dict(info.metadata)}
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            bad = error_details_pb2.BadRequest.FromString(detail.value)
            found["violations"] = {v.field: v.description for v in bad.field_violations}
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            found["retry_s"] = seconds(error_details_pb2.RetryInfo.FromString(detail.value).retry_delay)
        elif detail.Is(error_details_pb2.QuotaFailure.DESCRIPTOR):
            quota = error_details_pb2.QuotaFailure.FromString(detail.value)
            found["quota"] = quota.violations[0].subject
        else:
            raise AssertionError(f"an undocumented detail: {detail.type_url}")
    return Failure(_CODES[parsed.code], parsed.message, **found)


def failure_of_error(error: Any) -> Failure:
    """The status that a call ended with: of an `AioRpcError`, or of a call of the sync API."""
    trailers = dict(error.trailing_metadata() or ())
    details = trailers.get("grpc-status-details-bin")
    if details is None:
        return Failure(error.code(), error.details())
    found = failure(status_pb2.Status.FromString(details))
    assert found.code == error.code()
    return found


async def how_it_failed(call: Any) -> tuple[list[Any], grpc.aio.AioRpcError]:
    """What a call still says, read and never answered, and how it ends, which must not be well."""
    found = []
    try:
        async with asyncio.timeout(PATIENCE_S):
            while (response := await call.read()) is not grpc.aio.EOF:
                found.append(response)
    except grpc.aio.AioRpcError as exc:
        return found, exc
    raise AssertionError(f"the call ended well: {found[-1:]}")


async def failure_of(call: Any) -> Failure:
    """The status that a call of grpc.aio ended with; OK has neither reason nor message."""
    async with asyncio.timeout(PATIENCE_S):
        code = await call.code()
        if code is grpc.StatusCode.OK:
            return Failure(code)
        trailers = dict(await call.trailing_metadata() or ())
        details = trailers.get("grpc-status-details-bin")
        if details is None:
            return Failure(code, await call.details())
        found = failure(status_pb2.Status.FromString(details))
        assert found.code == code
        assert found.message == await call.details()
        return found


async def together(*checks: Coroutine[Any, Any, None]) -> None:
    """Run checks that mostly wait at the same time, each to its end; then raise what the first of them raised."""
    cases = [dict(check.cr_frame.f_locals) for check in checks]  # the arguments, since none has begun
    outcomes = await asyncio.gather(*checks, return_exceptions=True)
    for case, outcome in zip(cases, outcomes, strict=True):
        if isinstance(outcome, BaseException):
            outcome.add_note(f"case: {case!r:.300}")
            raise outcome


async def eventually(condition: Callable[[], object]) -> None:
    """Wait until something is so that nothing announces. Fails after `PATIENCE_S`."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


class Speaking:
    """One `SynthesizeStream` call. What it reads is kept in `got`, and checked against the contract at the end."""

    def __init__(self, call: Any) -> None:
        self.call = call
        self.got: list[Any] = []

    async def say(self, *requests: Any) -> Speaking:
        """Write requests."""
        async with asyncio.timeout(PATIENCE_S):
            for request in requests:
                await self.call.write(request)
        return self

    async def next(self) -> Any:
        """The next response; None at the end, also of a call that failed."""
        async with asyncio.timeout(PATIENCE_S):
            try:
                response = await self.call.read()
            except grpc.aio.AioRpcError:
                return None
        if response is grpc.aio.EOF:
            return None
        self.got.append(response)
        return response

    async def until(self, kind: str, **fields: Any) -> Any:
        """Read up to the first event of a kind whose fields have these values, and return it."""
        while (response := await self.next()) is not None:
            if response.WhichOneof("event") == kind:
                event = getattr(response, kind)
                if all(getattr(event, name) == value for name, value in fields.items()):
                    return event
        raise AssertionError(f"no {kind} came: {self.kinds()}; ended with {await failure_of(self.call)}")

    async def begin(self, *requests: Any) -> Any:
        """Write requests, then read `session_started`."""
        await self.say(*requests)
        return await self.until("session_started")

    async def end(self, *requests: Any, half_close: bool = True) -> Failure:
        """Write requests, half-close, read to the end, check it all; the status of the call."""
        await self.say(*requests)
        if half_close:
            async with asyncio.timeout(PATIENCE_S):
                await self.call.done_writing()
        return await self.rest()

    async def rest(self) -> Failure:
        """Read to the end and check it all; the status of the call."""
        while await self.next() is not None:
            pass
        status = await failure_of(self.call)
        check(self.got)
        assert self.kinds()[-1] == "session_ended", self.kinds()
        assert failure(self.got[-1].session_ended.status) == status
        return status

    # -- what came ------------------------------------------------------------------------------------------------

    def kinds(self) -> list[str]:
        """The kinds of events, runs of audio as one."""
        found: list[str] = []
        for response in self.got:
            kind = response.WhichOneof("event")
            if kind != "audio" or not found or found[-1] != "audio":
                found.append(kind)
        return found

    def all(self, kind: str) -> list[Any]:
        return [getattr(r, kind) for r in self.got if r.WhichOneof("event") == kind]

    def one(self, kind: str, utterance_id: str | None = None) -> Any:
        """The only event of a kind, of one utterance where that is given."""
        found = [e for e in self.all(kind) if utterance_id is None or e.utterance_id == utterance_id]
        assert len(found) == 1, (kind, utterance_id, found, self.kinds())
        return found[0]

    def audio(self, utterance_id: str | None = None) -> bytes:
        return b"".join(c.audio for c in self.all("audio") if utterance_id in (None, c.utterance_id))

    def warnings(self) -> list[str]:
        return [w.reason for w in self.all("warning")]

    @property
    def ended(self) -> Any:
        return self.one("session_ended")


def check(got: list[Any]) -> None:
    """What is true of the responses of every synthesis stream that was read to its end."""
    assert [r.sequence for r in got] == list(range(1, len(got) + 1)), "sequence has a gap"
    acknowledged = [r.acknowledged_input_sequence for r in got]
    assert acknowledged == sorted(acknowledged)
    kinds = [r.WhichOneof("event") for r in got]
    assert None not in kinds
    if kinds != ["session_ended"]:
        assert kinds[0] == "session_started"
        assert kinds.count("session_started") == 1
    assert "session_ended" not in kinds[:-1]
    started: list[str] = []
    over: dict[str, int] = {}
    chunks: dict[str, list[Any]] = {}
    words: dict[str, list[Any]] = {}
    speaking: str | None = None
    for place, response in enumerate(got):
        kind = response.WhichOneof("event")
        event = getattr(response, kind)
        utterance_id = getattr(event, "utterance_id", "")
        if kind == "utterance_started":
            assert utterance_id not in started
            assert speaking is None, "two utterances at a time"
            assert event.first_input_sequence >= 2
            assert event.settings_revision >= 1
            started.append(utterance_id)
            speaking = utterance_id
        elif kind in ("audio", "word_timings"):
            assert utterance_id in started, f"{kind} before utterance_started"
            assert utterance_id not in over, f"{kind} of {utterance_id} after its end"
            assert speaking == utterance_id
            (chunks if kind == "audio" else words).setdefault(utterance_id, []).append(event)
        elif kind in TERMINAL:
            assert utterance_id not in over, f"{utterance_id} ended twice"
            over[utterance_id] = place
            if speaking == utterance_id:
                speaking = None
            _check_metrics(kind, event, chunks.get(utterance_id, []))
    assert set(started) <= set(over), f"without an end: {set(started) - set(over)}"
    for utterance_id, found in chunks.items():
        assert [c.chunk_index for c in found] == list(range(len(found))), utterance_id
        offsets = [seconds(c.start_offset) for c in found]
        assert offsets == sorted(offsets)
        assert offsets[0] == 0.0
        assert all(c.audio for c in found)
    for utterance_id, events in words.items():
        times = [w for e in events for w in e.words]
        assert [w.word_index for w in times] == list(range(len(times))), utterance_id
        assert all(0 <= seconds(w.start_offset) <= seconds(w.end_offset) for w in times)
        starts = [seconds(w.start_offset) for w in times]
        assert starts == sorted(starts), utterance_id
    if kinds[-1] == "session_ended":
        usage = got[-1].session_ended.usage
        assert usage.utterance_count == len(over)
        assert usage.audio_bytes == sum(len(c.audio) for found in chunks.values() for c in found)


def _check_metrics(kind: str, event: Any, chunks: list[Any]) -> None:
    if kind == "utterance_failed":
        assert failure(event.error).reason
        assert failure(event.error).message
        return
    metrics = event.metrics
    assert metrics.chunk_count == len(chunks)
    assert metrics.audio_bytes == sum(len(c.audio) for c in chunks)
    assert metrics.HasField("total_duration")
    assert metrics.HasField("time_to_first_audio") == bool(chunks)
    if kind == "utterance_completed":
        assert metrics.HasField("upstream_time_to_first_audio") == bool(chunks)


# -- what is said -------------------------------------------------------------------------------------------------


def request(**fields: Any) -> Any:
    """A request of the stream with one input."""
    return v1.SynthesizeStreamRequest(**fields)


def cancel(utterance_id: str = "", heard_s: float | None = None) -> Any:
    message = v1.CancelUtterance(utterance_id=utterance_id)
    if heard_s is not None:
        message.playback_offset.FromNanoseconds(round(heard_s * 1e9))
    return request(cancel=message)


def flush(utterance_id: str = "") -> Any:
    return request(flush=v1.Flush(utterance_id=utterance_id))


def end_utterance(utterance_id: str = "") -> Any:
    return request(end_utterance=v1.EndUtterance(utterance_id=utterance_id))


def heard(utterance_id: str, seconds_: float) -> Any:
    report = v1.PlaybackReport(utterance_id=utterance_id)
    report.playback_offset.FromNanoseconds(round(seconds_ * 1e9))
    return request(playback=report)


def change(update_id: str = "", reset: Iterable[str] = (), **fields: Any) -> Any:
    """An in-band settings delta; keywords of the delta itself go by name, all others are settings."""
    own = {
        name: fields.pop(name)
        for name in ("apply_policy", "expected_revision", "validate_only")
        if name in fields
    }
    delta = v1.UpdateSynthesisSettings(update_id=update_id, settings=v1.SynthesisSettings(**fields), **own)
    delta.reset_mask.paths.extend(reset)
    return request(update_settings=delta)


DISCARD = request(end_session=v1.EndSession(discard=True))
