"""An upstream that differs, fails, stalls or talks nonsense: what the caller of a synthesis then sees.

Most tests write every frame of the upstream themselves, so that each way in which the sources disagree, and each
way of going wrong, happens just so. Audio is pieces of constant level: what was heard, once and in order, shows
in `levels`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator
from typing import Any

import grpc
import grpc.aio
import pytest
import waves_local
from wavegate.speech import v1
from wavegate_server.session.context import Bounds
from wavegate_server.session.transport import DialOptions, WebSocketDialer
from wavegate_server.waves import tts
from wavegate_server.waves.tts import Mode

from tests.support.calls import (
    PATIENCE_S,
    TERMINAL,
    Failure,
    Speaking,
    cancel,
    change,
    failure,
    failure_of_error,
    flush,
    seconds,
    together,
)
from tests.support.gateway import END, RunningGateway, running_gateway, start, text
from tests.support.scripted_upstream import (
    HungUp,
    Script,
    Talk,
    Turn,
    level,
    levels,
    nobody,
    raw_upstream,
    scripted_upstream,
)

OK = Failure(grpc.StatusCode.OK)
Event = v1.ConnectionEvent
UNAVAILABLE = ("UNAVAILABLE", "UPSTREAM_UNAVAILABLE")
CAPACITY = ("RESOURCE_EXHAUSTED", "UPSTREAM_CAPACITY")
CREDENTIAL = ("FAILED_PRECONDITION", "UPSTREAM_CREDENTIAL")
GONE = ("FAILED_PRECONDITION", "UPSTREAM_GONE")
REJECTED = ("INVALID_ARGUMENT", "UPSTREAM_REJECTED")
STALLED = ("UNAVAILABLE", "UPSTREAM_STALLED")
PROTOCOL = ("INTERNAL", "UPSTREAM_PROTOCOL")
PIECE = 240
"""Samples of one piece of audio."""

MODES = pytest.mark.parametrize("mode", list(Mode), ids=lambda m: m.value)


def speaking(gateway: RunningGateway, **options: Any) -> Speaking:
    return Speaking(gateway.synthesis.SynthesizeStream(**options))


def source(name: str) -> int:
    return int(
        v1.synthesis_service_pb2.UtteranceCompleted.CompletionSource.Value(f"COMPLETION_SOURCE_{name}")
    )


def pieces(*numbers: int) -> list[tuple[int, int]]:
    return [(number, PIECE) for number in numbers]


@contextlib.asynccontextmanager
async def facing(script: Script, *, admit: Any = None, **options: Any) -> AsyncGenerator[Any, None]:
    """A gateway in front of a scripted upstream."""
    async with (
        scripted_upstream(script, admit=admit) as upstream,
        running_gateway(upstream_url=upstream.url, **options) as gateway,
    ):
        yield gateway, upstream


async def polite(talk: Talk) -> None:
    """Answers every request with two pieces and a `complete`: 101, 102, then 201, 202, …"""
    for number in range(1, 1000):
        await talk.speak(await talk.turn(), number * 100 + 1, number * 100 + 2)


async def quiet(talk: Talk) -> None:
    """Accepts, reads, and says nothing."""
    await talk.hung_up()


# -- ways to end an utterance ------------------------------------------------------------------------------------


async def complete_each(talk: Talk) -> None:
    await polite(talk)


async def complete_closes(talk: Talk) -> None:
    """As the specification has it."""
    await talk.speak(await talk.turn(), 100 * talk.number + 1, 100 * talk.number + 2)


async def complete_says_more(talk: Talk) -> None:
    """As old documents have it."""
    for number in range(1, 1000):
        turn = await talk.turn()
        await talk.speak(turn, number * 100 + 1, number * 100 + 2, complete=False)
        await talk.complete(turn.last, message="All chunks sent", done=True)


async def never_complete(talk: Talk) -> None:
    """As much audio as the text can have: without a `complete`, less would be a stall."""
    for number in range(1, 1000):
        turn = await talk.turn()
        talk.requests += 1
        for each in (1, 2):
            await talk.chunk(turn.last, level(number * 100 + each, 24_000))


async def empty_audio_too(talk: Talk) -> None:
    for number in range(1, 1000):
        turn = await talk.turn()
        talk.requests += 1
        await talk.chunk(turn.last, b"")
        await talk.chunk(turn.last, level(number * 100 + 1))
        await talk.frame(turn.last, "chunk")
        await talk.frame(turn.last, "chunk", data={})
        await talk.chunk(turn.last, level(number * 100 + 2))
        await talk.complete(turn.last)


async def unknown_frames_too(talk: Talk) -> None:
    for number in range(1, 1000):
        turn = await talk.turn()
        await talk.frame(turn.last, "queued", position=1)
        await talk.write({"status": "metrics", "load": 0.5})
        await talk.speak(turn, number * 100 + 1, number * 100 + 2, complete=False)
        await talk.frame(turn.last, "viseme", data=[1, 2, 3])
        await talk.complete(turn.last)


async def a_complete_each_release(talk: Talk) -> None:
    """Two requests of the upstream's own, one for each piece, each with its `complete`."""
    for number in range(1, 1000):
        turn = await talk.turn()
        await talk.speak(turn, number * 100 + 1)
        await talk.speak(turn, number * 100 + 2)


ENDINGS = [
    complete_each,
    complete_closes,
    complete_says_more,
    never_complete,
    empty_audio_too,
    unknown_frames_too,
    a_complete_each_release,
]


async def test_each_way_of_ending_an_utterance_is_understood() -> None:
    """Nothing is cut off, said twice or heard in the next utterance, and no end is waited for in vain."""
    said = "Two sentences. Spoken in two releases."

    async def understood(script: Script, ids: str, mode: Mode) -> None:
        case = script.__name__, ids, mode.value

        async def play(talk: Talk) -> None:
            talk.echo = ids == "echoed"
            talk.own_ids = ids != "none"
            await script(talk)

        async with facing(play, mode=mode) as (gateway, upstream):
            stream = speaking(gateway)
            await stream.begin(start())
            for name in ("u1", "u2", "u3"):
                await stream.say(text(said, name, True))
                await stream.until("utterance_completed", utterance_id=name)
            assert await stream.end(END) == OK, case
            for name in ("u1", "u2", "u3"):
                heard = [n % 100 for n, _ in levels(stream.audio(name))]
                assert heard == [1, 2], (case, name, heard)
                completed = stream.one("utterance_completed", name)
                took = seconds(completed.metrics.total_duration)
                assert took < 10, (case, name, took)
                expected = "QUIET_TIMEOUT" if script is never_complete else "UPSTREAM"
                assert completed.completion_source == source(expected), (case, name)
            assert stream.all("utterance_failed") == [], case
            if script is complete_closes:
                assert len(upstream.talks) == 3, case

    cases = [(s, i, m) for s in ENDINGS for i in ("echoed", "own", "none") for m in Mode]
    await together(*(understood(*case) for case in cases))


async def test_audio_after_a_complete_is_not_cut_off() -> None:
    """A `complete` that was not the last: what follows belongs to the utterance."""

    async def play(talk: Talk) -> None:
        turn = await talk.turn()
        await talk.speak(turn, 1)
        await asyncio.sleep(1.5)
        await talk.speak(turn, 2)
        await talk.hung_up()

    async with facing(play) as (gateway, _):
        stream = speaking(gateway)
        assert await stream.end(start(), text("One sentence. And another.", "u1", True), END) == OK
        assert levels(stream.audio()) == pieces(1, 2)


