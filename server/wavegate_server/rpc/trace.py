"""What happens around every call: who is calling, its SERVER span, its status.

One interceptor does it for all methods of the contract, so that a servicer only converts and delegates:

- The caller is checked before the first message is looked at (`rpc/auth.py`). Health checks are open to all.
- A SERVER span lives as long as the call and says how it truly ended: a caller that cancels is CANCELLED, not
  OK. The contrib instrumentation cannot do this for handlers that read and write.
- An exception that a servicer raises becomes the call's status (`rpc/status.py`); what nobody expected becomes
  GATEWAY_BUG, with its text in the log only.
- A request that is no valid message, or one of a stream that is too large, comes out of `context.read()` as
  `errors.InvalidInput`.

Handlers are coroutines: async generators and plain functions are refused at start.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from wavegate.speech.v1 import synthesis_service_pb2, transcription_service_pb2, types_pb2

from wavegate_server import errors
from wavegate_server.errors import WavegateError
from wavegate_server.rpc import status
from wavegate_server.rpc.auth import ANONYMOUS, Authenticator, peer_name
from wavegate_server.telemetry import Span, Telemetry, instruments, logs, names

logger = logging.getLogger(__name__)

PACKAGE: Final = "wavegate.speech.v1."
CONTROL: Final = PACKAGE + "SessionService/"
"""Calls about sessions: a stopping gateway does not wait for them."""
_LAST_WORDS: Final = {
    PACKAGE + "SynthesisService/SynthesizeStream": synthesis_service_pb2.SynthesizeStreamResponse,
    PACKAGE + "TranscriptionService/TranscribeStream": transcription_service_pb2.TranscribeStreamResponse,
}
"""Streams whose last response is `session_ended`, also where they never began."""
DROP_S: Final = 1.0
"""How long a refused stream is read on, so that its status arrives."""
OPEN_TO_ALL: Final = "grpc.health.v1.Health/"
"""Load balancers and orchestrators have no credentials."""

FAULTS: Final = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)
"""Statuses that mark a SERVER span as failed, by the conventions; the others are the caller's own doing."""


@dataclass(slots=True, eq=False)
class Call:
    """The call that the current task, or the task that started it, serves."""

    method: str
    """`package.Service/Method`."""
    caller: str
    span: Span
    """The call's SERVER span; the parent of all others. Ended by the interceptor."""
    cut: WavegateError | None = None
    """Why the gateway ends the call now, whatever its handler waits for; None while it does not."""


_current: ContextVar[Call] = ContextVar("wavegate_call")


def current_call() -> Call:
    """The call being served. Raises `LookupError` outside of one."""
    return _current.get()


def take_cut() -> WavegateError | None:
    """Return why the gateway ends the current call, for a handler that was cancelled, and take the cancel back, so that
    the call can still be given its status. None where the caller left: then the cancel has to go on."""
    cut, task = current_call().cut, asyncio.current_task()
    if cut is not None and task is not None:
        task.uncancel()
    return cut


@dataclass(slots=True)
class _Outcome:
    """How a call ended. Until something better is known, it was cancelled."""

    code: str = "CANCELLED"
    error: BaseException | None = None


class CallInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """See the module. Used from one loop."""

    def __init__(self, telemetry: Telemetry, auth: Authenticator, max_stream_message_bytes: int) -> None:
        self._telemetry = telemetry
        self._auth = auth
        self._max_stream_message_bytes = max_stream_message_bytes
        self._live = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._calls: dict[Call, asyncio.Task[Any]] = {}
        self._cut: WavegateError | None = None
        """Why calls are ended now; None while they are served."""
        self.stopping = False
        """Set when the server begins to cut calls: those are not the callers' cancels."""

    def __repr__(self) -> str:
        return f"<CallInterceptor {self._live} live>"

    @property
    def live(self) -> int:
        """How many calls that speak or listen are being served."""
        return self._live

    async def idle(self) -> None:
        """Wait until no call that speaks or listens is being served."""
        await self._idle.wait()

    async def cut(self, error: WavegateError, within_s: float) -> None:
        """End every call with `error`, also those that come from now on, whatever their handlers wait for.

        A stream whose last words were written ends with their status instead. Returns when all have ended, after
        `within_s` seconds at the latest. Left to grpc, they would end without a reason.
        """
        self._cut = error
        tasks = set(self._calls.values())
        for call, task in self._calls.items():
            call.cut = error
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=within_s)

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any
    ) -> Any:
        method = handler_call_details.method.removeprefix("/")
        if method.startswith(OPEN_TO_ALL):
            return await continuation(handler_call_details)
        metadata = tuple((key, value) for key, value in handler_call_details.invocation_metadata)
        handler = await continuation(handler_call_details)
        if handler is None:
            return None  # grpc answers UNIMPLEMENTED
        caller: str | None = None
        try:
            caller = self._auth.check(metadata)
        except WavegateError as exc:
            handler = _refusal(exc, method, handler)
        except Exception as exc:
            # Whatever is wrong with the check, nobody comes in by it.
            logger.exception("the caller could not be checked")
            handler = _refusal(exc, method, handler)
        if not method.startswith(PACKAGE):
            return handler
        return self._around(handler, method, caller, self._telemetry.server_span(method, metadata))

    def _around(self, handler: Any, method: str, caller: str | None, span: Span) -> Any:
        behaviour = (
            handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
        )

        async def serve(request: Any, context: Any) -> Any:
            call = Call(method, caller or peer_name(context.auth_context()), span)
            if call.caller != ANONYMOUS:
                # At once: whatever is recorded below it is this caller's, and nobody else's to see.
                span.set({names.CALLER: call.caller})
            # A call has a task, and so a context, of its own: nothing has to be put back.
            _current.set(call)
            logs.bind(**{names.LOG_TRACE_ID: span.trace_id, names.LOG_SPAN_ID: span.span_id})
            began = time.monotonic()
            outcome = _Outcome()
            counted = not method.startswith(CONTROL)
            self._count(counted)
            task = asyncio.current_task()
            assert task is not None
            self._calls[call] = task
            try:
                return await self._serve(behaviour, request, context, outcome)
            finally:
                del self._calls[call]
                self._count(-counted)
                self._end(call, outcome, time.monotonic() - began)

        make = {
            (False, False): grpc.unary_unary_rpc_method_handler,
            (False, True): grpc.unary_stream_rpc_method_handler,
            (True, False): grpc.stream_unary_rpc_method_handler,
            (True, True): grpc.stream_stream_rpc_method_handler,
        }[handler.request_streaming, handler.response_streaming]
        return make(
            serve,
            request_deserializer=self._deserializer(handler),
            response_serializer=handler.response_serializer,
        )

    async def _serve(
        self, behaviour: Callable[[Any, Any], Awaitable[Any]], request: Any, context: Any, outcome: _Outcome
    ) -> Any:
        try:
            if isinstance(request, WavegateError):
                raise request
            if self._cut is not None:
                raise self._cut
            response = await behaviour(request, context)
        except asyncio.CancelledError:
            if (cut := take_cut()) is not None and not context.done():
                outcome.code, outcome.error = status.code_of(cut).name, cut
                await status.abort(context, cut)
            if self.stopping:
                outcome.code = "UNAVAILABLE"
                outcome.error = errors.GatewayDraining("the gateway stopped")
            elif context.time_remaining() == 0:
                outcome.code = "DEADLINE_EXCEEDED"
            raise
        except grpc.aio.AbortError as exc:
            outcome.code, outcome.error = _name(context.code()), exc.__cause__
            raise
        except grpc.aio.InternalError as exc:
            # A read or write on a connection that has gone: the same as a cancel, seen from another side. As what it
            # is, grpc would log it with a traceback.
            raise asyncio.CancelledError from exc
        except Exception as exc:
            if not isinstance(exc, WavegateError):
                logger.exception("a call failed unexpectedly")
            if context.done():
                outcome.code, outcome.error = _name(context.code()), exc
                raise
            outcome.code, outcome.error = status.code_of(exc).name, status.as_error(exc)
            await status.abort(context, exc)
        outcome.code = _name(context.code())
        return response

    def _count(self, more: int) -> None:
        self._live += more
        if self._live:
            self._idle.clear()
        else:
            self._idle.set()

    def _end(self, call: Call, outcome: _Outcome, duration_s: float) -> None:
        span = call.span
        error = outcome.error
        reason = error.reason if isinstance(error, WavegateError) else ""
        span.set({names.RPC_RESPONSE_STATUS_CODE: outcome.code})
        if outcome.code in FAULTS or isinstance(error, errors.UpstreamError | errors.UpstreamCapacity):
            span.fail(reason or outcome.code)
        span.end()
        self._telemetry.record(instruments.CALL_DURATION, duration_s, call.method, outcome.code, span=span)
        if reason or outcome.code in FAULTS:
            self._telemetry.record(instruments.ERRORS, 1, reason or outcome.code)
        logger.info(
            "call ended",
            extra={
                "method": call.method,
                "code": outcome.code,
                **({"reason": reason} if reason else {}),
                "caller": call.caller,
                "duration_s": round(duration_s, 3),
            },
        )

    def _deserializer(self, handler: Any) -> Callable[[bytes], Any] | None:
        parse = handler.request_deserializer
        if parse is None:
            return None  # a refusal, which looks at nothing
        bound = self._max_stream_message_bytes

        def of_stream(raw: bytes) -> Any:
            if len(raw) > bound:
                raise errors.InvalidInput(
                    f"a message of a stream may have {bound} bytes, this one has {len(raw)}; send smaller ones"
                )
            try:
                return parse(raw)
            except DecodeError as exc:
                raise _malformed() from exc

        def of_unary(raw: bytes) -> Any:
            # What is raised here, grpc answers by itself with UNKNOWN; so the error is handed on as the request.
            try:
                return parse(raw)
            except DecodeError:
                return _malformed()

        return of_stream if handler.request_streaming else of_unary


