"""`wavegate-server probe`: asks an upstream what its documents leave open, and says what follows for the gateway.

Each question is a short conversation over connections of its own, with a text of a few seconds. What is said is
what was seen, once, on the connection that was asked: a service may behave otherwise tomorrow. Asking costs what
speaking costs: some twenty short texts, and two short recordings.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import msgspec
import pybase64

from wavegate_server.audio import AudioFormat, Encoding
from wavegate_server.errors import WavegateError
from wavegate_server.session.context import UpstreamTarget
from wavegate_server.session.transport import Dialer, Transport, TransportClosed
from wavegate_server.waves import stt, tts
from wavegate_server.waves.settings import Settings

RATE_HZ = 16000
"""The rate at which both directions work, so that what is spoken can be listened to."""
QUIET_S = 2.0
"""Silence that ends listening for more frames: over three times what a release was seen to take."""
ANSWER_S = 8.0
"""How long a first frame may take."""
LONG_TEXT = (
    "This is a somewhat longer passage, so that there is time to interrupt it while it is being spoken. "
    "It goes on for a while, sentence after sentence, and says nothing of importance. "
    "By now the listener has surely lost interest, and would like to say something too."
)
IDLE_S = 3
"""Idle timeout that is asked for, to see whether pings reset it."""
PING_S = 1.0
"""How often connections ping; the dialler must be made with it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One question and what was seen."""

    question: str
    answer: str
    flags: tuple[str, ...] = ()
    """What to start `wavegate-server` with because of it."""


@dataclass(slots=True)
class _Heard:
    """Frames of one connection."""

    frames: list[dict[str, Any]] = field(default_factory=list)
    closed: int | None = None
    """The close code; -1 where there was none."""

    def of(self, status: str) -> list[dict[str, Any]]:
        return [f for f in self.frames if f.get("status") == status]

    @property
    def audio_bytes(self) -> int:
        return len(self.pcm())

    def pcm(self, request_id: str | None = None) -> bytes:
        out = []
        for frame in self.of("chunk"):
            if request_id in (None, frame.get("external_request_id")):
                data = frame.get("data")
                with contextlib.suppress(ValueError, TypeError, AttributeError):
                    out.append(pybase64.b64decode(data["audio"], validate=True))  # type: ignore[index]
        return b"".join(out)

    @property
    def releases(self) -> int:
        return len({f.get("request_id") for f in self.of("chunk")})

    @property
    def error(self) -> str:
        return next((str(f.get("message") or f.get("error")) for f in self.of("error")), "")


class Probe:
    """Asks one upstream. `settings` are those of a text to speak: voice and model at least."""

    def __init__(
        self,
        target: UpstreamTarget,
        dialer: Dialer,
        settings: Settings,
        *,
        active_requests: int = 1,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        """`active_requests`: the account's own limit, as its contract says. `say` is told what is being asked."""
        self._target = target
        self._dialer = dialer
        self._settings = settings
        self._active = max(1, active_requests)
        self._say = say
        self._continuations = True

    async def run(self) -> list[Finding]:
        """Ask everything. Raises an error of `wavegate_server.errors` when the upstream cannot be reached at all."""
        questions: Sequence[tuple[str, Callable[[], Awaitable[Finding]]]] = (
            ("Are continuations (context_id) understood?", self._ask_continuations),
            ("Does `complete` close the connection, and how often does it come?", self._ask_complete),
            ("What happens to text that is sent while a request is being spoken?", self._ask_overlap),
            ("Does `cancel_request` stop the speech, and does it answer?", self._ask_cancel),
            ("Does closing the connection in mid-speech free the account's slot at once?", self._ask_slot),
            ("Is a keepalive of one blank silent?", self._ask_blank),
            ("Does a WebSocket ping reset the idle clock?", self._ask_ping),
            ("Do transcription times restart on a new connection?", self._ask_times),
        )
        findings = []
        for question, ask in questions:
            self._say(question)
            try:
                findings.append(await ask())
            except (WavegateError, TransportClosed, TimeoutError) as exc:
                if not findings:
                    raise
                words = exc.message if isinstance(exc, WavegateError) else str(exc) or "no answer in time"
                findings.append(Finding(question, f"could not be settled: {words}"))
        return findings

    # -- the questions ------------------------------------------------------------------------------------------

    async def _ask_continuations(self) -> Finding:
        question = "Are continuations (context_id) understood?"
        async with self._connection() as link:
            heard = await self._speak(link, ["Hello there."], tts.Mode.CONTINUATIONS)
        if heard.audio_bytes and not heard.error:
            return Finding(question, "Yes.", ("--tts-protocol continuations",))
        self._continuations = False
        why = f"they are refused ({heard.error})" if heard.error else "no speech came"
        return Finding(question, f"No: {why}. Text is to be streamed by flush.", ("--tts-protocol flush",))

    async def _ask_complete(self) -> Finding:
        question = "Does `complete` close the connection, and how often does it come?"
        pieces = ["One apple and one pear. Two apples and two pears. ", "Three apples and three pears. "]
        async with self._connection() as link:
            heard = await self._speak(link, pieces, self._mode)
        count = len(heard.of("complete"))
        if count == 0:
            often = "none came; the end of an utterance is found by quiet"
        elif count == 1 and heard.releases == 1:
            often = "one came, for speech in one release: once a turn or once a release"
        elif count == 1:
            often = f"once a turn (one, for {heard.releases} releases)"
        elif count == heard.releases:
            often = f"once a release ({count})"
        elif count == len(pieces):
            often = f"once a message with text ({count})"
        else:
            often = f"{count} came, for {heard.releases} releases"
        if heard.closed is None:
            closes = "the connection stays open after it"
        else:
            closes = f"the connection was closed after it (code {heard.closed})"
        return Finding(question, f"{often}; {closes}. The gateway works with all of it, no flag is needed.")

    async def _ask_overlap(self) -> Finding:
        question = "What happens to text that is sent while a request is being spoken?"
        async with self._connection() as link:
            first, second = _new_id(), _new_id()
            for message in self._messages([LONG_TEXT], self._mode, first):
                await link.send(message)
            heard = await self._listen(link, until=lambda h: bool(h.of("chunk")))
            for message in self._messages(["And this came later."], self._mode, second):
                await link.send(message)
            later = await self._listen(link)
        order = [
            f.get("external_request_id") for f in heard.frames + later.frames if f.get("status") == "chunk"
        ]
        if later.error:
            answer = f"It is refused: {later.error}."
        elif second not in order:
            answer = (
                "It was not spoken."
                if first in order
                else "Frames do not say whose they are: it cannot be told."
            )
        elif first in order[order.index(second) :]:
            answer = "Both are spoken at once, their frames mixed."
        else:
            answer = "It is spoken after the first, in order."
        return Finding(question, f"{answer} The gateway sends one request at a time.")

    async def _ask_cancel(self) -> Finding:
        question = "Does `cancel_request` stop the speech, and does it answer?"
        if not self._continuations:
            return Finding(question, "It belongs to continuations, which are not understood.")
        async with self._connection() as link:
            protocol = self._protocol(tts.Mode.CONTINUATIONS)
            request = tts.Request(_new_id(), self._settings)
            for message in protocol.speak(request, LONG_TEXT, last=False, now=0.0):
                await link.send(message)
            before = await self._listen(link, until=lambda h: bool(h.of("chunk")))
            for message in protocol.cancel(request, 0.0):
                await link.send(message)
            after = await self._listen(link)
        answers = [f for f in after.frames if f.get("status") not in ("chunk", "word_timestamp")]
        said = f"answered by {str(answers[0].get('status'))!r}" if answers else "not answered"
        whole_s = (before.audio_bytes + after.audio_bytes) / 2 / RATE_HZ
        if whole_s > len(LONG_TEXT) * _LEAST_S_PER_CHAR:
            return Finding(
                question,
                f"No: the speech went on to its end ({whole_s:.1f} s), or all of it was made before the cancel came; "
                f"it is {said}. The gateway drops the connection where speech goes on.",
            )
        return Finding(question, f"Yes, after {whole_s:.1f} s of speech; it is {said}.")

    async def _ask_slot(self) -> Finding:
        question = "Does closing the connection in mid-speech free the account's slot at once?"
        async with contextlib.AsyncExitStack() as stack:
            links = [await stack.enter_async_context(self._connection()) for _ in range(self._active + 1)]
            for link in links[:-1]:
                for message in self._messages([LONG_TEXT] * 2, self._mode, _new_id()):
                    await link.send(message)
                await self._listen(link, until=lambda h: bool(h.of("chunk") or h.error))
            refused = await self._speak(links[-1], ["Is there room?"], self._mode)
            if not refused.error:
                return Finding(
                    question,
                    f"One request more than {self._active} was spoken at the same time: there is no such limit "
                    "here, or it is higher than --upstream-active-requests says, or speech is made too fast to tell.",
                )
            links[0].abort()
            loop = asyncio.get_running_loop()
            cut_at = loop.time()
            while (waited := loop.time() - cut_at) <= _SLOT_WAIT_S:
                async with self._connection() as link:
                    if not (await self._speak(link, ["Is there room now?"], self._mode)).error:
                        break
            else:
                return Finding(
                    question,
                    f"No: not within {_SLOT_WAIT_S:g} s.",
                    (f"--upstream-slot-linger {_SLOT_WAIT_S:g}",),
                )
        if waited < _AT_ONCE_S:
            return Finding(question, "Yes.", ("--upstream-slot-linger 0",))
        linger_s = math.ceil(waited)
        return Finding(
            question, f"No: within {linger_s} s, not at once.", (f"--upstream-slot-linger {linger_s}",)
        )

    async def _ask_blank(self) -> Finding:
        question = "Is a keepalive of one blank silent?"
        async with self._connection() as link:
            for message in self._protocol(self._mode).keepalive(self._settings):
                await link.send(message)
            heard = await self._listen(link, patience_s=QUIET_S)
            alive = await self._speak(link, ["Still here."], self._mode)
        if heard.error:
            return Finding(
                question, f"It is refused: {heard.error}. The gateway redials where a session was closed."
            )
        if heard.audio_bytes:
            length = heard.audio_bytes / 2 / RATE_HZ
            return Finding(question, f"No: it makes {length:.1f} s of sound, which the gateway drops.")
        works = "and the connection goes on" if alive.audio_bytes else "but nothing was spoken after it"
        return Finding(question, f"Yes, {works}. Whether it is free only the account's bill can tell.")

    async def _ask_ping(self) -> Finding:
        question = "Does a WebSocket ping reset the idle clock?"
        loop = asyncio.get_running_loop()
        async with self._connection(timeout_s=IDLE_S) as link:
            began = loop.time()
            # The dialler's connections ping every `PING_S` while they are being read.
            heard = await self._listen(link, patience_s=IDLE_S * 4)
            lived = loop.time() - began
        if heard.closed is None:
            return Finding(
                question,
                f"Yes, or `timeout` is not obeyed: with timeout={IDLE_S} it lived {lived:.0f} s and longer.",
            )
        return Finding(
            question, f"No: with timeout={IDLE_S} it was closed after {lived:.1f} s, pings notwithstanding."
        )

    async def _ask_times(self) -> Finding:
        question = "Do transcription times restart on a new connection?"
        async with self._connection() as link:
            spoken = await self._speak(link, ["One two three four five."], self._mode)
        pcm = spoken.pcm() + bytes(RATE_HZ)
        name = _new_id()
        first, second = [await self._transcribe(pcm, name) for _ in range(2)]
        if first is None or second is None:
            return Finding(question, "No word came with a time: it cannot be told.")
        shown = f"first word at {first:.2f} s, then at {second:.2f} s"
        if second < len(pcm) / 2 / RATE_HZ:
            return Finding(question, f"Yes ({shown}).")
        return Finding(
            question, f"No: they run on ({shown}). The gateway expects them to restart; report this."
        )

    # -- conversations ------------------------------------------------------------------------------------------

    @property
    def _mode(self) -> tts.Mode:
        return tts.Mode.CONTINUATIONS if self._continuations else tts.Mode.FLUSH

    @contextlib.asynccontextmanager
    async def _connection(self, timeout_s: int = 60) -> AsyncGenerator[Transport, None]:
        path = tts.path_of(self._settings, old_paths=self._target.old_tts_path)
        url = self._target.websocket_url(path, urlencode({"timeout": timeout_s}))
        transport = await self._dialer.dial(url, self._target.headers())
        try:
            yield transport
        finally:
            await transport.close()

    def _protocol(self, mode: tts.Mode) -> tts.TtsProtocol:
        return tts.TtsProtocol(mode, RATE_HZ, "wavegate-probe")

    def _messages(self, pieces: Sequence[str], mode: tts.Mode, request_id: str) -> list[str]:
        protocol = self._protocol(mode)
        request = tts.Request(request_id, self._settings)
        out = [m for piece in pieces for m in protocol.speak(request, piece, last=False, now=0.0)]
        return [*out, *protocol.speak(request, "", last=True, now=0.0)]

    async def _speak(self, link: Transport, pieces: Sequence[str], mode: tts.Mode) -> _Heard:
        for message in self._messages(pieces, mode, _new_id()):
            await link.send(message)
        return await self._listen(link)

    async def _listen(
        self,
        link: Transport,
        *,
        until: Callable[[_Heard], bool] = lambda heard: False,
        patience_s: float = ANSWER_S,
    ) -> _Heard:
        """Frames until `until`, the close, or quiet: `patience_s` before the first, `QUIET_S` after it."""
        heard = _Heard()
        while not until(heard):
            try:
                async with asyncio.timeout(QUIET_S if heard.frames else patience_s):
                    message = await link.recv()
            except TimeoutError:
                break
            except TransportClosed as exc:
                heard.closed = exc.code or -1
                break
            with contextlib.suppress(msgspec.DecodeError):
                frame = msgspec.json.decode(message)
                if isinstance(frame, dict):
                    heard.frames.append(frame)
        return heard

    async def _transcribe(self, pcm: bytes, name: str) -> float | None:
        """Where the first word begins, in seconds."""
        audio_format = AudioFormat(Encoding.LINEAR16, RATE_HZ)
        query = stt.query(stt.DEFAULTS, audio_format, external_session_id=name)
        url = self._target.websocket_url(stt.path_of(old_path=self._target.old_stt_path), query)
        transport = await self._dialer.dial(url, self._target.headers())
        protocol = stt.SttProtocol(audio_format.encoding)
        try:
            for at in range(0, len(pcm), 4096):
                await transport.send(pcm[at : at + 4096])
            await transport.send('{"type":"close_stream"}')
            while True:
                async with asyncio.timeout(ANSWER_S * 2):
                    message = await transport.recv()
                for event in protocol.receive(message, 0.0):
                    if isinstance(event, stt.TranscriptReceived) and event.is_final and event.words:
                        return event.words[0].start_s
                    if isinstance(event, stt.TranscriptReceived) and event.is_last:
                        return None
        except (TransportClosed, TimeoutError):
            return None
        finally:
            await transport.close()


_LEAST_S_PER_CHAR = 0.045
"""Speech faster than this (22 characters a second) was cut short."""
_SLOT_WAIT_S = 30.0
_AT_ONCE_S = 0.5


def _new_id() -> str:
    return f"probe-{secrets.token_hex(6)}"