async def test_a_late_tail_of_an_utterance_is_never_heard_in_the_next() -> None:
    """An utterance that a quiet behind its last word ended had more to say: dropped, though the next one is spoken."""

    async def play(talk: Talk) -> None:
        first = await talk.turn()
        for index, word in enumerate(("Ends", "by", "quiet.")):
            await talk.word(first.last, index, word, index * 0.005, index * 0.005 + 0.005)
        await talk.speak(first, 1, 2, complete=False)
        second = await talk.turn()
        await talk.chunk(first.last, level(3))
        await talk.speak(second, 11)
        await talk.chunk(first.last, level(4))
        third = await talk.turn()
        await talk.speak(third, 21)
        await talk.hung_up()

    async with facing(play) as (gateway, _):
        stream = speaking(gateway)
        await stream.begin(start(word_timings=True), text("Ends by quiet.", "u1", True))
        await stream.until("utterance_completed")
        await stream.say(text("Next.", "u2", True))
        await stream.until("utterance_completed")
        assert await stream.end(text("Third.", "u3", True), END) == OK
        assert [levels(stream.audio(u)) for u in ("u1", "u2", "u3")] == [pieces(1, 2), pieces(11), pieces(21)]


async def test_flush_closes_one_request_and_the_utterance_goes_on() -> None:
    """Three requests on the wire, of which each ends in its own way; one utterance for the caller."""

    async def play(talk: Talk) -> None:
        for number in (1, 2, 3):
            turn = await talk.turn()
            assert turn.text.strip() == ["One", "two", "three"][number - 1]
            await talk.speak(turn, number)
        await talk.hung_up()

    for mode in Mode:
        async with facing(play, mode=mode) as (gateway, upstream):
            stream = speaking(gateway)
            await stream.begin(
                start(), text("One", "u1"), flush(), text(" two", "u1"), flush(), text(" three", "u1", True)
            )
            assert await stream.end(END) == OK
            assert levels(stream.audio()) == pieces(1, 2, 3)
            completed = stream.one("utterance_completed")
            assert [u.request_id for u in completed.upstreams] == ["task-1-1", "task-1-2", "task-1-3"]
            ids = {m["request_id"] for m in upstream.talks[0].messages}
            assert len(ids) == 3


# -- audio in odd pieces, words in odd times -----------------------------------------------------------------


async def test_samples_cut_between_chunks_are_joined() -> None:
    async def check(size: int) -> None:
        async def play(talk: Talk) -> None:
            turn = await talk.turn()
            whole = b"".join(level(n) for n in (258, 513, 770))
            talk.requests += 1
            for at in range(0, len(whole), size):
                await talk.chunk(turn.last, whole[at : at + size])
            await talk.complete(turn.last)
            await talk.hung_up()

        async with facing(play) as (gateway, _):
            stream = speaking(gateway)
            assert await stream.end(start(), text("Odd.", "u1", True), END) == OK
            assert levels(stream.audio()) == pieces(258, 513, 770)
            assert not any(len(c.audio) % 2 for c in stream.all("audio"))

    await together(*(check(size) for size in [1, 3, 239, 481]))


async def test_half_a_sample_at_the_end_does_not_shift_the_next_utterance() -> None:
    async def play(talk: Talk) -> None:
        for number in (258, 513):
            turn = await talk.turn()
            talk.requests += 1
            await talk.chunk(turn.last, level(number) + b"\x7f")
            await talk.complete(turn.last)
        await talk.hung_up()

    async with facing(play) as (gateway, _):
        stream = speaking(gateway)
        await stream.say(start(), text("One.", "u1", True), text("Two.", "u2", True))
        assert await stream.end(END) == OK
        assert (levels(stream.audio("u1")), levels(stream.audio("u2"))) == (pieces(258), pieces(513))


async def test_word_times_follow_the_audio_of_their_release() -> None:
    async def check(restart: bool) -> None:
        async def play(talk: Talk) -> None:
            turn = await talk.turn()
            for number, word in enumerate(("One.", "Two.", "Three.")):
                talk.requests += 1
                base = 0.0 if restart else number * 0.2
                await talk.word(turn.last, 0 if restart else number, word, base + 0.01, base + 0.19)
                await talk.chunk(turn.last, level(number + 1, 4800))
            await talk.complete(turn.last)
            await talk.hung_up()

        async with facing(play) as (gateway, _):
            stream = speaking(gateway)
            assert await stream.end(start(word_timings=True), text("One. Two. Three.", "u1", True), END) == OK
            words = [w for e in stream.all("word_timings") for w in e.words]
            assert [w.text for w in words] == ["One.", "Two.", "Three."]
            assert [seconds(w.start_offset) for w in words] == pytest.approx([0.01, 0.21, 0.41])
            assert [seconds(w.end_offset) for w in words] == pytest.approx([0.19, 0.39, 0.59])

    await together(*(check(restart) for restart in [True, False]))


NONSENSE_WORDS: list[Any] = [
    None,
    [],
    {},
    {"word": 7, "start": 0, "end": 1},
    {"word": "x", "start": "0", "end": 1},
    {"word": "x", "start": None, "end": 1},
    {"word": "x", "start": -5, "end": -4},
    {"word": "x", "start": 1e300, "end": 1e301},
    {"word": "x", "start": 0.002, "end": 0.001},
    {"word": "x", "start": True, "end": False},
    {"id": 10**30, "word": "x", "start": 0.0, "end": 10**30},
]


async def test_nonsense_about_words_does_not_harm_the_audio() -> None:
    """It is left out, or bounded to what a time can be; the utterance is spoken all the same."""

    async def unharmed(data: Any) -> None:
        async def play(talk: Talk) -> None:
            turn = await talk.turn()
            talk.requests += 1
            await talk.chunk(turn.last, level(1))
            await talk.frame(turn.last, "word_timestamp", data=data)
            await talk.chunk(turn.last, level(2))
            await talk.complete(turn.last)
            await talk.hung_up()

        async with facing(play) as (gateway, _):
            stream = speaking(gateway)
            status = await stream.end(start(word_timings=True), text("Words.", "u1", True), END)
            assert status == OK, data
            assert levels(stream.audio()) == pieces(1, 2), data

    await together(*map(unharmed, NONSENSE_WORDS))


# -- barge-in ----------------------------------------------------------------------------------------------------


async def test_whatever_answers_a_cancel_the_next_utterance_is_clean() -> None:
    async def check(answer: str) -> None:
        async def play(talk: Talk) -> None:
            first = await talk.turn()
            talk.requests += 1
            await talk.chunk(first.last, level(1))
            told = await talk.read()
            assert told["cancel_request"] is True
            assert told["context_id"] == first.last["context_id"]
            assert "text" not in told
            await talk.chunk(first.last, level(2))  # under way already
            if answer == "complete":
                await talk.complete(first.last)
            elif answer == "cancelled":
                await talk.frame(first.last, "cancelled")
            elif answer == "error":
                await talk.frame(first.last, "error", message="context was cancelled")
            second = await talk.turn()
            await talk.speak(second, 11, 12)
            await talk.hung_up()

        async with facing(play) as (gateway, upstream):
            stream = speaking(gateway)
            await stream.begin(start(), text("Interrupted.", "u1", True))
            await stream.until("audio")
            await stream.say(cancel())
            cancelled = await stream.until("utterance_cancelled")
            assert cancelled.method == v1.UtteranceCancelled.METHOD_UPSTREAM_CANCEL
            await stream.say(text("And now?", "u2", True))
            assert await stream.end(END) == OK
            assert levels(stream.audio("u2")) == pieces(11, 12)
            assert levels(stream.audio("u1")) == pieces(1)
            assert len(upstream.talks) == 1

    await together(*(check(answer) for answer in ["none", "complete", "cancelled", "error"]))