def _malformed() -> WavegateError:
    return errors.InvalidInput(
        "the request is no valid message of this contract: wrong bytes, or a string that is not UTF-8"
    )


def _refusal(exc: BaseException, method: str, handler: Any) -> Any:
    """A handler in the place of another one, which serves nobody and says why."""

    async def refuse(_requests: Any, context: Any) -> None:
        if handler.request_streaming:
            # A call that is aborted while an asyncio client writes loses its status on the way. So the last words
            # come first, and what the client still says is dropped unread, for a while.
            try:
                async with asyncio.timeout(DROP_S):
                    if (response := _LAST_WORDS.get(method)) is not None:
                        ended = types_pb2.SessionEnded(
                            reason=types_pb2.SessionEnded.REASON_FAILURE, status=status.to_proto(exc)
                        )
                        await context.write(response(sequence=1, session_ended=ended).SerializeToString())
                    while await context.read() is not grpc.aio.EOF:
                        pass
            except TimeoutError:
                pass
            except asyncio.CancelledError:
                if take_cut() is None:
                    raise
        await status.abort(context, exc)

    return grpc.stream_stream_rpc_method_handler(refuse)


def _name(code: Any) -> str:
    """The name of what `context.code()` says: nothing, a number or a `grpc.StatusCode`."""
    if code is None:
        return "OK"
    if isinstance(code, int):
        return next((c.name for c in grpc.StatusCode if c.value[0] == code), "UNKNOWN")
    return str(code.name)


def require_coroutines(servicer: object) -> None:
    """Refuse handlers that are no coroutines: grpc.aio would run them in threads, or hang at the end."""
    for name, method in inspect.getmembers(servicer, callable):
        if name[0].isupper() and not inspect.iscoroutinefunction(method):
            raise TypeError(f"{type(servicer).__name__}.{name} must be an `async def` that does not yield")
