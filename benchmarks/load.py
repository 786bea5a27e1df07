"""The load generator: jobs as lines of JSON on stdin, figures as lines of JSON on stdout.

    python -m benchmarks.load

The loops are open: what is due is sent when it is due, whatever became of what was sent before. A chunk that the
generator sends late, because a write was held up, counts as late from when it was due. `load_share` says how much of
one core the generator used itself: near 1, it measures itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import random
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import uvloop

from benchmarks.callers import (
    Channels,
    DirectListening,
    DirectSpeech,
    Failed,
    GatewayListening,
    GatewaySpeech,
    Listening,
    Speech,
    cut_at_end,
)
from benchmarks.processes import cpu_s
from benchmarks.wire import FRAMES_A_WORD, Heard, Order, Series, filling, now_ns, read_stamp, spread, stamp

ENDLESS_CHUNKS = 10_000_000
CHANNELS = 8
# Whole utterances play equally long: the gateway waits for more where one is far too short for its text.
UTTERANCE = Order(1, 28_800, 0)
UTTERANCE_IN_CHUNKS = Order(12, 2400, 2000)
UTTERANCE_IN_REAL_TIME = Order(400, 480, 10_000)
UTTERANCE_WITHOUT_END = Order(ENDLESS_CHUNKS, 4800, 0)
FULL_AFTER_S = 0.1
"""After this the transport of who does not read is full."""
CHURN_AT_ONCE = 16
ENTRANCE_S = 0.02
LEEWAY_S = 0.5
"""How much longer than the measured time sessions last."""

Job = dict[str, Any]
Figures = dict[str, Any]


class Window:
    """The measured time, between the warm-up and the end."""

    def __init__(self, pid: int | None) -> None:
        """`pid`: the gateway; None where there is none, then the generator's own CPU is what counts."""
        self._pid = pid
        self.open = False
        self._began = self._ended = (0.0, 0.0, 0.0)

    def begin(self) -> None:
        self._began = self._now()
        self.open = True

    def end(self) -> None:
        self.open = False
        self._ended = self._now()

    def _now(self) -> tuple[float, float, float]:
        own = time.process_time()
        return time.monotonic(), own if self._pid is None else cpu_s(self._pid), own

    def figures(self, count: int, what: str) -> Figures:
        """CPU per piece of work, and how busy everybody was."""
        wall_s, cpu, own = (after - before for after, before in zip(self._ended, self._began, strict=True))
        return {
            f"cpu_us_per_{what}": round(1e6 * cpu / count, 2) if count else 0.0,
            f"{what}s_per_s": round(count / wall_s, 1),
            "cpu_share": round(cpu / wall_s, 4),
            "load_share": round(own / wall_s, 4),
        }


@asynccontextmanager
async def callers(job: Job) -> AsyncIterator[tuple[Callable[[], Speech], Callable[[], Listening]]]:
    """How to make a session of either kind, the way the job says."""
    if "direct" in job:
        url = job["direct"]
        yield lambda: DirectSpeech(url), lambda: DirectListening(url)
        return
    channels = Channels(job["target"], CHANNELS)
    await channels.ready()
    try:
        yield lambda: GatewaySpeech(channels.next()), lambda: GatewayListening(channels.next())
    finally:
        await channels.close()