async def test_an_upstream_that_speaks_on_after_a_cancel_is_not_heard() -> None:
    """Told and disobeying, or such that its frames cannot be told apart: another connection speaks what follows."""

    async def check(ids: str) -> None:
        async def play(talk: Talk) -> None:
            talk.echo = ids == "echoed"
            talk.own_ids = ids != "none"
            first = await talk.turn()
            if talk.number == 1:
                while True:
                    await talk.chunk(first.last, level(1))
                    await asyncio.sleep(0.02)
            await talk.speak(first, 11, 12)
            await talk.hung_up()

        for mode in Mode:
            async with facing(play, mode=mode) as (gateway, upstream):
                stream = speaking(gateway)
                await stream.begin(start(), text("Goes on and on.", "u1", True))
                await stream.until("audio")
                await stream.say(cancel(), text("And now?", "u2", True))
                assert await stream.end(END) == OK
                assert levels(stream.audio("u2")) == pieces(11, 12)
                assert len(upstream.talks) == 2
                await upstream.wait_for(lambda u: u.live == 0)

    await together(*(check(ids) for ids in ["echoed", "own", "none"]))


async def test_a_cancel_before_the_first_audio() -> None:
    async def play(talk: Talk) -> None:
        first = await talk.turn()
        told = await talk.read()
        assert told["cancel_request"] is True
        second = await talk.turn()
        await talk.chunk(first.last, level(1))
        await talk.speak(second, 11)
        await talk.hung_up()

    async with facing(play) as (gateway, _):
        stream = speaking(gateway)
        await stream.begin(start(), text("Not yet.", "u1", True))
        await stream.until("utterance_started")
        await stream.say(cancel(), text("Now.", "u2", True))
        assert await stream.end(END) == OK
        assert levels(stream.audio()) == pieces(11)


# -- before it is ready ------------------------------------------------------------------------------------------


async def test_what_is_said_during_a_slow_handshake_is_kept_and_answered_in_order() -> None:
    """`session_started` comes first, though there was something to say before."""
    ready = asyncio.Event()

    async def admit(_: int) -> None:
        await ready.wait()

    async with facing(polite, admit=admit) as (gateway, upstream):
        stream = speaking(gateway)
        await stream.say(
            start(),
            text("One.", "u1", True),
            change("d1", speed=1.5),
            text("x" * 20_000, "long"),
            text("Two.", "u2", True),
            text("Late.", "u1"),
            flush("nobody"),
            text("Taken back.", "u3"),
            cancel("u3"),
            text(" ", "u4", True),
            END,
        )
        await upstream.wait_for(lambda u: u.handshakes == 1)
        await asyncio.sleep(0.2)
        ready.set()
        assert await stream.rest() == OK
        assert stream.kinds()[0] == "session_started"
        assert [m["text"] for m in upstream.talks[0].messages] == ["One.", "Two."]
        assert [m.get("speed") for m in upstream.talks[0].messages] == [None, 1.5]
        assert stream.warnings() == ["STALE_TEXT", "UNKNOWN_UTTERANCE"]
        ends = {e.utterance_id: kind for kind in TERMINAL for e in stream.all(kind)}
        assert ends == {
            "u1": "utterance_completed",
            "u2": "utterance_completed",
            "u4": "utterance_completed",
            "u3": "utterance_cancelled",
            "long": "utterance_failed",
        }


async def test_an_end_during_the_handshake_waits_for_it() -> None:
    """Nothing was said, all is well; `discard` waits for nothing."""
    ready = asyncio.Event()

    async def admit(_: int) -> None:
        await ready.wait()

    async with facing(quiet, admit=admit) as (gateway, upstream):
        stream, gone = speaking(gateway), speaking(gateway)
        await stream.say(start(), END)
        await gone.say(start(), text("Nothing.", "u1", True))
        await upstream.wait_for(lambda u: u.handshakes == 2)
        discard = v1.SynthesizeStreamRequest(end_session=v1.EndSession(discard=True))
        assert await gone.end(discard) == OK
        assert gone.kinds() == ["session_ended"]
        ready.set()
        assert await stream.end() == OK
        assert stream.kinds() == ["session_started", "connection", "session_ended"]


# -- refused handshakes ------------------------------------------------------------------------------------------

REFUSALS = {
    400: REJECTED,
    401: CREDENTIAL,
    403: CREDENTIAL,
    404: GONE,
    410: GONE,
    418: REJECTED,
    429: CAPACITY,
    500: UNAVAILABLE,
    503: UNAVAILABLE,
    200: PROTOCOL,
    204: PROTOCOL,
    302: PROTOCOL,
}


async def test_a_refused_handshake_fails_the_call_with_its_reason() -> None:
    """What another try can mend is tried again. The upstream's words are in it, but for those about the key."""

    async def check(status: int) -> None:
        async def admit(_: int) -> tuple[int, dict[str, str], bytes]:
            body = (
                b""
                if status == 204
                else json.dumps({"error": "Why", "message": "said the upstream"}).encode()
            )
            return status, {"Retry-After": "60"} if status == 429 else {}, body

        async with facing(quiet, admit=admit, key="very-secret-key") as (gateway, upstream):
            stream = speaking(gateway)
            ended = await stream.end(start(), text("Never.", "u1", True), END)
            assert ended.what == REFUSALS[status]
            assert ended.metadata["http_status"] == str(status)
            if status not in (200, 204, 302, 401, 403):
                assert "said the upstream" in ended.message
            assert "very-secret-key" not in str(ended)
            assert stream.kinds() == ["session_ended"]
            assert stream.ended.reason == v1.SessionEnded.REASON_FAILURE
            again = REFUSALS[status] == UNAVAILABLE
            assert (upstream.handshakes > 1) == again
            if status == 429:
                assert ended.retry_s == 60
                assert ended.quota == "upstream-account"

    await together(*(check(status) for status in REFUSALS))


async def test_a_full_account_is_waited_for_as_long_as_it_says() -> None:
    """A 429 whose `Retry-After` lies within the queue's time is no failure; one beyond it is."""
    times: list[float] = []

    async def admit(number: int) -> tuple[int, dict[str, str], bytes] | None:
        times.append(asyncio.get_running_loop().time())
        return (429, {"Retry-After": "1"}, b"full") if number == 1 else None

    async with facing(polite, admit=admit) as (gateway, _):
        stream = speaking(gateway)
        assert await stream.end(start(), text("Waited.", "u1", True), END) == OK
        assert levels(stream.audio()) == pieces(101, 102)
        assert times[1] - times[0] >= 0.99

    async def always(_: int) -> tuple[int, dict[str, str], bytes]:
        return 429, {}, b"full"

    async with facing(quiet, admit=always, bounds=Bounds(max_queue_wait_s=0.7)) as (gateway, upstream):
        stream = speaking(gateway)
        status = await stream.end(start(), text("Never.", "u1", True), END)
        assert status.what == CAPACITY
        assert status.retry_s is not None
        assert upstream.handshakes == 2


async def test_an_upstream_that_asks_for_a_long_pause_fails_the_call_at_once() -> None:
    """A `Retry-After` beyond what a caller waits is handed on, not sat out."""

    async def admit(_: int) -> tuple[int, dict[str, str], bytes]:
        return 503, {"Retry-After": "3600"}, b"maintenance"

    async with facing(quiet, admit=admit) as (gateway, upstream):
        status = await speaking(gateway).end(start(), text("Never.", "u1", True), END)
        assert status.what == UNAVAILABLE
        assert status.retry_s == 3600
        assert upstream.handshakes == 1


async def test_a_failing_handshake_is_tried_again_before_it_counts() -> None:
    async def admit(number: int) -> tuple[int, dict[str, str], bytes] | None:
        return (503, {}, b"") if number <= 2 else None

    async with facing(polite, admit=admit) as (gateway, upstream):
        stream = speaking(gateway)
        assert await stream.end(start(), text("Third time.", "u1", True), END) == OK
        assert upstream.handshakes == 3
        assert stream.all("connection")[0].attempt == 3


