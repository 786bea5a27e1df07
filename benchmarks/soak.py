"""`make soak`: conversations through real gateways whose upstreams keep failing, each one proved whole.

Half of the streams speak, half listen, through `wavegate-server` processes in front of local upstreams with the
deterministic engine. Every few seconds something happens to the upstreams' connections: they are cut, closed, refused,
half open, silent, deaf, slow in either direction; they pause for seconds and go on; they send garbage. What comes out
is held against what went in: each character of each utterance once and in order, each word of each transcript once, in
its place. **A text that is reported completed and was not heard to its end is a mismatch**, as are a session that
hangs, a failure that no outage explains, and a session that is left in the gateway.

A run goes in shifts. In each there are two *worlds*, one for each way of streaming text (`--tts-protocol`): an upstream
with a dialect of its own (what it sends `complete` for and when, whether it echoes ids and times words, how fast it
speaks) behind a fresh gateway. The seed decides dialects, texts and faults; when a fault meets what, the machine does.

One combination is left out: an upstream that never sends `complete` and times no words is not made to fall silent for
ever in mid-speech, since nothing on the wire tells that from its usual end.

Afterwards the random tests of the gateway's parts (`tests/`, marked `random`) are run with seeds that nobody tried yet.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import re
import secrets
import subprocess
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL, PIPE
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import waves_local
from wavegate.speech import v1
from wavegate.speech.v1 import (
    session_service_pb2_grpc,
    synthesis_service_pb2_grpc,
    transcription_service_pb2_grpc,
)
from waves_local.deterministic import BROKEN, DEFAULT_CHARACTER_S, encode_text

PATIENCE_S = 300.0
"""A session that takes longer hangs: four minutes of speech at half speed, with faults."""
SHIFT_S = 120.0
"""How long the same worlds are there, in seconds."""
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 15.0
STREAMS = 40
FAULT_EVERY_S = 10.0
OUTAGE_S = 3.0
"""How long an outage lasts: longer than a session tries again."""
SILENCE_S = 30.0
"""How long a connection stays half open, deaf or silent, in seconds: its gateway has left it long before."""
TRIES = 3
"""How often a session tries again before something fails, as long as nothing new comes."""
AFTERMATH_S = 10.0
"""How long after an outage something may still fail because of it: a stall of before it is noticed then."""
RATE_HZ = 16000
PIECE_BYTES = 3200
PIECE_S = PIECE_BYTES / 2 / RATE_HZ
WORDS = (
    "a river ran through the valley and nobody knew its name because it had come in the night while all were "
    "asleep it sang of mountains stones wind and of people who had lived there before"
).split()
LASTING = ("stall", "deaf", "vanish")
"""Faults after which a connection says, or hears, nothing more."""
PAUSES = ("slow=1,frames=1", "slow=2.5,frames=1", "slow=4,frames=1")
"""The upstream says nothing for a while, and then goes on. Shorter than the time that it has for owed audio (5 s)."""
SLOWNESS = ("slow=0.3,frames=20", "slow=0.25,frames=60", "slow-read=0.2,frames=60")
"""Frames at less than half the speed of speech; messages taken slower than a microphone sends them."""
ONCE = ("drop", "close=1000", "close=1001", "close=1011", "close=1012", *LASTING, *PAUSES, *SLOWNESS)
"""What may happen to a connection of either kind and be borne, or mended by another one."""
SPEECH_ONLY = ("bad-json", "bad-utf8", "bad-base64", "unknown-frame")
LISTENING_ONLY = ("unknown-frame",)
# `duplicate` and `empty-audio` are frames as good as any other, an `error` is the upstream's own verdict, and a
# transcript whose frame is garbage was said in a language that nobody can read: not what this is about.
TRANSIENT = {"UPSTREAM_UNAVAILABLE", "UPSTREAM_STALLED", "UPSTREAM_CAPACITY", "UPSTREAM_PROTOCOL"}


@dataclass
class Report:
    """What happened."""

    seed: int
    seconds: float = 0.0
    worlds: list[str] = field(default_factory=list)
    totals: Counter[str] = field(default_factory=Counter)
    mismatches: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"seed {self.seed}, {self.seconds:.0f} s"]
        lines += [f"  {world}" for world in self.worlds]
        lines += [f"  {name:<44} {count:>9}" for name, count in sorted(self.totals.items())]
        lines += [f"MISMATCH: {mismatch}" for mismatch in self.mismatches]
        lines.append(f"{len(self.mismatches)} mismatches")
        return "\n".join(lines)


class Mismatch(Exception):
    """Raised where what came out is not what went in."""


# -- what may be heard ------------------------------------------------------------------------------------------


def check_speech(text: str, chunks: list[Any], *, is_whole: bool) -> None:
    """The audio of one utterance against its text. Raises `Mismatch`.

    After a `discontinuity` the speech goes on at the start of the word in which it was cut. An utterance that is
    not whole is a beginning.
    """
    stretches: list[list[Any]] = [[]]
    for chunk in chunks:
        if chunk.discontinuity:
            stretches.append([])
        stretches[-1].append(chunk)
    text, at = text.strip(), 0
    for number, stretch in enumerate(stretches):
        said = waves_local.spoken(b"".join(c.audio for c in stretch))
        is_cut = number < len(stretches) - 1 or not is_whole
        said = said.strip(BROKEN) if is_cut else said
        begins = _starts(text, at) if number else [0]
        reached = [i + len(said) for i in begins if text.startswith(said.rstrip(), i)]
        if not reached:
            raise Mismatch(f"stretch {number} of {text!r}: at {at} came {said!r}")
        at = max(reached)
    # A mark that came in a message of its own may rightly be silent: there is nothing in it to be heard.
    if is_whole and any(c.isalnum() for c in text[at:]):
        raise Mismatch(f"of {text!r} came {at} characters")


def _starts(text: str, cut_at: int) -> list[int]:
    """Where speech that was cut there may go on: within one word of it, at a blank or behind one."""
    return [
        i
        for i in range(cut_at + 1)
        if (i == 0 or " " in text[i - 1 : i + 1]) and " " not in text[i:cut_at].strip()
    ]


def expected_words(pieces: list[tuple[str, float]]) -> list[tuple[str, float]]:
    """Each word and where it begins. `pieces`: texts and where each begins, in seconds."""
    found = []
    for text, start_s in pieces:
        at = 0
        for word in text.split(" "):
            found.append((word, start_s + at * DEFAULT_CHARACTER_S))
            at += len(word) + 1
    return found


def check_words(wanted: list[tuple[str, float]], heard: list[tuple[str, float]], *, is_whole: bool) -> None:
    """The words of all finals against what was said. Raises `Mismatch`."""
    if not is_whole:
        wanted = wanted[: len(heard)]
    if [w for w, _ in heard] != [w for w, _ in wanted]:
        raise Mismatch(f"said {' '.join(w for w, _ in wanted)!r}, heard {' '.join(w for w, _ in heard)!r}")
    for (word, at_s), (_, heard_at_s) in zip(wanted, heard, strict=True):
        if abs(at_s - heard_at_s) > 0.001:
            raise Mismatch(f"{word!r} was said at {at_s:.3f} s and heard at {heard_at_s:.3f} s")


# -- the faults -------------------------------------------------------------------------------------------------


class Misfortune:
    """What goes wrong with one upstream."""

    def __init__(self, upstream: waves_local.Upstream, rng: random.Random, totals: Counter[str]) -> None:
        self._upstream = upstream
        self._rng = rng
        self._totals = totals
        self._outages: list[tuple[float, float]] = []
        self._losses: list[tuple[float, int]] = []
        """When connections were struck so that they are lost, and how many tries that costs."""
        self._lasting: list[tuple[float, int]] = []
        """When a lasting fault is over, and its number."""

    def __repr__(self) -> str:
        return f"<Misfortune {len(self._upstream.faults)} in force>"

    def excuses(self, since: float, until: float) -> bool:
        """Whether the upstream was away for longer than anybody waits, between two points of the clock, or was struck
        more often than a session tries again. Nothing new came between the two."""
        if any(begin <= until and since <= end + AFTERMATH_S for begin, end in self._outages):
            return True
        return sum(n for at, n in self._losses if since - AFTERMATH_S <= at <= until) > TRIES

    async def strike(self) -> None:
        """Let something go wrong."""
        faults, rng = self._upstream.faults, self._rng
        now = asyncio.get_running_loop().time()
        for number in [n for n, f in faults.items() if f.do in ("drop", "close", "refuse")]:
            faults.remove(number)
        for number in [n for until, n in self._lasting if now >= until]:
            faults.remove(number)  # so that a connection that its gateway left can end
        self._lasting = [(until, n) for until, n in self._lasting if now < until]
        what = rng.choice([*ONCE, *SPEECH_ONLY, *LISTENING_ONLY, "cut", "refuse", "outage"])
        if what not in (*PAUSES, *SLOWNESS, "unknown-frame"):
            self._losses.append((now, 3 if what == "refuse" else 1))
        self._totals[f"fault {what.partition(',')[0]}"] += 1
        match what:
            case "cut":
                self._hit("drop", 1.0, "*")
            case "refuse":
                # One failure is the drop; two refusals more are within everybody's budget.
                for kind in ("tts", "stt"):
                    status = rng.choice([500, 502, 503, 429])
                    faults.add(
                        f"{kind}:refuse={status},times=2" + (",retry-after=0" if status == 429 else "")
                    )
                self._hit("drop", 0.5, "*")
            case "outage":
                begin = asyncio.get_running_loop().time()
                self._outages.append((begin, begin + OUTAGE_S))
                refusals = faults.add("*:refuse=503")
                self._hit("drop", 1.0, "*")
                await asyncio.sleep(OUTAGE_S)
                faults.remove(refusals)
                self._outages[-1] = (begin, asyncio.get_running_loop().time())
            case _:
                share = rng.choice([0.1, 0.3, 1.0])
                only = "tts" if what in SPEECH_ONLY else "stt" if what in LISTENING_ONLY else "*"
                self._hit(what, share, only)

    def _hit(self, what: str, share: float, kind: str) -> None:
        """A share of the open connections, each once, now or a few frames later."""
        options = self._upstream.options
        is_untold = options.complete_per == "none" and options.word_timings == "never"
        until = asyncio.get_running_loop().time() + SILENCE_S
        for record in self._upstream.journal:
            if (
                record.status == 101
                and record.is_open
                and kind in ("*", record.kind)
                and self._rng.random() < share
                and not (record.kind == "tts" and is_untold and what in LASTING)
            ):
                after = record.frames_sent + self._rng.choice([0, 0, self._rng.randrange(12)])
                number = self._upstream.faults.add(
                    f"{record.kind}:{what},nth={record.number},after-frames={after}"
                )
                if what in LASTING:
                    self._lasting.append((until, number))
                self._totals[f"connections struck, {record.kind}"] += 1


# -- the streams ------------------------------------------------------------------------------------------------


class Stream:
    """One of those who speak or listen, session after session."""

    def __init__(self, channel: Any, seed: str, report: Report, world: World, *, is_brief: bool) -> None:
        """`is_brief`: sessions of a few seconds, so that a run is soon over."""
        self._is_brief = is_brief
        self._channel = channel
        self._rng = random.Random(seed)
        self._seed = seed
        self._report = report
        self._world = world
        self._misfortune = world.misfortune
        self._came_at: dict[int, float] = {}
        """When each event of the session came, by its number."""

    async def go_on(self, until: float) -> None:
        """Have sessions until that point of the loop's clock."""
        loop = asyncio.get_running_loop()
        number = 0
        while loop.time() < until:
            number += 1
            got: list[Any] = []
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await self._session(got)
            except Mismatch as exc:
                self._wrong(f"session {number} of {self._seed}: {exc}", got)
            except TimeoutError:
                self._wrong(f"session {number} of {self._seed} hangs", got)
            except grpc.aio.AioRpcError as exc:
                self._wrong(f"session {number} of {self._seed}: {exc.code()} {exc.details()}", got)

    def _wrong(self, what: str, got: list[Any]) -> None:
        tale = [
            f"    {r.WhichOneof('event')} " + " ".join(str(getattr(r, r.WhichOneof("event"))).split())[:400]
            for r in got
            if r.WhichOneof("event") not in ("audio", "word_timings", "transcript", "progress")
        ]
        self._report.mismatches.append("\n".join([what, f"    in {self._world}", *tale[-16:]]))

    async def _session(self, got: list[Any]) -> None:
        raise NotImplementedError

    def _words(self) -> list[str]:
        rng = self._rng
        is_long = rng.random() < 0.3 and not self._is_brief
        count = rng.randrange(30, 61) if is_long else rng.randrange(2, 24)
        return [rng.choice(WORDS) for _ in range(count)]

    async def _read(self, call: Any, got: list[Any]) -> None:
        """Everything that is said, into `got`; a call that fails has said so in its last event."""
        self._came_at.clear()
        with contextlib.suppress(grpc.aio.AioRpcError):
            while (response := await call.read()) is not grpc.aio.EOF:
                got.append(response)
                self._came_at[response.sequence] = asyncio.get_running_loop().time()

    def _ended(self, got: list[Any], since: float) -> bool:
        """What is true of every session that was read to its end; whether it ended well. Raises `Mismatch`."""
        totals = self._report.totals
        if not got or got[-1].WhichOneof("event") != "session_ended":
            raise Mismatch("a session without its last word")
        if [r.sequence for r in got] != list(range(1, len(got) + 1)):
            raise Mismatch("the numbers of the events have a gap")
        ended = got[-1].session_ended
        totals["reconnects"] += ended.usage.reconnect_count
        if ended.status.code == 0:
            return True
        news = [r.sequence for r in got if r.WhichOneof("event") in ("transcript", "audio")]
        self._excused(ended.status, self._came_at[news[-1]] if news else since, got[-1])
        totals["sessions that an outage ended"] += 1
        return False

    def _excused(self, status: Any, since: float, response: Any) -> None:
        """Raises `Mismatch` where a failure that `response` tells of was not the upstream's, from `since` on."""
        reason = ""
        for detail in status.details:
            if detail.type_url.endswith("ErrorInfo"):
                info = v1_error_info(detail.value)
                reason = info.reason
        if reason not in TRANSIENT or not self._misfortune.excuses(since, self._came_at[response.sequence]):
            raise Mismatch(f"failed without need: {reason} {status.message}")


