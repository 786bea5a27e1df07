"""`wavegate-server probe`: asks an upstream what its documents leave open, and says what follows for the gateway.

Each question is a short conversation over connections of its own, with a text of a few seconds. What is said is
what was seen, once, on the connection that was asked: a service may behave otherwise tomorrow. Asking costs what
speaking costs: about a dozen texts of one to six sentences, and two short recordings. While it asks, nobody else
should use the account.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import msgspec
import pybase64

from wavegate_server import errors
from wavegate_server.audio import AudioFormat, Encoding
from wavegate_server.errors import WavegateError
from wavegate_server.session.context import UpstreamTarget
from wavegate_server.session.transport import Dialer, Transport, TransportClosed
from wavegate_server.waves import stt, tts
from wavegate_server.waves.settings import Settings

RATE_HZ = 16000
"""The rate at which both directions work, so that what is spoken can be listened to."""
LONG_TEXT = (
    "This is a somewhat longer passage, so that there is time to interrupt it while it is being spoken. "
    "It goes on for a while, sentence after sentence, and says nothing of importance. "
    "By now the listener has surely lost interest, and would like to say something too."
)
LEAST_S_PER_CHAR = 0.045
"""Speech faster than this (22 characters a second) was cut short."""


@dataclass(frozen=True, slots=True)
class Times:
    """How long what is waited for, in seconds."""

    quiet_s: float = 2.0
    """Silence that ends listening for more frames: over three times what a release was seen to take."""
    answer_s: float = 8.0
    """How long a first frame may take."""
    idle_s: int = 3
    """Idle timeout that is asked for, to see whether pings reset it."""
    ping_s: float = 1.0
    """How often connections ping; the dialler must be made with it."""
    slot_wait_s: float = 30.0
    """How long the account's slot may take to become free."""
    slot_poll_s: float = 0.25
    at_once_s: float = 0.5
    """What took no longer happened at once."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One question and what was seen."""

    topic: str
    """The question in one word."""
    question: str
    answer: str
    flags: tuple[str, ...] = ()
    """What to start `wavegate-server` with because of it."""