async def test_an_upstream_that_cannot_be_reached() -> None:
    """Nobody listens; a handshake that is never answered; one that is answered in another language."""

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(PATIENCE_S)

    async def mocking(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"SSH-2.0-OpenSSH_9.9\r\n")
        await writer.drain()

    async def slamming(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: web")
        await writer.drain()
        writer.close()

    async def refusing_key(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: bm90IHRoZSByaWdodCBvbmU=\r\n\r\n"
        )
        await writer.drain()
        await asyncio.sleep(PATIENCE_S)

    async with contextlib.AsyncExitStack() as stack:
        expected = {nobody(): {UNAVAILABLE}}
        impatient = await stack.enter_async_context(raw_upstream(silent))
        expected[impatient] = {UNAVAILABLE}
        for answer, what in (
            (mocking, {PROTOCOL, UNAVAILABLE}),
            (slamming, {PROTOCOL, UNAVAILABLE}),
            (half, {PROTOCOL, UNAVAILABLE}),
            (refusing_key, {PROTOCOL}),
        ):
            expected[await stack.enter_async_context(raw_upstream(answer))] = what

        async def ends(url: str, what: set[tuple[str, str]]) -> None:
            dialer = WebSocketDialer(DialOptions(open_timeout_s=0.2) if url == impatient else None)
            async with running_gateway(upstream_url=url, dialer=dialer) as gateway:
                stream = speaking(gateway)
                status = await stream.end(start(), text("Never.", "u1", True), END)
                assert status.what in what, url
                assert url.partition("//")[2] in status.message
                assert stream.kinds() == ["session_ended"]

        await together(*(ends(url, what) for url, what in expected.items()))


async def test_a_gateways_url_that_is_no_address() -> None:
    async with running_gateway(upstream_url="http://no such host.invalid:1") as gateway:
        assert (await speaking(gateway).end(start(), END)).what == UNAVAILABLE


# -- error frames ------------------------------------------------------------------------------------------------

ERRORS: dict[str, tuple[dict[str, Any], tuple[str, str]]] = {
    "message": ({"status": "error", "message": "Voice not found: x"}, REJECTED),
    "error": ({"status": "error", "error": "Voice not found: x"}, REJECTED),
    "error object": (
        {"status": "error", "error": {"message": "Voice not found: x", "code": "VOICE_NOT_FOUND"}},
        REJECTED,
    ),
    "error alone": ({"error": "Voice not found: x"}, REJECTED),
    "nothing said": ({"status": "error"}, REJECTED),
    "code 429": ({"status": "error", "error": {"message": "no", "code": "429"}}, CAPACITY),
    "concurrency": ({"status": "error", "message": "Concurrency limit exceeded"}, CAPACITY),
    "rate": ({"status": "error", "message": "Rate limit exceeded"}, CAPACITY),
    "internal": ({"status": "error", "message": "Internal server error"}, UNAVAILABLE),
    "code 503": ({"status": "error", "error": {"message": "try later", "code": 503}}, UNAVAILABLE),
}


async def test_an_error_frame_fails_the_utterance_and_the_session_lives() -> None:
    """After audio, so that it is not tried again; the next utterance is spoken."""

    async def fails(name: str, echo: bool) -> None:
        frame, what = ERRORS[name]

        async def play(talk: Talk) -> None:
            talk.echo = echo
            while True:
                turn = await talk.turn()
                if turn.text != "Refuse this.":
                    await talk.speak(turn, 11)
                    continue
                talk.requests += 1
                await talk.chunk(turn.last, level(1))
                ids = {"external_request_id": turn.last["request_id"]} if echo else {}
                await talk.write({**ids, **frame})

        async with facing(play) as (gateway, _):
            stream = speaking(gateway)
            await stream.begin(start(), text("Refuse this.", "u1", True))
            failed = await stream.until("utterance_failed")
            error = failure(failed.error)
            assert error.what == what, name
            assert failed.retryable == (what in (CAPACITY, UNAVAILABLE)), name
            assert seconds(failed.audio_sent_duration) == pytest.approx(PIECE / 24000)
            if "Voice" in str(frame):
                assert "Voice not found: x" in error.message
            assert await stream.end(text("Fine.", "u2", True), END) == OK, name
            assert levels(stream.audio("u2")) == pieces(11), name

    await together(*(fails(name, echo) for name in ERRORS for echo in (True, False)))


async def test_an_error_frame_about_the_key_or_the_model_ends_the_session() -> None:
    async def check(frame: Any, what: tuple[str, str]) -> None:
        async def play(talk: Talk) -> None:
            await talk.turn()
            await talk.write(frame)
            await talk.hung_up()

        async with facing(play) as (gateway, upstream):
            stream = speaking(gateway)
            status = await stream.end(start(), text("One.", "u1", True), text("Two.", "u2", True), END)
            assert status.what == what
            failed = stream.all("utterance_failed")
            assert failed[0].utterance_id == "u1"
            assert {failure(f.error).what for f in failed} == {what}
            assert upstream.handshakes == 1

    await together(
        *(
            check(frame, what)
            for frame, what in [
                ({"status": "error", "message": "Unauthorized: invalid API key"}, CREDENTIAL),
                ({"status": "error", "error": {"message": "no", "code": "401"}}, CREDENTIAL),
                ({"status": "error", "error": {"message": "model retired", "code": 410}}, GONE),
            ]
        )
    )


async def test_a_full_account_in_a_frame_is_waited_for_before_audio_came() -> None:
    async def play(talk: Talk) -> None:
        turn = await talk.turn()
        await talk.frame(turn.last, "error", message="Concurrency limit exceeded")
        await talk.speak(await talk.turn(), 1)
        await talk.hung_up()

    async with facing(play) as (gateway, upstream):
        stream = speaking(gateway)
        assert await stream.end(start(), text("In the end.", "u1", True), END) == OK
        assert levels(stream.audio()) == pieces(1)
        (talk,) = upstream.talks
        assert [m["text"] for m in talk.messages] == ["In the end."] * 2


# -- connections that end ----------------------------------------------------------------------------------------


async def test_a_close_with_1008_ends_the_session() -> None:
    """The account is full: said with QuotaFailure and RetryInfo, in the utterance and at the end."""

    async def check(moment: str) -> None:
        over = asyncio.Event()

        async def play(talk: Talk) -> None:
            turn = await talk.turn()
            if moment == "idle":
                await talk.speak(turn, 1)
                await over.wait()
            elif moment == "speaking":
                await talk.chunk(turn.last, level(1))
            await talk.close(1008, "concurrency limit")

        async with facing(play) as (gateway, upstream):
            stream = speaking(gateway)
            await stream.say(start(), text("One.", "u1", True))
            if moment == "idle":
                await stream.until("utterance_completed")
                over.set()
            status = await stream.rest() if moment == "idle" else await stream.end(END)
            assert status.what == CAPACITY
            assert status.quota == "upstream-account"
            assert status.retry_s is not None
            assert status.metadata["close_code"] == "1008"
            assert "concurrency limit" in status.message
            failed = [failure(f.error).what for f in stream.all("utterance_failed")]
            assert failed == ([] if moment == "idle" else [CAPACITY])
            assert stream.all("connection")[-1].close_code == 1008
            assert upstream.handshakes == 1

    await together(*(check(moment) for moment in ["idle", "owing", "speaking"]))


ENDS: dict[str, Any] = {
    "close 1011": lambda talk: talk.close(1011, "oops"),
    "close 1012": lambda talk: talk.close(1012),
    "close 4000": lambda talk: talk.close(4000, "own code"),
    "close 1000": lambda talk: talk.close(1000),
    "close 1001": lambda talk: talk.close(1001),
    "reset": None,
}


async def end(talk: Talk, how: str) -> None:
    if ENDS[how] is None:
        talk.reset()
    else:
        await ENDS[how](talk)


async def test_a_connection_lost_before_any_audio_costs_nothing() -> None:
    """The whole text goes up again on another connection; the events tell the story."""

    async def costs_nothing(how: str, mode: Mode) -> None:
        async def play(talk: Talk) -> None:
            turn = await talk.turn()
            if talk.number == 1:
                await end(talk, how)
                return
            await talk.speak(turn, 1, 2)
            await talk.hung_up()

        async with facing(play, mode=mode) as (gateway, upstream):
            stream = speaking(gateway)
            assert await stream.end(start(), text("Said again.", "u1", True), END) == OK, how
            assert levels(stream.audio()) == pieces(1, 2)
            assert [m["text"] for t in upstream.talks for m in t.messages] == ["Said again."] * 2
            completed = stream.one("utterance_completed")
            assert completed.metrics.reconnect_count == 1
            assert completed.upstreams[-1].connection_index == 1
            events = stream.all("connection")
            states = [e.state for e in events]
            assert states[0] == states[-1] == Event.STATE_CONNECTED
            assert Event.STATE_DISCONNECTED in states
            lost = events[states.index(Event.STATE_DISCONNECTED)]
            assert lost.upstream.connection_index == 0
            if how.startswith("close"):
                assert lost.close_code == int(how.split()[1])
                assert lost.reason == Event.REASON_UPSTREAM_CLOSED, how
            else:
                assert lost.close_code == 1006
                assert lost.reason == Event.REASON_NETWORK_ERROR
            assert events[-1].replayed_character_count == len("Said again.")
            assert stream.ended.usage.reconnect_count == 1

    await together(*(costs_nothing(how, mode) for how in ENDS for mode in Mode))


async def test_a_connection_lost_in_mid_speech_is_followed_by_one_that_goes_on() -> None:
    """The text is said again, and what was heard before is not heard twice."""

    async def goes_on(how: str) -> None:
        async def play(talk: Talk) -> None:
            turn = await talk.turn()
            if talk.number == 1:
                talk.requests += 1
                await talk.chunk(turn.last, level(1))
                await asyncio.sleep(0.05)
                await end(talk, how)
                return
            assert turn.text == "Cut off. In the middle."
            await talk.speak(turn, 1, 2)
            await talk.hung_up()

        async with facing(play) as (gateway, upstream):
            stream = speaking(gateway)
            assert await stream.end(start(), text("Cut off. In the middle.", "u1", True), END) == OK
            assert levels(stream.audio("u1")) == pieces(1, 2), how
            assert stream.one("utterance_completed", "u1").metrics.reconnect_count == 1
            assert len(upstream.talks) == 2

    await together(*map(goes_on, ENDS))


async def test_a_voice_that_begins_otherwise_the_second_time_fails_the_utterance() -> None:
    """Said with how much was heard; nothing is silent, nothing is said twice, and the session lives."""

    heard = asyncio.Event()

    async def play(talk: Talk) -> None:
        turn = await talk.turn()
        if talk.number == 1:
            talk.requests += 1
            await talk.chunk(turn.last, level(1))
            await heard.wait()
            talk.reset()
            return
        await talk.speak(turn, 11, 12)
        await talk.hung_up()

    async with facing(play, mode=Mode.FLUSH) as (gateway, upstream):
        stream = speaking(gateway)
        await stream.begin(start(), text("Cut off. In the middle.", "u1", True))
        await stream.until("audio")
        heard.set()
        failed = await stream.until("utterance_failed")
        assert failure(failed.error).what == UNAVAILABLE
        assert failed.retryable
        assert seconds(failed.audio_sent_duration) == pytest.approx(PIECE / 24000)
        assert await stream.end(text("Next.", "u2", True), END) == OK
        assert (levels(stream.audio("u1")), levels(stream.audio("u2"))) == (pieces(1), pieces(11, 12))
        assert len(upstream.talks) == 3


async def test_an_upstream_that_drops_every_connection_is_given_up() -> None:
    """A bounded number of tries, then the utterance fails; the next text dials anew."""

    async def play(talk: Talk) -> None:
        turn = await talk.turn()
        if turn.text == "Works.":
            await talk.speak(turn, 1)
            await talk.hung_up()
        talk.reset()

    async with facing(play) as (gateway, upstream):
        stream = speaking(gateway)
        await stream.begin(start(), text("Drops.", "u1", True))
        failed = await stream.until("utterance_failed")
        assert failure(failed.error).what == UNAVAILABLE
        assert seconds(failed.audio_sent_duration) == 0
        assert 2 <= upstream.handshakes <= 6
        await stream.say(text("Works.", "u2", True))
        assert await stream.end(END) == OK
        assert levels(stream.audio()) == pieces(1)
        retries = [e for e in stream.all("connection") if e.state == Event.STATE_RECONNECTING]
        assert all(1 <= e.attempt <= max(e.max_attempts, 1) for e in retries)
        assert all(e.HasField("cause") and e.HasField("next_retry_delay") for e in retries)


async def test_an_upstream_that_is_gone_after_it_worked() -> None:
    """The utterance fails, the session lives; a refused key ends it."""
    refusal: list[tuple[int, dict[str, str], bytes] | None] = [None]

    async def admit(_: int) -> tuple[int, dict[str, str], bytes] | None:
        return refusal[0]

    async def play(talk: Talk) -> None:
        await talk.speak(await talk.turn(), talk.number)

    async with facing(play, admit=admit) as (gateway, _):
        stream = speaking(gateway)
        await stream.begin(start(), text("One.", "u1", True))
        await stream.until("utterance_completed")
        refusal[0] = (503, {}, b"down")
        await stream.say(text("Two.", "u2", True))
        assert failure((await stream.until("utterance_failed")).error).what == UNAVAILABLE
        refusal[0] = None
        await stream.say(text("Three.", "u3", True))
        await stream.until("utterance_completed")
        refusal[0] = (401, {}, b"revoked")
        status = await stream.end(text("Four.", "u4", True), END)
        assert status.what == CREDENTIAL
        assert failure(stream.one("utterance_failed", "u4").error).what == CREDENTIAL
        assert levels(stream.audio()) == pieces(1, 2)


async def test_a_close_between_utterances_is_no_failure() -> None:
    """With the announcement of an idle timeout, or without a word."""
    over = asyncio.Event()

    async def play(talk: Talk) -> None:
        turn = await talk.turn()
        await talk.speak(turn, talk.number)
        await over.wait()
        over.clear()
        if talk.number == 1:
            await talk.write(
                {"status": "error", "message": "Connection timed out after 60 seconds of inactivity"}
            )
        elif talk.number == 2:
            talk.reset()
        else:
            await talk.close(1011)

    async with facing(play) as (gateway, upstream):
        stream = speaking(gateway)
        await stream.begin(start())
        for number in (1, 2, 3, 4):
            await stream.say(text("Text.", f"u{number}", True))
            await stream.until("utterance_completed")
            over.set()
            await upstream.wait_for(lambda u, n=number: len(u.talks) == n and u.live == 0)
            await stream.until("connection", state=Event.STATE_DISCONNECTED)
        assert await stream.end(END) == OK
        assert levels(stream.audio()) == pieces(1, 2, 3, 4)
        gone = [e for e in stream.all("connection") if e.state == Event.STATE_DISCONNECTED]
        assert gone[0].reason == Event.REASON_IDLE_TIMEOUT


# -- nonsense ----------------------------------------------------------------------------------------------------

NONSENSE: dict[str, Any] = {
    "no JSON": "certainly not JSON",
    "empty": "",
    "cut JSON": '{"status": "chunk", "data": {"aud',
    "a list": "[1, 2, 3]",
    "a string": '"chunk"',
    "null": "null",
    "deep": "[" * 5000,
    "binary": b"\x00\x01\x02\x03",
    "lone surrogate": '{"status": "\\ud800"}',
    "status of another type": {"status": 7},
    "no status": {"data": {"audio": "AAAA"}},
}


async def test_a_little_nonsense_costs_a_connection_and_nothing_else() -> None:
    """It may have been a piece of the audio, so the text is said again."""

    async def mended(name: str) -> None:
        async def play(talk: Talk) -> None:
            turn = await talk.turn()
            if talk.number == 1:
                await talk.chunk(turn.last, level(1))
                await talk.write(NONSENSE[name])
            else:
                await talk.speak(turn, 1, 2)
            await talk.hung_up()

        async with facing(play) as (gateway, upstream):
            stream = speaking(gateway)
            assert await stream.end(start(), text("Sense.", "u1", True), END) == OK, name
            assert levels(stream.audio()) == pieces(1, 2), name
            assert len(upstream.talks) == 2, name

    await together(*map(mended, NONSENSE))


async def test_lasting_nonsense_is_a_fault_of_the_upstream() -> None:
    """A few connections may be tried; the utterance fails, and the session lives."""

    async def check(name: str) -> None:
        async def play(talk: Talk) -> None:
            turn = await talk.turn()
            if turn.text == "Sense.":
                await talk.speak(turn, 1)
            else:
                for _ in range(50):
                    await talk.write(NONSENSE[name])
            await talk.hung_up()

        async with facing(play) as (gateway, upstream):
            stream = speaking(gateway)
            await stream.begin(start(), text("Nonsense?", "u1", True))
            failed = await stream.until("utterance_failed")
            assert failure(failed.error).what == PROTOCOL
            assert upstream.handshakes <= 6
            assert await stream.end(text("Sense.", "u2", True), END) == OK
            assert levels(stream.audio("u2")) == pieces(1)

    await together(*(check(name) for name in ["no JSON", "a list", "binary"]))


DAMAGED: dict[str, Any] = {
    "no base64": {"audio": "!!!!"},
    "cut base64": {"audio": "AAAAA"},
    "a number": {"audio": 7},
    "a list": {"audio": [1, 2]},
    "an object": {"audio": {}},
}


async def test_damaged_audio_is_said_again() -> None:
    """A hole cannot be passed over: another connection says what belongs there."""

    async def mends(name: str) -> None:
        async def play(talk: Talk) -> None:
            turn = await talk.turn()
            talk.requests += 1
            await talk.chunk(turn.last, level(1))
            if talk.number == 1:
                await talk.frame(turn.last, "chunk", data=DAMAGED[name])
            else:
                await talk.chunk(turn.last, level(2))
            await talk.chunk(turn.last, level(3))
            await talk.complete(turn.last)
            await talk.hung_up()

        async with facing(play) as (gateway, _):
            stream = speaking(gateway)
            assert await stream.end(start(), text("Whole or not at all.", "u1", True), END) == OK
            assert levels(stream.audio("u1")) == pieces(1, 2, 3), name

    await together(*map(mends, DAMAGED))


async def test_audio_that_is_always_damaged_fails_the_utterance() -> None:
    async def play(talk: Talk) -> None:
        turn = await talk.turn()
        talk.requests += 1
        await talk.frame(turn.last, "chunk", data=DAMAGED["an object"])
        await talk.hung_up()

    async with facing(play) as (gateway, _):
        stream = speaking(gateway)
        await stream.begin(start(), text("Whole or not at all.", "u1", True))
        failed = await stream.until("utterance_failed")
        assert failure(failed.error).what == PROTOCOL


async def test_a_frame_larger_than_any_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tts, "OWED_S", 1.5)

    async def play(talk: Talk) -> None:
        turn = await talk.turn()
        if talk.number == 1:
            await talk.chunk(turn.last, level(1))
            with contextlib.suppress(HungUp):
                await talk.write('{"status": "chunk", "padding": "' + "x" * 2**23 + '"}')
            await talk.hung_up()
        await talk.speak(turn, 11)
        await talk.hung_up()

    async with facing(play) as (gateway, _):
        stream = speaking(gateway)
        await stream.begin(start(), text("Enormous.", "u1", True))
        failed = await stream.until("utterance_failed")
        assert failure(failed.error).what in (PROTOCOL, UNAVAILABLE)
        assert await stream.end(text("Fine.", "u2", True), END) == OK
        assert levels(stream.audio("u2")) == pieces(11)