def v1_error_info(value: bytes) -> Any:
    """The `google.rpc.ErrorInfo` in a detail of a status."""
    from google.rpc import error_details_pb2  # noqa: PLC0415 - it has no types; one place is enough

    return error_details_pb2.ErrorInfo.FromString(value)


class Speaker(Stream):
    """Has text spoken."""

    async def _session(self, got: list[Any]) -> None:
        rng, since = self._rng, asyncio.get_running_loop().time()
        call = synthesis_service_pb2_grpc.SynthesisServiceStub(self._channel).SynthesizeStream()  # type: ignore[no-untyped-call]
        # Where an upstream sends no `complete`, the times of words are what tells its end from a silence.
        wants_words = rng.random() < 0.5 or self._world.options.complete_per == "none"
        settings = v1.SynthesisSettings(voice_id="magnus", word_timings=wants_words)
        await call.write(v1.SynthesizeStreamRequest(start=v1.StartSynthesis(settings=settings)))
        reader = asyncio.create_task(self._read(call, got))
        texts: dict[str, str] = {}
        cancelled: set[str] = set()
        try:
            for number in range(rng.randrange(1, 3 if self._is_brief else 5)):
                utterance_id = f"u{number}"
                texts[utterance_id] = text = self._text()
                await self._say(call, utterance_id, text)
                if rng.random() < 0.2:
                    await asyncio.sleep(rng.random() * 2)
                    cancelled.add(utterance_id)
                    cancel = v1.CancelUtterance(utterance_id=utterance_id)
                    await call.write(v1.SynthesizeStreamRequest(cancel=cancel))
                elif rng.random() < 0.7:
                    while not reader.done() and utterance_id not in _over(got):  # noqa: ASYNC110
                        await asyncio.sleep(0.02)
            await call.write(v1.SynthesizeStreamRequest(end_session=v1.EndSession()))
            await call.done_writing()
        except (asyncio.InvalidStateError, grpc.aio.AioRpcError):
            pass  # it has ended already; what it said tells why
        finally:
            if asyncio.current_task().cancelling():  # type: ignore[union-attr]
                reader.cancel()
        await reader
        self._check(got, texts, cancelled, since)

    def _text(self) -> str:
        """Words with marks between: one sentence or several."""
        words = self._words()
        marked = [w + self._rng.choice([*[""] * 7, ",", ".", "?"]) for w in words]
        return " ".join(marked) + self._rng.choice(["", "."])

    async def _say(self, call: Any, utterance_id: str, text: str) -> None:
        """At once, or in words or tokens as a language model gives them, which may stop to think."""
        rng = self._rng
        match rng.choice(["whole", "whole", "words", "tokens"]):
            case "whole":
                pieces, pause_s = [text], 0.0
            case "words":
                pieces, pause_s = re.findall(r" ?\S+", text), 0.05
            case _:
                pieces, pause_s = re.findall(r" ?\S{1,4}", text), rng.choice([0.02, 0.1])
        thinks_at = rng.randrange(len(pieces)) if rng.random() < 0.2 else -1
        flushes_at = rng.randrange(len(pieces)) if rng.random() < 0.1 else -1
        for place, piece in enumerate(pieces):
            is_last = place == len(pieces) - 1
            words = v1.TextInput(text=piece, utterance_id=utterance_id, end_utterance=is_last)
            await call.write(v1.SynthesizeStreamRequest(text=words))
            if place == flushes_at and not is_last:
                await call.write(v1.SynthesizeStreamRequest(flush=v1.Flush(utterance_id=utterance_id)))
            await asyncio.sleep(rng.uniform(1, 4) if place == thinks_at else rng.random() * pause_s)

    def _check(self, got: list[Any], texts: dict[str, str], cancelled: set[str], since: float) -> None:
        totals = self._report.totals
        totals["sessions that spoke"] += 1
        is_well = self._ended(got, since)
        endings = _over(got)
        chunks: dict[str, list[Any]] = {}
        for response in got:
            if response.WhichOneof("event") == "audio":
                chunks.setdefault(response.audio.utterance_id, []).append(response.audio)
        for utterance_id, text in texts.items():
            ending = endings.get(utterance_id)
            if ending is None:
                if is_well:
                    raise Mismatch(f"{utterance_id} has no end")
                continue
            kind, event = ending
            if kind == "utterance_failed":
                began = [
                    self._came_at[r.sequence]
                    for r in got
                    if r.WhichOneof("event") == "utterance_started"
                    and r.utterance_started.utterance_id == utterance_id
                ]
                (told,) = (r for r in got if r.utterance_failed.utterance_id == utterance_id)
                self._excused(event.error, began[0] if began else since, told)
                totals["utterances that an outage ended"] += 1
            elif kind == "utterance_cancelled":
                if utterance_id not in cancelled and is_well:
                    raise Mismatch(f"{utterance_id} was cancelled by nobody")
                totals["utterances cancelled"] += 1
            else:
                totals["utterances whole"] += 1
            heard = chunks.get(utterance_id, [])
            check_speech(text, heard, is_whole=kind == "utterance_completed")
            if [c.chunk_index for c in heard] != list(range(len(heard))):
                raise Mismatch(f"the chunks of {utterance_id} have a gap")
            totals["utterances resumed in mid-word"] += any(c.discontinuity for c in heard)
            totals["characters spoken"] += len(text) if kind == "utterance_completed" else 0