async def gather_until(end: Coroutine[Any, Any, None], sessions: list[Coroutine[Any, Any, None]]) -> None:
    """Run sessions that have no end until `end` has one; the first failure of any is raised."""
    tasks = [asyncio.create_task(s) for s in sessions]
    last = asyncio.create_task(end)
    try:
        await asyncio.wait({last, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        for task in (last, *tasks):
            if task.done():
                task.result()
    finally:
        for task in (last, *tasks):
            task.cancel()
        await asyncio.gather(last, *tasks, return_exceptions=True)


def _entrance_s(index: int, count: int, interval_s: float) -> float:
    """When a session begins: one after the other, and spread over one interval, as real callers are not in step."""
    return index * (ENTRANCE_S + interval_s / count)


# -- chunks -----------------------------------------------------------------------------------------------------


async def speak(job: Job) -> Figures:
    """Sessions that speak without end, flat out or in real time: CPU per chunk, and each chunk's way down."""
    window = Window(job.get("pid"))
    order = Order(ENDLESS_CHUNKS, job["chunk_bytes"], job["interval_us"])
    count = job["sessions"]
    under_way = asyncio.Event()
    latencies_us: list[float] = []
    first_audio_ms: list[float] = []

    async with callers(job) as (make, _):

        async def session(index: int) -> None:
            await asyncio.sleep(_entrance_s(index, count, order.interval_us / 1e6))
            series = Series(order.chunk_bytes)
            async with cut_at_end(make()) as speech:
                await speech.open()
                asked = now_ns()

                def on_audio(audio: bytes) -> None:
                    sent = series.take(audio)
                    now = now_ns()
                    if series.next == 1:
                        first_audio_ms.append((now - asked) / 1e6)
                        if len(first_audio_ms) == count:
                            under_way.set()
                    if window.open:
                        latencies_us.append((now - sent) / 1000)

                await speech.say(order)
                await speech.listen(on_audio)

        async def measure() -> None:
            await under_way.wait()
            await asyncio.sleep(job["warmup_s"])
            window.begin()
            await asyncio.sleep(job["seconds"])
            window.end()

        await gather_until(measure(), [session(i) for i in range(count)])
    return {
        **window.figures(len(latencies_us), "chunk"),
        **spread(latencies_us, "chunk_us"),
        **spread(first_audio_ms, "first_audio_ms"),
        "chunks": len(latencies_us),
    }


async def listen(job: Job) -> Figures:
    """Sessions that are spoken to in real time: CPU per chunk, and each chunk's way up."""
    window = Window(job.get("pid"))
    size, interval_s, count = job["chunk_bytes"], job["interval_us"] / 1e6, job["sessions"]
    rest = filling(size)
    up_us: list[float] = []
    word_us: list[float] = []
    late_ms: list[float] = []
    under_way = asyncio.Event()
    heard = 0

    async with callers(job) as (_, make):

        async def session(index: int) -> None:
            await asyncio.sleep(_entrance_s(index, count, interval_s))
            async with cut_at_end(make()) as listening:
                await listening.open()
                first = True

                def on_word(word: Heard) -> None:
                    nonlocal heard, first
                    if first:
                        first = False
                        heard += 1
                        if heard == count:
                            under_way.set()
                    if window.open:
                        up_us.append(word.up_us)
                        word_us.append(word.down_us())

                async def send() -> None:
                    began = now_ns()
                    number = 0
                    while True:
                        due = began + round(number * interval_s * 1e9)
                        if (ahead := due - now_ns()) > 0:
                            await asyncio.sleep(ahead / 1e9)
                        now = now_ns()
                        if window.open:
                            late_ms.append((now - due) / 1e6)
                        # A timer may also ring a little early.
                        await listening.send(stamp(number, min(due, now)) + rest)
                        number += 1

                await gather_until(send(), [listening.read(on_word)])

        async def measure() -> None:
            await under_way.wait()
            await asyncio.sleep(job["warmup_s"])
            window.begin()
            await asyncio.sleep(job["seconds"])
            window.end()

        await gather_until(measure(), [session(i) for i in range(count)])
    return {
        **window.figures(len(up_us) * FRAMES_A_WORD, "chunk"),
        **spread(up_us, "chunk_us"),
        **spread(word_us, "transcript_us"),
        **spread(late_ms, "sent_late_ms"),
        "chunks": len(up_us) * FRAMES_A_WORD,
    }


async def both(job: Job) -> Figures:
    """Sessions of both kinds in real time, half and half, that all end in good order: every chunk is counted.

    CPU per chunk and each chunk's way are those of the window; `chunks_in` and `chunks_out` count the messages with
    text or audio from the callers, and those with audio or a transcript to them, from the beginning to the end.
    """
    window = Window(job.get("pid"))
    interval_s, count = job["interval_us"] / 1e6, job["sessions"]
    entered_s = _entrance_s(count, count, interval_s)
    chunks = round((entered_s + job["warmup_s"] + job["seconds"] + LEEWAY_S) / interval_s)
    order = Order(chunks, job["speech_bytes"], job["interval_us"])
    rest = filling(job["heard_bytes"])
    latencies_us: list[float] = []
    first_audio_ms: list[float] = []
    counted = chunks_in = chunks_out = 0

    async with callers(job) as (speech_of, listening_of):

        async def speaking() -> None:
            nonlocal counted, chunks_in, chunks_out
            series = Series(order.chunk_bytes)
            async with cut_at_end(speech_of()) as speech:
                await speech.open()
                asked = now_ns()

                def on_audio(audio: bytes) -> None:
                    nonlocal counted, chunks_out
                    sent = series.take(audio)
                    now = now_ns()
                    chunks_out += 1
                    if series.next == 1:
                        first_audio_ms.append((now - asked) / 1e6)
                    if window.open:
                        counted += 1
                        latencies_us.append((now - sent) / 1000)

                await speech.say(order)
                chunks_in += 1
                await speech.listen(on_audio)
                await speech.end()

        async def listening() -> None:
            nonlocal counted, chunks_in, chunks_out
            session = listening_of()
            assert isinstance(session, GatewayListening)
            async with cut_at_end(session):
                await session.open()

                def on_word(word: Heard) -> None:
                    if window.open:
                        latencies_us.append(word.up_us)

                async def send() -> None:
                    nonlocal counted, chunks_in
                    began = now_ns()
                    for number in range(chunks):
                        due = began + round(number * interval_s * 1e9)
                        if (ahead := due - now_ns()) > 0:
                            await asyncio.sleep(ahead / 1e9)
                        await session.send(stamp(number, min(due, now_ns())) + rest)
                        chunks_in += 1
                        counted += window.open
                    await session.finish()

                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(send())
                    transcripts = await session.read_to_end(on_word)
                chunks_out += transcripts

        async def session(index: int) -> None:
            await asyncio.sleep(_entrance_s(index, count, interval_s))
            await (speaking if index % 2 == 0 else listening)()

        async def measure() -> None:
            await asyncio.sleep(entered_s + job["warmup_s"])
            window.begin()
            await asyncio.sleep(job["seconds"])
            window.end()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(measure())
            for index in range(count):
                tasks.create_task(session(index))
    return {
        **window.figures(counted, "chunk"),
        **spread(latencies_us, "chunk_us"),
        **spread(first_audio_ms, "first_audio_ms"),
        "chunks_in": chunks_in,
        "chunks_out": chunks_out,
    }


# -- sessions ---------------------------------------------------------------------------------------------------


async def open_sessions(job: Job) -> Figures:
    """Sessions opened at a steady rate: how long until one is open, and until it speaks, cold and warm."""
    window = Window(job.get("pid"))
    open_ms: list[float] = []
    cold_ms: list[float] = []
    warm_ms: list[float] = []

    async with callers(job) as (make, _):

        async def session(due_ns: int, counted: bool) -> None:
            async with cut_at_end(make()) as speech:
                await speech.open()
                opened = now_ns()
                at = [due_ns]
                heard: list[float] = []

                def on_audio(audio: bytes) -> None:
                    read_stamp(audio)
                    heard.append((now_ns() - at[0]) / 1e6)

                for _ in range(2):
                    await speech.say(UTTERANCE)
                    await speech.listen(on_audio)
                    at[0] = now_ns()
                await speech.end()
            if counted:
                open_ms.append((opened - due_ns) / 1e6)
                cold_ms.append(heard[0])
                warm_ms.append(heard[1])

        async def run(seconds: float, counted: bool) -> None:
            interval_ns = round(1e9 / job["rate"])
            began = now_ns()
            async with asyncio.TaskGroup() as tasks:
                for number in range(round(seconds * job["rate"])):
                    due = began + number * interval_ns
                    if (ahead := due - now_ns()) > 0:
                        await asyncio.sleep(ahead / 1e9)
                    tasks.create_task(session(due, counted))

        await run(job["warmup_s"], counted=False)
        window.begin()
        await run(job["seconds"], counted=True)
        window.end()
    return {
        **window.figures(len(open_ms), "session"),
        **spread(open_ms, "open_ms"),
        **spread(cold_ms, "cold_first_audio_ms"),
        **spread(warm_ms, "first_audio_ms"),
        "sessions": len(open_ms),
    }


async def between_utterances(job: Job) -> Figures:
    """Utterances that follow each other: from the last chunk of one to the first of the next.

    Each can have several releases, so that the gateway knows its end for certain only later. The direct caller sends
    the next text when the upstream said `complete`, as soon as one can.
    """
    order = Order(job["chunks"], job["chunk_bytes"], job["interval_us"], opening="Yes. No. ")
    gaps_ms: list[float] = []

    async with callers(job) as (make, _):

        async def session() -> None:
            last: int | None = None
            begins = True

            def on_audio(audio: bytes) -> None:
                nonlocal last, begins
                now = now_ns()
                if begins and last is not None:
                    gaps_ms.append((now - last) / 1e6)
                last, begins = now, False

            async with cut_at_end(make()) as speech:
                await speech.open()
                waiting = isinstance(speech, GatewaySpeech)
                if waiting:
                    for _ in range(job["utterances"]):
                        await speech.say(order)
                for _ in range(job["utterances"]):
                    begins = True
                    if not waiting:
                        await speech.say(order)
                    await speech.listen(on_audio)
                await speech.end()

        async with asyncio.TaskGroup() as tasks:
            for _ in range(job["sessions"]):
                tasks.create_task(session())
    return {**spread(gaps_ms, "gap_ms"), "gaps": len(gaps_ms)}


async def barge_in(job: Job) -> Figures:
    """Cancels in mid-speech: how long stale audio still comes, and when the next utterance is heard.

    Half of the listeners read as fast as they can; the others as a player does, so that the gateway and the
    transport are full of audio when the cancel comes.
    """
    order = Order(ENDLESS_CHUNKS, job["chunk_bytes"], job["interval_us"])
    playing_s = job["chunk_bytes"] / 48_000
    stale_ms: dict[str, list[float]] = {"eager": [], "player": []}
    acked_ms: dict[str, list[float]] = {"eager": [], "player": []}
    next_ms: list[float] = []
    after = 0
    chance = random.Random(job["seed"])

    channels = Channels(job["target"], CHANNELS)
    await channels.ready()

    async def session(index: int) -> None:
        nonlocal after
        kind = "player" if index % 2 else "eager"
        speech = GatewaySpeech(channels.next())
        try:
            await speech.open()
            cancelled_at: int | None = None
            over = ""
            for _ in range(job["cancels"] // job["sessions"]):
                await speech.say(order)
                asked = now_ns()
                waits_s = chance.uniform(0.05, 0.4)
                # -- speaking
                first: int | None = None
                heard = 0
                while first is None or (now_ns() - first) / 1e9 < waits_s:
                    response = await speech.event()
                    if not response.HasField("audio"):
                        continue
                    if response.audio.utterance_id == over:
                        after += 1
                    heard += 1
                    if first is None:
                        first = now_ns()
                        if cancelled_at is not None:
                            next_ms.append((first - asked) / 1e6)
                    if kind == "player":
                        ahead_s = heard * playing_s - 0.3 - (now_ns() - first) / 1e9
                        if ahead_s > 0:
                            await asyncio.sleep(min(ahead_s, waits_s))
                # -- barging in
                cancelled_at = now_ns()
                last_stale = cancelled_at
                await speech.cancel()
                while True:
                    response = await speech.event()
                    if response.HasField("audio"):
                        last_stale = now_ns()
                    elif response.HasField("utterance_cancelled"):
                        break
                over = speech.utterance_id
                stale_ms[kind].append((last_stale - cancelled_at) / 1e6)
                acked_ms[kind].append((now_ns() - cancelled_at) / 1e6)
            await speech.end()
        finally:
            await speech.cut()

    try:
        async with asyncio.TaskGroup() as tasks:
            for index in range(job["sessions"]):
                tasks.create_task(session(index))
    finally:
        await channels.close()
    return {
        "cancels": sum(map(len, stale_ms.values())),
        **spread(stale_ms["eager"], "stale_ms"),
        **spread(acked_ms["eager"], "cancelled_ms"),
        **spread(stale_ms["player"], "player_stale_ms"),
        **spread(acked_ms["player"], "player_cancelled_ms"),
        **spread(next_ms, "next_first_audio_ms"),
        "stale_chunks_after_cancelled": after,
    }


class Held:
    """Sessions that stay open from one job to the next."""

    def __init__(self) -> None:
        self._stack: AsyncExitStack | None = None

    async def hold(self, job: Job) -> Figures:
        """Open sessions that have said a word and then wait."""
        self._stack = AsyncExitStack()
        speech_of, listening_of = await self._stack.enter_async_context(callers(job))
        for index in range(job["sessions"]):
            if job["kind"] == "tts":
                speech = await self._stack.enter_async_context(cut_at_end(speech_of()))
                await speech.open()
                await speech.say(UTTERANCE)
                await speech.listen(lambda audio: None)
            else:
                listening = await self._stack.enter_async_context(cut_at_end(listening_of()))
                await listening.open()
                await listening.send(stamp(0, now_ns()) + filling(job["chunk_bytes"]))
            if index % 50 == 49:
                await asyncio.sleep(0)
        return {"sessions": job["sessions"]}

    async def rest(self, job: Job) -> Figures:
        """Watch what the held sessions cost while nothing happens."""
        window = Window(job["pid"])
        window.begin()
        await asyncio.sleep(job["seconds"])
        window.end()
        return window.figures(0, "session")

    async def release(self, _: Job) -> Figures:
        assert self._stack is not None
        await self._stack.aclose()
        self._stack = None
        return {}


async def churn(job: Job) -> Figures:
    """Sessions that come and go, both kinds in turn. How they end is `job["end"]`:

    - `well`: in good order.
    - `heard`: cancelled by who hears everything as it comes, so that nothing waits to be written.
    - `waiting`: cancelled by who asked for more audio than it reads, so that some waits to be written (speech only).
    - `mixed`: every other one in good order, the others cancelled in the middle of their work.
    """
    left = iter(range(job["sessions"]))
    end = job.get("end", "mixed")
    order = {"heard": UTTERANCE_IN_REAL_TIME, "waiting": UTTERANCE_WITHOUT_END}.get(end, UTTERANCE_IN_CHUNKS)
    ended = cancelled = 0

    async with callers(job) as (speech_of, listening_of):

        async def speaking(cancels: bool) -> None:
            async with cut_at_end(speech_of()) as speech:
                await speech.open()
                await speech.say(order)
                heard = 0

                def on_audio(audio: bytes) -> None:
                    nonlocal heard
                    heard += 1
                    if cancels and heard == 3:
                        raise _Enough

                try:
                    await speech.listen(on_audio)
                except _Enough:
                    if end == "waiting":
                        await asyncio.sleep(FULL_AFTER_S)
                    return
                await speech.end()

        async def listening(cancels: bool) -> None:
            session = listening_of()
            assert isinstance(session, GatewayListening)
            async with cut_at_end(session):
                await session.open()
                for number in range(12):
                    await session.send(stamp(number, now_ns()) + filling(job["chunk_bytes"]))
                if not cancels:
                    await session.end()
                elif end == "heard":
                    with contextlib.suppress(_Enough):
                        await session.read(_enough)

        async def worker() -> None:
            nonlocal ended, cancelled
            for number in left:
                cancels = number // 2 % 2 == 1 if end == "mixed" else end != "well"
                await (speaking if number % 2 == 0 or end == "waiting" else listening)(cancels)
                cancelled += cancels
                ended += not cancels

        async with asyncio.TaskGroup() as tasks:
            for _ in range(CHURN_AT_ONCE):
                tasks.create_task(worker())
    return {"ended": ended, "cancelled": cancelled}


class _Enough(Exception):
    """The caller has heard what it wanted."""


def _enough(word: Heard) -> None:
    raise _Enough


# -- the process ------------------------------------------------------------------------------------------------


async def _run() -> None:
    held = Held()
    jobs: dict[str, Callable[[Job], Coroutine[Any, Any, Figures]]] = {
        "speak": speak,
        "listen": listen,
        "both": both,
        "open": open_sessions,
        "between-utterances": between_utterances,
        "barge-in": barge_in,
        "hold": held.hold,
        "rest": held.rest,
        "release": held.release,
        "churn": churn,
    }
    reader = asyncio.StreamReader(limit=2**20)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    while line := await reader.readline():
        job = json.loads(line)
        try:
            answer = await jobs[job["job"]](job)
        except Exception as exc:  # whatever goes wrong is the answer
            answer = {"error": _said(exc)}
        gc.collect()
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _said(exc: BaseException) -> str:
    if isinstance(exc, BaseExceptionGroup):
        return _said(exc.exceptions[0])
    return str(exc) if isinstance(exc, Failed) else f"{type(exc).__name__}: {exc}"


def main() -> None:
    uvloop.run(_run())


if __name__ == "__main__":
    main()