async def test_frames_that_nobody_asked_for_are_dropped() -> None:
    """Before any text, and between utterances, of requests that never were."""

    async def play(talk: Talk) -> None:
        stranger = {"session_id": "other", "request_id": "never-was"}
        await talk.chunk(stranger, level(99))
        await talk.complete(stranger)
        for number in (1, 2):
            turn = await talk.turn()
            await talk.chunk(stranger, level(98))
            await talk.frame(stranger, "error", message="about somebody else")
            await talk.speak(turn, number)
        await talk.hung_up()

    async with facing(play) as (gateway, _):
        stream = speaking(gateway)
        await stream.begin(start())
        await asyncio.sleep(0.1)
        await stream.say(text("One.", "u1", True), text("Two.", "u2", True))
        assert await stream.end(END) == OK
        assert levels(stream.audio()) == pieces(1, 2)


# -- silence -----------------------------------------------------------------------------------------------------


async def test_an_upstream_that_owes_audio_and_is_silent_has_stalled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a hang nor a silent end: the utterance fails, on another connection the next one is spoken."""
    monkeypatch.setattr(tts, "OWED_S", 1.5)

    async def check(moment: str, mode: Mode) -> None:
        async def play(talk: Talk) -> None:
            if talk.number == 1:
                await talk.speak(await talk.turn(), 1, 1, 1, 1)
                turn = await talk.turn()
                talk.requests += 1
                if moment == "after some audio":
                    await talk.chunk(turn.last, level(2, 10))
                elif moment == "after a complete of another":
                    await talk.complete({"session_id": "x", "request_id": "never-was"})
                await talk.hung_up()
                return
            turn = await talk.turn()
            if turn.text == "Good.":
                await talk.speak(turn, 3)
            await talk.hung_up()

        async with facing(play, mode=mode) as (gateway, _):
            stream = speaking(gateway)
            await stream.begin(start(), text("Spoken.", "u1", True))
            await stream.until("utterance_completed")
            await stream.say(
                text("A long text of which hardly anything is spoken before the silence.", "u2", True)
            )
            failed = await stream.until("utterance_failed")
            assert failure(failed.error).what == STALLED
            assert failed.retryable
            assert await stream.end(text("Good.", "u3", True), END) == OK
            assert levels(stream.audio("u3")) == pieces(3)

    await together(
        *(
            check(moment, mode)
            for moment in ["never a word", "after some audio", "after a complete of another"]
            for mode in Mode
        )
    )


async def test_an_upstream_that_takes_no_more_text_has_stalled() -> None:
    """It neither reads nor speaks nor closes: a send that blocks gives it up, and in the end the utterance."""

    hears = asyncio.Event()

    async def play(talk: Talk) -> None:
        talk.stop_reading()
        await hears.wait()
        talk.read_on()
        await talk.speak(await talk.turn(), 11)
        await talk.hung_up()

    dialer = WebSocketDialer(DialOptions(send_timeout_s=0.3))
    large = Bounds(max_text_message_chars=200_000, max_utterance_chars=10**8, max_buffered_chars=10**8)
    async with facing(play, dialer=dialer, bounds=large) as (gateway, _):
        stream = speaking(gateway)
        await stream.begin(start())
        for _ in range(26):  # more than the kernel keeps for a peer that does not read
            await stream.say(text("x" * 200_000, "u1"))
        failed = await stream.until("utterance_failed")
        assert failure(failed.error).what == STALLED
        hears.set()
        assert await stream.end(text("Next.", "u2", True), END) == OK
        assert levels(stream.audio("u2")) == pieces(11)


async def test_a_caller_that_cancels_cuts_every_kind_of_upstream() -> None:
    """Silent, speaking, deaf: the connection is gone soon after, and no closing fragment was sent."""

    async def play(talk: Talk) -> None:
        first = await talk.read()
        if first["text"].startswith("speak"):
            while True:
                await talk.chunk(first, level(1))
                await asyncio.sleep(0.01)
        await talk.hung_up()

    async with facing(play) as (gateway, upstream):
        streams = []
        for said in ("speak on.", "be silent."):
            stream = speaking(gateway)
            await stream.begin(start(), text(said, "u1"))
            await stream.until("audio" if said.startswith("speak") else "utterance_started")
            streams.append(stream)
        await upstream.wait_for(lambda u: all(t.messages for t in u.talks) and len(u.talks) == 2)
        for stream in streams:
            stream.call.cancel()
        await upstream.wait_for(lambda u: u.live == 0)
        for talk in upstream.talks:
            assert [m["continue"] for m in talk.messages] == [True]


async def test_a_long_pause_in_a_turn_is_no_stall(monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller thinks; the upstream owes nothing, and hears that the session lives."""
    monkeypatch.setattr(tts, "OWED_S", 1.5)

    async def play(talk: Talk) -> None:
        message = await talk.read()
        talk.requests += 1
        await talk.chunk(message, level(1))
        turn = Turn([message, *(await talk.turn()).messages])
        await talk.speak(turn, 2)
        await talk.hung_up()

    async with facing(play) as (gateway, _):
        stream = speaking(gateway)
        await stream.begin(start(), text("First half.", "u1"))
        await stream.until("audio")
        await asyncio.sleep(2.5)
        assert await stream.end(text(" Second half.", "u1", True), END) == OK
        assert levels(stream.audio()) == pieces(1, 2)