def _over(got: list[Any]) -> dict[str, tuple[str, Any]]:
    """How each utterance ended. Raises `Mismatch` where one did twice."""
    found: dict[str, tuple[str, Any]] = {}
    for response in got:
        kind = response.WhichOneof("event")
        if kind in ("utterance_completed", "utterance_cancelled", "utterance_failed"):
            event = getattr(response, kind)
            if event.utterance_id in found:
                raise Mismatch(f"{event.utterance_id} ended twice")
            found[event.utterance_id] = (kind, event)
    return found


class Listener(Stream):
    """Has speech recognized, mostly at the pace of a microphone, else as fast as it is taken."""

    async def _session(self, got: list[Any]) -> None:
        rng, loop = self._rng, asyncio.get_running_loop()
        since = loop.time()
        call = transcription_service_pb2_grpc.TranscriptionServiceStub(self._channel).TranscribeStream()  # type: ignore[no-untyped-call]
        start = v1.StartTranscription(
            audio_format=v1.AudioFormat(encoding=v1.AUDIO_ENCODING_LINEAR16, sample_rate_hertz=RATE_HZ),
            settings=v1.TranscriptionSettings(word_timings=True, full_transcript=True),
        )
        await call.write(v1.TranscribeStreamRequest(start=start))
        reader = asyncio.create_task(self._read(call, got))
        pieces: list[tuple[str, float]] = []
        asked: list[str] = []
        at_s, begun = 0.0, loop.time()
        is_paced = rng.random() < 0.8
        try:
            for number in range(rng.randrange(1, 3 if self._is_brief else 5)):
                text = " ".join(self._words())
                pieces.append((text, at_s))
                pause_s = rng.choice([0.1, 0.5, 1.5, 1.5, 1.5 if self._is_brief else 8.0])
                pcm = encode_text(text, RATE_HZ) + bytes(2 * round(RATE_HZ * pause_s))
                for at in range(0, len(pcm), PIECE_BYTES):
                    content = pcm[at : at + PIECE_BYTES]
                    await call.write(v1.TranscribeStreamRequest(audio=v1.AudioInput(content=content)))
                    at_s += len(content) / 2 / RATE_HZ
                    await asyncio.sleep(max(0.0, begun + at_s - loop.time()) if is_paced else 0)
                if rng.random() < 0.3:
                    asked.append(f"f{number}")
                    finalize = v1.Finalize(finalize_id=asked[-1])
                    await call.write(v1.TranscribeStreamRequest(finalize=finalize))
            await call.write(v1.TranscribeStreamRequest(end_session=v1.EndSession()))
            await call.done_writing()
        except (asyncio.InvalidStateError, grpc.aio.AioRpcError):
            pass  # it has ended already; what it said tells why
        finally:
            if asyncio.current_task().cancelling():  # type: ignore[union-attr]
                reader.cancel()
        await reader
        self._check(got, pieces, asked, since)

    def _check(self, got: list[Any], pieces: list[tuple[str, float]], asked: list[str], since: float) -> None:
        totals = self._report.totals
        totals["sessions that listened"] += 1
        is_well = self._ended(got, since)
        finals = [
            r.transcript for r in got if r.WhichOneof("event") == "transcript" and r.transcript.is_final
        ]
        heard = [(w.text, w.start_offset.ToTimedelta().total_seconds()) for t in finals for w in t.words]
        check_words(expected_words(pieces), heard, is_whole=is_well)
        totals["words heard"] += len(heard)
        lost = sum(
            r.connection.lost_audio_duration.ToTimedelta().total_seconds()
            for r in got
            if r.WhichOneof("event") == "connection"
        )
        if lost:
            raise Mismatch(f"{lost:.3f} s of audio were lost")
        if is_well:
            answered = [t.finalize_id for t in finals if t.finalize_id]
            if answered != asked:
                raise Mismatch(f"asked for the finals {asked}, had {answered}")
            if [t.is_last for t in finals].count(True) != 1:
                raise Mismatch("there is not exactly one last transcript")
            whole = " ".join(text for text, _ in pieces)
            if finals[-1].full_text != whole:
                raise Mismatch(f"the full text of {whole!r} was {finals[-1].full_text!r}")