_Answer = tuple[str, *tuple[str, ...]]
"""What was seen, and the flags that follow."""
_Ask = Callable[[], Awaitable[_Answer]]


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
        times: Times | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        """`active_requests`: the account's own limit, as its contract says. `say` is told what is being asked."""
        self._target = target
        self._dialer = dialer
        self._settings = settings
        self._active = max(1, active_requests)
        self._times = times or Times()
        self._say = say
        self._continuations = True

    async def run(self, topics: Collection[str] = ()) -> list[Finding]:
        """Ask everything, or what `topics` name.

        Raises an error of `wavegate_server.errors` when the upstream cannot be reached at all, or speaks in no way.
        """
        questions: Sequence[tuple[str, str, _Ask]] = (
            ("continuations", "Are continuations (context_id) understood?", self._ask_continuations),
            (
                "complete",
                "Does `complete` close the connection, and how often does it come?",
                self._ask_complete,
            ),
            (
                "overlap",
                "What happens to text that is sent while a request is being spoken?",
                self._ask_overlap,
            ),
            ("cancel", "Does `cancel_request` stop the speech, and does it answer?", self._ask_cancel),
            ("blank", "Is a keepalive of one blank silent?", self._ask_blank),
            ("ping", "Does a WebSocket ping reset the idle clock?", self._ask_ping),
            ("times", "Do transcription times restart on a new connection?", self._ask_times),
            # Last: what it cuts may count as active for some time.
            (
                "slot",
                "Does closing the connection in mid-speech free the account's slot at once?",
                self._ask_slot,
            ),
        )
        findings: list[Finding] = []
        for topic, question, ask in questions:
            if topics and topic not in topics:
                continue
            self._say(question)
            try:
                answer, *flags = await ask()
            except (WavegateError, TransportClosed, TimeoutError) as exc:
                error = exc if isinstance(exc, WavegateError) else errors.UpstreamUnavailable(_words(exc))
                if not findings:
                    raise error from exc
                answer, flags = f"This could not be settled: {error.message}.", []
            findings.append(Finding(topic, question, answer, tuple(flags)))
        return findings

    # -- the questions ------------------------------------------------------------------------------------------

    async def _ask_continuations(self) -> _Answer:
        mode = tts.Mode.CONTINUATIONS
        async with self._connection() as link:
            # A sentence is spoken at its end then, before the text is closed.
            *opening, closing = self._messages(["Hello there. "], mode, _new_id())
            for message in opening:
                await link.send(message)
            heard = await self._listen(link, until=lambda h: bool(h.of("chunk") or h.error))
            if heard.audio_bytes and not heard.error:
                await link.send(closing)
                await self._listen(link)
                return "Yes.", "--tts-protocol continuations"
        self._continuations = False
        async with self._connection() as link:
            flushed = await self._speak(link, ["Hello there."], tts.Mode.FLUSH)
        if flushed.error or not flushed.audio_bytes:
            # So it is not the way of sending that was wrong.
            why = flushed.error or "no speech came"
            raise errors.UpstreamRejected(
                f"it does not speak a short text, whichever way it is sent: {why}; see whether --default-tts-model and "
                "--default-voice name what it has"
            )
        why = (
            f"they are refused ({heard.error})"
            if heard.error
            else "a sentence is not spoken before its text is closed"
        )
        return f"No: {why}. Text is to be streamed by flush, which works.", "--tts-protocol flush"

    async def _ask_complete(self) -> _Answer:
        # More messages than sentences, so that the one can be told from the other.
        pieces = ["One apple ", "and one pear. Two apples and two pears.", " Three apples and three pears."]
        async with self._connection() as link:
            heard = await self._speak(link, pieces, self._mode)
        count = len(heard.of("complete"))
        if count == 0:
            often = "None came; the end of an utterance is found by quiet"
        elif count == 1 and heard.releases == 1:
            often = "One came, for speech in one release: once a turn or once a release"
        elif count == 1:
            often = f"Once a turn (one, for {heard.releases} releases)"
        elif count == heard.releases:
            often = f"Once a release ({count})"
        elif count == len(pieces):
            often = f"Once a message with text ({count})"
        else:
            often = f"{count} came, for {heard.releases} releases"
        if heard.closed is not None:
            often += f"; the connection was closed after it (code {heard.closed})"
        elif count:
            often += "; the connection stays open after it"
        return (f"{often}. The gateway works with all of it, no flag is needed.",)

    async def _ask_overlap(self) -> _Answer:
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
        elif (len(heard.pcm(first)) + len(later.pcm(first))) / 2 / RATE_HZ < len(
            LONG_TEXT
        ) * LEAST_S_PER_CHAR:
            answer = "It takes the place of the first, which is cut short."
        else:
            answer = "It is spoken after the first, in order."
        return (f"{answer} It does not matter here: the gateway sends one request at a time.",)

    async def _ask_cancel(self) -> _Answer:
        if not self._continuations:
            return (
                "It belongs to continuations, which are not understood. The gateway drops the connection instead.",
            )
        async with self._connection() as link:
            protocol = self._protocol(tts.Mode.CONTINUATIONS)
            request = tts.Request(_new_id(), {**tts.defaults(tts.Mode.CONTINUATIONS), **self._settings})
            for message in protocol.speak(request, LONG_TEXT, last=False, now=0.0):
                await link.send(message)
            before = await self._listen(link, until=lambda h: bool(h.of("chunk")))
            for message in protocol.cancel(request, 0.0):
                await link.send(message)
            after = await self._listen(link)
        answers = [f for f in after.frames if f.get("status") not in ("chunk", "word_timestamp")]
        said = f"It is answered by {str(answers[0].get('status'))!r}." if answers else "It is not answered."
        whole_s = (before.audio_bytes + after.audio_bytes) / 2 / RATE_HZ
        if after.error:
            return (f"It is refused: {after.error}. The gateway drops the connection where speech goes on.",)
        if whole_s > len(LONG_TEXT) * LEAST_S_PER_CHAR:
            return (
                f"No: the speech went on to its end ({whole_s:.1f} s), or all of it was made before the cancel came. "
                f"{said} The gateway drops the connection where speech goes on.",
            )
        return (f"Yes, after {whole_s:.1f} s of speech. {said}",)

    async def _ask_blank(self) -> _Answer:
        async with self._connection() as link:
            for message in self._protocol(self._mode).keepalive(self._settings):
                await link.send(message)
            heard = await self._listen(link, patience_s=self._times.quiet_s)
            if heard.error or heard.closed is not None:
                why = heard.error or f"the connection is closed (code {heard.closed})"
                return (f"No, it is refused: {why}. The gateway dials again where a connection is closed.",)
            alive = await self._speak(link, ["Still here."], self._mode)
        if heard.audio_bytes:
            length_s = heard.audio_bytes / 2 / RATE_HZ
            return (f"No: it makes {length_s:.1f} s of sound, which the gateway drops.",)
        works = "and the connection goes on" if alive.audio_bytes else "but nothing was spoken after it"
        return (f"Yes, {works}. Whether it is free only the account's bill can tell.",)

    async def _ask_ping(self) -> _Answer:
        idle_s = self._times.idle_s
        loop = asyncio.get_running_loop()
        async with self._connection(timeout_s=idle_s) as link:
            began = loop.time()
            # The dialler's connections ping every `ping_s` while they are being read.
            heard = await self._listen(link, patience_s=idle_s * 2.5)
            lived_s = loop.time() - began
        gateway = "The gateway sends a keepalive of its own before that, either way."
        if heard.closed is None:
            return (
                f"Yes, or it does not obey `timeout`: with timeout={idle_s} the connection lived for {lived_s:.0f} s "
                f"and longer. {gateway}",
            )
        return (
            f"No: with timeout={idle_s} it was closed after {lived_s:.1f} s in spite of pings. {gateway}",
        )

    async def _ask_times(self) -> _Answer:
        async with self._connection() as link:
            spoken = await self._speak(link, ["One two three four five."], self._mode)
        pcm = spoken.pcm() + bytes(RATE_HZ)
        name = _new_id()
        first_s, second_s = [await self._transcribe(pcm, name) for _ in range(2)]
        if first_s is None or second_s is None:
            return ("No word came with a time: it cannot be told.",)
        shown = f"the same word began at {first_s:.2f} s, then at {second_s:.2f} s"
        if second_s < len(pcm) / 2 / RATE_HZ:
            return (f"Yes ({shown}).",)
        return (
            f"No: they run on ({shown}) where two connections have the same external_session_id. The gateway gives "
            "each connection its own, and needs no flag.",
        )

    async def _ask_slot(self) -> _Answer:
        times = self._times
        async with contextlib.AsyncExitStack() as stack:
            links = [await stack.enter_async_context(self._connection()) for _ in range(self._active + 1)]
            for link in links[:-1]:
                for message in self._messages([LONG_TEXT] * 2, self._mode, _new_id()):
                    await link.send(message)
                await self._listen(link, until=lambda h: bool(h.of("chunk") or h.error))
            if not await self._is_refused(links[-1], "Is there room?"):
                return (
                    f"It cannot be told: {self._active + 1} requests were spoken at once. So the account allows "
                    f"more than {self._active} (--upstream-active-requests says how many), or speech is made too fast.",
                )
            links[0].abort()
            loop = asyncio.get_running_loop()
            cut_at = loop.time()
            while (waited_s := loop.time() - cut_at) <= times.slot_wait_s:
                async with self._connection() as link:
                    if not await self._is_refused(link, "Is there room now?"):
                        break
                await asyncio.sleep(times.slot_poll_s)
            else:
                return (
                    f"No: it was not free within {times.slot_wait_s:g} s.",
                    f"--upstream-slot-linger {times.slot_wait_s:g}",
                )
        if waited_s < times.at_once_s:
            return "Yes.", "--upstream-slot-linger 0"
        linger_s = math.ceil(waited_s)
        return (
            f"No: it was free after {waited_s:.1f} s. The gateway counts cut requests for that long.",
            f"--upstream-slot-linger {linger_s}",
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
        request = tts.Request(request_id, {**tts.defaults(mode), **self._settings})
        out = [m for piece in pieces for m in protocol.speak(request, piece, last=False, now=0.0)]
        return [*out, *protocol.speak(request, "", last=True, now=0.0)]

    async def _is_refused(self, link: Transport, text: str) -> bool:
        """Whether a text is answered by an error; one that is spoken is heard to its end."""
        for message in self._messages([text], self._mode, _new_id()):
            await link.send(message)
        answer = await self._listen(link, until=lambda h: bool(h.of("chunk") or h.error))
        if answer.error:
            return True
        if not answer.of("chunk"):
            raise TimeoutError
        await self._listen(link)
        return False

    async def _speak(self, link: Transport, pieces: Sequence[str], mode: tts.Mode) -> _Heard:
        for message in self._messages(pieces, mode, _new_id()):
            await link.send(message)
        return await self._listen(link)

    async def _listen(
        self,
        link: Transport,
        *,
        until: Callable[[_Heard], bool] = lambda heard: False,
        patience_s: float | None = None,
    ) -> _Heard:
        """Frames until `until`, the close, or quiet: `patience_s` (`answer_s`) before the first, then `quiet_s`."""
        times = self._times
        heard = _Heard()
        while not until(heard):
            try:
                async with asyncio.timeout(times.quiet_s if heard.frames else patience_s or times.answer_s):
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
                async with asyncio.timeout(self._times.answer_s * 2):
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


def _words(exc: TransportClosed | TimeoutError) -> str:
    return (
        f"the connection was closed ({exc})" if isinstance(exc, TransportClosed) else "no answer came in time"
    )


def _new_id() -> str:
    return f"probe-{secrets.token_hex(6)}"