# -- whole texts -------------------------------------------------------------------------------------------------


def whole(**fields: Any) -> Any:
    fields.setdefault("text", "Spoken whole.")
    fields.setdefault("settings", v1.SynthesisSettings())
    return v1.SynthesizeRequest(**fields)


async def outcome(gateway: RunningGateway, **fields: Any) -> tuple[list[Any], Failure]:
    """All events of a whole text, and the status."""
    got = []
    call = gateway.synthesis.Synthesize(whole(**fields))
    try:
        async with asyncio.timeout(PATIENCE_S):
            async for event in call:
                got.append(event)
    except grpc.aio.AioRpcError as exc:
        return got, failure_of_error(exc)
    return got, OK


async def test_a_refused_whole_text_fails_with_its_reason() -> None:
    """At once where the upstream asks for more time than a caller waits in the queue."""

    async def check(status: int) -> None:
        async with running_gateway() as gateway:
            assert gateway.upstream is not None
            gateway.upstream.faults.add(
                waves_local.Fault(
                    on="sse", do="refuse", status=status, body='{"message": "said so"}', retry_after_s=60
                )
            )
            got, failed = await outcome(gateway)
            assert got == []
            assert failed.what == REFUSALS[status]
            assert ("said so" in failed.message) == (status not in (401, 403))
            assert len(gateway.gateway.registry) == 0

    await together(*(check(status) for status in [s for s in REFUSALS if s >= 400]))