# -- all of it --------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _gateway(upstream_url: str, protocol: str, log: list[str]) -> AsyncGenerator[tuple[str, int], None]:
    """A `wavegate-server` process: its address and its process id. `log` gets its stderr."""
    ours = ("WAVEGATE_", "WAVES_LOCAL_", "OTEL_", "SMALLEST_")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    with tempfile.TemporaryDirectory(prefix="wavegate-soak-") as folder:
        port_file = Path(folder) / "port"
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "wavegate_server", "--listen", "127.0.0.1:0"),
            *("--port-file", str(port_file), "--upstream", upstream_url, "--log-level", "warning"),
            *("--tts-protocol", protocol),
            stdout=DEVNULL,
            stderr=PIPE,
            env={**environment, "SMALLEST_API_KEY": "soak"},
        )

        async def read_log() -> None:
            assert process.stderr is not None
            async for line in process.stderr:
                log.append(line.decode(errors="replace").rstrip("\n"))

        reader = asyncio.create_task(read_log())
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                while not port_file.exists():
                    if process.returncode is not None:
                        raise RuntimeError(f"the gateway ended with {process.returncode}: {log}")
                    await asyncio.sleep(0.05)
            yield f"127.0.0.1:{int(port_file.read_text())}", process.pid
        finally:
            if process.returncode is None:
                process.terminate()
                try:
                    async with asyncio.timeout(STOP_TIMEOUT_S):
                        await process.wait()
                except TimeoutError:
                    log.append("Traceback: the gateway did not stop")
                    process.kill()
                    await process.wait()
            await reader