async def test_a_whole_text_that_breaks_off_fails_the_call() -> None:
    """After some audio, which stays delivered; never OK with half of it."""

    async def check(fault: str, what: set[tuple[str, str]]) -> None:
        async with running_gateway() as gateway:
            assert gateway.upstream is not None
            gateway.upstream.faults.add(fault)
            got, failed = await outcome(gateway)
            assert failed.what in what
            assert [e.WhichOneof("event") for e in got][:2] == ["session_started", "audio"]
            assert got[-1].WhichOneof("event") == "audio"

    await together(
        *(
            check(fault, what)
            for fault, what in [
                ("sse:close,after-frames=3", {UNAVAILABLE}),
                ("sse:drop,after-frames=3", {UNAVAILABLE}),
                ("sse:bad-json,after-frames=3", {PROTOCOL}),
                ("sse:bad-base64,after-frames=3", {PROTOCOL}),
                ("sse:bad-utf8,after-frames=3", {PROTOCOL}),
                ("sse:wrong-type,after-frames=3", {PROTOCOL}),
                ("sse:error=Internal failure,after-frames=3", {UNAVAILABLE}),
            ]
        )
    )


async def test_a_whole_text_is_tried_again_while_nothing_was_heard() -> None:
    async def check(fault: str) -> None:
        async with running_gateway() as gateway:
            assert gateway.upstream is not None
            gateway.upstream.faults.add(fault)
            got, status = await outcome(gateway)
            assert status == OK
            assert waves_local.spoken(b"".join(e.audio.audio for e in got)) == "Spoken whole."
            assert [e.WhichOneof("event") for e in got].count("session_started") == 1
            assert got[-1].utterance_completed.metrics.reconnect_count >= 1

    await together(
        *(check(fault) for fault in ["sse:refuse=503,times=2", "sse:drop,times=1", "sse:close,times=1"])
    )


def sse_of(*lines: bytes) -> Any:
    """An upstream that answers every POST with these lines, then closes."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        for line in lines:
            writer.write(line)
            await writer.drain()
        writer.close()

    return raw_upstream(answer)


AUDIO = b'data: {"audio":"AQABAA==","done":false,"status":"206"}\n\n'
DONE = b'data: {"status":"200","done":true}\n\n'


async def test_event_streams_are_read_as_they_may_be_written() -> None:
    async def check(lines: list[bytes]) -> None:
        async with sse_of(*lines) as url, running_gateway(upstream_url=url) as gateway:
            got, status = await outcome(gateway)
            assert status == OK
            assert b"".join(e.audio.audio for e in got) == b"\1\0\1\0"

    await together(
        *(
            check(lines)
            for lines in [
                [b"event: audio\n" + AUDIO, DONE],
                [b": a comment\n\nretry: 5\nid: 7\n" + AUDIO + DONE],
                [AUDIO.replace(b"\n", b"\r\n"), DONE.replace(b"\n", b"\r\n")],
                [AUDIO[:20], AUDIO[20:], DONE[:5], DONE[5:]],
                [
                    b'data: {"status":"chunk",\ndata: "data":{"audio":"AQABAA=="}}\n\n',
                    b'data: {"status":"complete"}\n\n',
                ],
                ['data: {"status":"queued","note":"a\u2028b\u0085c"}\n\n'.encode() + AUDIO + DONE],
            ]
        )
    )


async def test_audio_behind_a_done_belongs_to_the_speech() -> None:
    async with sse_of(AUDIO + DONE + AUDIO + DONE) as url, running_gateway(upstream_url=url) as gateway:
        got, status = await outcome(gateway)
    assert status == OK
    assert b"".join(e.audio.audio for e in got) == b"\1\0\1\0" * 2


async def test_event_streams_that_are_none_fail_the_call() -> None:
    async def check(lines: list[bytes], what: tuple[str, str]) -> None:
        async with sse_of(*lines) as url, running_gateway(upstream_url=url) as gateway:
            _, failed = await outcome(gateway)
            assert failed.what == what

    await together(
        *(
            check(lines, what)
            for lines, what in [
                ([AUDIO], UNAVAILABLE),
                ([], UNAVAILABLE),
                ([b"data: nonsense\n\n"], PROTOCOL),
                ([b"data: [1]\n\n"], PROTOCOL),
                ([b'data: {"audio": 7}\n\n'], PROTOCOL),
                ([b'data: {"error": "Voice not found"}\n\n'], REJECTED),
                ([b'data: {"status":"429","message":"Concurrency limit exceeded"}\n\n'], CAPACITY),
                ([b'data: {"status":"500","message":"Internal server error"}\n\n'], UNAVAILABLE),
                ([b"x" * 2**20] * 6, PROTOCOL),
            ]
        )
    )


async def test_a_whole_text_whose_upstream_falls_silent_has_stalled(monkeypatch: pytest.MonkeyPatch) -> None:
    from wavegate_server.session import http

    monkeypatch.setattr(http, "STREAM_SILENCE_S", 1.5)
    async with running_gateway() as gateway:
        assert gateway.upstream is not None
        gateway.upstream.faults.add("sse:stall,after-frames=2")
        got, failed = await outcome(gateway)
        assert failed.what == STALLED
        assert [e.WhichOneof("event") for e in got] == ["session_started", "audio", "audio"]


async def test_a_whole_text_to_an_upstream_that_is_down() -> None:
    async with running_gateway(upstream_url=nobody()) as gateway:
        _, failed = await outcome(gateway)
        assert failed.what == UNAVAILABLE


# -- voices ------------------------------------------------------------------------------------------------------


async def test_a_catalogue_that_cannot_be_had_fails_the_call_and_is_asked_for_again() -> None:
    async def check(fault: str, what: tuple[str, str]) -> None:
        async with running_gateway() as gateway:
            assert gateway.upstream is not None
            number = gateway.upstream.faults.add(fault)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await gateway.synthesis.ListVoices(v1.ListVoicesRequest())
            assert failure_of_error(caught.value).what == what
            gateway.upstream.faults.remove(number)
            assert (await gateway.synthesis.ListVoices(v1.ListVoicesRequest())).voices

    await together(
        *(
            check(fault, what)
            for fault, what in [
                ("voices:refuse=401", CREDENTIAL),
                ("voices:refuse=429", CAPACITY),
                ("voices:refuse=500", UNAVAILABLE),
                ("voices:refuse=404", GONE),
            ]
        )
    )


async def test_a_catalogue_of_nonsense() -> None:
    async def check(body: bytes, found: list[str] | None) -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(
                b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            )
            await writer.drain()

        async with raw_upstream(answer) as url, running_gateway(upstream_url=url) as gateway:
            if found is None:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await gateway.synthesis.ListVoices(v1.ListVoicesRequest())
                assert failure_of_error(caught.value).what == PROTOCOL
            else:
                voices = (await gateway.synthesis.ListVoices(v1.ListVoicesRequest())).voices
                assert [v.voice_id for v in voices] == found

    await together(
        *(
            check(body, found)
            for body, found in [
                (b"no JSON", None),
                (b"[]", None),
                (b'{"voices": 7}', None),
                (b'{"voices": []}', []),
                (
                    b'{"voices": [7, {}, {"voiceId": 7}, {"voiceId": "a"}, {"voiceId": "b", "tags": 7}]}',
                    ["a", "b"],
                ),
                (
                    b'{"voices": [{"voiceId": "a", "tags": {"language": "Klingon", "age": null, "x": [1]}}]}',
                    ["a"],
                ),
            ]
        )
    )


# -- the local upstream's own limits and faults ------------------------------------------------------------------


async def test_an_account_with_one_request_serves_two_sessions_in_turn() -> None:
    """The second is refused while the first speaks, waits within the queue's time, and is spoken whole."""
    options = waves_local.Options(active_requests=1, chunk_interval_s=0.02)
    async with running_gateway(options) as gateway:
        first, second = speaking(gateway), speaking(gateway)
        await first.begin(start())
        await second.begin(start())
        await first.say(text("The first one speaks.", "u1", True))
        await first.until("audio")
        await second.say(text("The second.", "u1", True))
        assert await first.end(END) == OK
        assert await second.end(END) == OK
        assert waves_local.spoken(first.audio()) == "The first one speaks."
        assert waves_local.spoken(second.audio()) == "The second."


async def test_an_account_that_stays_full_fails_the_utterance() -> None:
    options = waves_local.Options(active_requests=1, chunk_interval_s=0.05)
    async with running_gateway(options, bounds=Bounds(max_queue_wait_s=0.6)) as gateway:
        first, second = speaking(gateway), speaking(gateway)
        # However late the other comes, this one still speaks.
        await first.begin(
            start(), text("The first one speaks for longer than the other waits. " * 50, "u1", True)
        )
        await first.until("audio")
        await second.begin(start(), text("The second.", "u1", True))
        failed = await second.until("utterance_failed")
        error = failure(failed.error)
        assert error.what == CAPACITY
        assert error.quota == "upstream-account"
        assert error.retry_s is not None
        assert failed.retryable
        first.call.cancel()
        assert gateway.upstream is not None
        await gateway.upstream.journal.wait_for(lambda j: not j.of("tts")[0].is_open)
        assert await second.end(text("Now there is room.", "u2", True), END) == OK
        assert waves_local.spoken(second.audio()) == "Now there is room."


async def test_more_sockets_than_the_account_has_are_refused_in_the_handshake() -> None:
    options = waves_local.Options(tts_sockets=1, retry_after_s=30)
    async with running_gateway(options) as gateway:
        first, second = speaking(gateway), speaking(gateway)
        await first.begin(start())
        status = await second.end(start(), END)
        assert status.what == CAPACITY
        assert status.retry_s == 30
        assert await first.end(END) == OK


async def test_a_wrong_key_is_the_gateways_own_fault() -> None:
    async with running_gateway(waves_local.Options(keys=("good-key",)), key="bad-key") as gateway:
        status = await speaking(gateway).end(start(), text("x", "u1", True), END)
        assert status.what == CREDENTIAL
        assert "key" in status.message
        assert "bad-key" not in str(status)
        _, failed = await outcome(gateway)
        assert failed.what == CREDENTIAL
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await gateway.synthesis.ListVoices(v1.ListVoicesRequest())
        assert failure_of_error(caught.value).what == CREDENTIAL


async def test_a_duplicate_frame_is_heard_as_what_the_upstream_sent() -> None:
    """Two frames with the same audio are two pieces of audio: nobody can tell them from a repeated sound."""
    async with running_gateway() as gateway:
        assert gateway.upstream is not None
        gateway.upstream.faults.add("tts:duplicate,after-frames=2,frames=1")
        stream = speaking(gateway)
        assert await stream.end(start(), text("abcdefghij", "u1", True), END) == OK
        assert len(waves_local.spoken(stream.audio())) >= 11


@MODES
async def test_random_drops_lose_no_session_and_say_nothing_wrong(mode: Mode) -> None:
    """Connections reset at random points: each utterance is spoken whole or said to have failed, with its length."""
    async with running_gateway(mode=mode) as gateway:
        assert gateway.upstream is not None
        gateway.upstream.faults.add("tts:drop,after-frames=4,probability=0.5,seed=3")

        async def one(number: int) -> tuple[int, int]:
            stream = speaking(gateway)
            said = f"Session {number} speaks."
            names = [f"u{i}" for i in range(3)]
            status = await stream.end(start(), *(text(said, n, True) for n in names), END)
            assert status == OK
            whole = failed = 0
            for name in names:
                heard = waves_local.spoken(stream.audio(name))
                if any(f.utterance_id == name for f in stream.all("utterance_failed")):
                    found = stream.one("utterance_failed", name)
                    sent = len(stream.audio(name)) / 48000
                    assert seconds(found.audio_sent_duration) == pytest.approx(sent)
                    assert said.startswith(heard.rstrip("\N{REPLACEMENT CHARACTER}"))
                    failed += 1
                else:
                    assert heard == said
                    whole += 1
            return whole, failed

        counts = await asyncio.gather(*(one(n) for n in range(12)))
        # The voice says the same in the same way each time, so that it can go on wherever it was cut. Only many
        # drops in a row, which one utterance may meet, use all tries up.
        assert sum(w for w, _ in counts) > 3 * sum(f for _, f in counts)
        assert len(gateway.gateway.registry) == 0