@dataclass
class World:
    """An upstream with its dialect, and the gateway in front of it."""

    name: str
    protocol: str
    options: waves_local.Options
    misfortune: Misfortune
    target: str
    pid: int

    def __str__(self) -> str:
        return described(self.name, self.protocol, self.options)


def dialect(rng: random.Random) -> waves_local.Options:
    """An upstream of one of the kinds that the sources describe."""
    options = waves_local.Options(
        complete_per=rng.choice(["turn", "turn", "release", "request", "none"]),
        complete_late_s=rng.choice([0.0, 0.0, 0.7, 3.0]),
        complete_overtaken=rng.choice(["prompt", "merge", "late"]),
        echo_ids=rng.random() < 0.7,
        word_timings=rng.choice(["always", "always", "never"]),
        word_times_restart=rng.random() < 0.7,
        # Mostly somewhat faster than it is played, so that faults meet it in the middle.
        generation_speed=rng.choice([0.5, 1.0, 2.0, 2.0, 5.0]),
        first_audio_delay_s=rng.choice([0.0, 0.1, 0.7, 1.5]),
        stt_delay_s=rng.choice([0.0, 0.15, 0.6]),
        partials=rng.random() < 0.8,
        speech_final=rng.random() < 0.5,
        empty_finalize=rng.choice(["answered", "silent"]),
        last_apart=rng.random() < 0.5,
        max_words=rng.choice([8, 30]),
        journal_messages=1,
    )
    if options.complete_per == "turn" and rng.random() < 0.2:
        options = replace(options, complete_closes=True)
    return options


def described(name: str, protocol: str, options: waves_local.Options) -> str:
    """A world in a line, as the switches of `wavegate-server` and `waves-local`."""
    plain = waves_local.Options()
    switches = [
        f"--{'' if value is not False else 'no-'}{f.name.replace('_', '-')}"
        + (f" {value}" if not isinstance(value, bool) else "")
        for f in fields(options)
        if f.name != "journal_messages" and (value := getattr(options, f.name)) != getattr(plain, f.name)
    ]
    return f"world {name}: {protocol}; waves-local {' '.join(switches)}"


@contextlib.asynccontextmanager
async def _world(
    name: str, protocol: str, rng: random.Random, report: Report, log: list[str]
) -> AsyncGenerator[World, None]:
    options = dialect(rng)
    report.worlds.append(described(name, protocol, options))
    async with (
        waves_local.serve(options=options) as upstream,
        _gateway(upstream.url, protocol, log) as (target, pid),
    ):
        misfortune = Misfortune(upstream, rng, report.totals)
        yield World(name, protocol, options, misfortune, target, pid)


async def _shift(
    number: int, seconds: float, streams: int, fault_every_s: float, report: Report, *, is_brief: bool
) -> None:
    """Have sessions for so long in two worlds, then let those that are open end."""
    loop, log = asyncio.get_running_loop(), list[str]()
    async with contextlib.AsyncExitStack() as stack:
        worlds = [
            await stack.enter_async_context(
                _world(
                    f"{number}.{place}",
                    protocol,
                    random.Random(f"{report.seed}/{number}/{protocol}"),
                    report,
                    log,
                )
            )
            for place, protocol in enumerate(("continuations", "flush"))
        ]
        # Some channels, as several clients would have.
        channels = [
            await stack.enter_async_context(
                grpc.aio.insecure_channel(world.target, options=[("grpc.use_local_subchannel_pool", 1)])
            )
            for world in worlds
            for _ in range(2)
        ]
        until = loop.time() + seconds
        kinds: list[type[Stream]] = [Speaker, Listener]
        running = [
            asyncio.create_task(
                kinds[n % 2](
                    channels[n // 2 % 4],
                    f"{report.seed}/{number}/{n}",
                    report,
                    worlds[n // 2 % 4 // 2],
                    is_brief=is_brief,
                ).go_on(until)
            )
            for n in range(streams)
        ]
        try:
            while loop.time() + fault_every_s < until:
                await asyncio.sleep(fault_every_s)
                await asyncio.gather(*(world.misfortune.strike() for world in worlds))
            await asyncio.gather(*running)
        finally:
            for task in running:
                task.cancel()
        for world, channel in zip(worlds, channels[::2], strict=True):
            sessions = session_service_pb2_grpc.SessionServiceStub(channel)  # type: ignore[no-untyped-call]
            left = (await sessions.ListSessions(v1.ListSessionsRequest())).sessions
            report.mismatches += [f"a session is left in {world}: {s.session_id}" for s in left]
            totals, pid = report.totals, world.pid
            for name, amount in (
                ("gateways' memory at most, MiB", _resident_mib(pid)),
                ("gateways' descriptors at the end, at most", len(os.listdir(f"/proc/{pid}/fd"))),
            ):
                totals[name] = max(totals[name], amount)
    report.mismatches += [
        f"the gateway's log: {line}" for line in log if "Traceback" in line or "unexpected" in line
    ]


async def soak(
    seconds: float,
    seed: int,
    *,
    streams: int = STREAMS,
    fault_every_s: float = FAULT_EVERY_S,
    shifts: Sequence[int] = (),
    is_brief: bool = False,
) -> Report:
    """Run for so long, in shifts; what happened. `shifts`: only those of these numbers, from 1, each at its length.
    `is_brief`: sessions of a few seconds."""
    report = Report(seed)
    count = max(1, round(seconds / SHIFT_S))
    began, known = time.monotonic(), 0
    for number in shifts or range(1, count + 1):
        await _shift(number, seconds / count, streams, fault_every_s, report, is_brief=is_brief)
        print(f"soak: shift {number} of {count} over after {time.monotonic() - began:.0f} s", flush=True)
        for mismatch in report.mismatches[known:]:
            print(f"soak: MISMATCH: {mismatch}", flush=True)
        known = len(report.mismatches)
    report.seconds = time.monotonic() - began
    return report


def random_tests(rounds: int, report: Report) -> None:
    """Run the random tests of the parts with new seeds; a failure is a mismatch, with the command that replays it."""
    for _ in range(rounds):
        seed = secrets.randbelow(2**31)
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-m",
            "random",
            "--tb=short",
            f"--hypothesis-seed={seed}",
        ]
        done = subprocess.run(
            [
                *command,
                "tests",
                "--ignore=tests/e2e/test_soak.py",
            ],
            env={**os.environ, "WAVEGATE_SEEDS": "random"},
            capture_output=True,
            text=True,
            check=False,
        )
        report.totals["rounds of random tests"] += 1
        if done.returncode:
            report.mismatches.append(f"random tests, --hypothesis-seed={seed}:\n{done.stdout[-6000:]}")


def _resident_mib(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 2**20


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--seconds", type=float, default=600.0, help="how long (600)")
    parser.add_argument("--seed", type=int, default=None, help="of what is said and what goes wrong (random)")
    parser.add_argument("--streams", type=int, default=STREAMS, help=f"half speak, half listen ({STREAMS})")
    parser.add_argument(
        "--fault-every", type=float, default=FAULT_EVERY_S, help=f"seconds between faults ({FAULT_EVERY_S:g})"
    )
    parser.add_argument(
        "--shift",
        type=int,
        action="append",
        help="only the shift of this number, to replay it; may be given again",
    )
    parser.add_argument(
        "--random-tests", type=int, default=1, metavar="ROUNDS", help="of the random tests afterwards (1)"
    )
    given = parser.parse_args()
    seed = given.seed if given.seed is not None else secrets.randbelow(2**31)
    again = f"--seconds {given.seconds:g} --streams {given.streams} --fault-every {given.fault_every:g}"
    print(
        f'soak: to replay: make soak ARGS="--seed {seed} {again}" (with --shift N: the worlds N.*)',
        flush=True,
    )
    try:
        report = asyncio.run(
            soak(
                given.seconds,
                seed,
                streams=given.streams,
                fault_every_s=given.fault_every,
                shifts=given.shift or (),
            )
        )
        random_tests(given.random_tests, report)
    except KeyboardInterrupt:
        sys.exit(130)
    print(report)
    sys.exit(1 if report.mismatches else 0)


if __name__ == "__main__":
    main()
