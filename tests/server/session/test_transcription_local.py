"""Transcription sessions over real sockets, before the local upstream and its deterministic engine.

Its transcripts prove which samples were heard: a word stands there whole only if every one of its samples
arrived, once and in order.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import waves_local
from wavegate_server import errors
from wavegate_server.audio import AudioFormat, Encoding
from wavegate_server.session.context import UpstreamTarget
from wavegate_server.session.events import AckState, ApplyPolicy, ConnectionChanged, SettingsAcknowledged
from wavegate_server.session.pool import Upstreams
from wavegate_server.session.transcription_events import Transcribed
from wavegate_server.session.transport import WebSocketDialer
from waves_local import codecs
from waves_local.deterministic import DEFAULT_CHARACTER_S, encode_text

from tests.support.listening import Caller, context
from tests.support.seeds import seeds

RATE_HZ = 16000
BLOCK = round(RATE_HZ * DEFAULT_CHARACTER_S)
TEXT = "the quick brown fox jumps over the lazy dog and runs away from here into the deep dark wood"


def audio(text: str, rate_hz: int = RATE_HZ) -> bytes:
    return encode_text(text, rate_hz)


def pause(seconds: float, rate_hz: int = RATE_HZ) -> bytes:
    return bytes(2 * round(seconds * rate_hz))


@asynccontextmanager
async def listening(
    settings: dict[str, Any] | None = None,
    *,
    upstream_options: waves_local.Options | None = None,
    faults: Iterable[str] = (),
    audio_format: AudioFormat | None = None,
    key: str = "a-key",
    **options: Any,
) -> AsyncIterator[tuple[Caller, waves_local.Upstream]]:
    """A session before a local upstream."""
    engine = waves_local.deterministic_engine()
    async with waves_local.serve(
        engine=engine, options=upstream_options or waves_local.Options(), faults=faults
    ) as upstream:
        given = context(WebSocketDialer(), **options)  # type: ignore[arg-type]
        given = given.__class__(
            **{
                **{name: getattr(given, name) for name in given.__dataclass_fields__},
                "upstreams": Upstreams(UpstreamTarget(upstream.url, key)),
            }
        )
        caller = Caller(
            given.dialer,  # type: ignore[arg-type]
            {"word_timings": True, **(settings or {})},
            audio_format or AudioFormat(Encoding.LINEAR16, RATE_HZ),
            session_context=given,
        )
        try:
            yield caller, upstream
        finally:
            if caller.session.ended is None:
                await caller.vanish()


def check_words(caller: Caller, pieces: list[tuple[str, float]]) -> None:
    """Every word, whole, once, in order, where it lies. `pieces`: texts and where each begins, in seconds."""
    expected = []
    for text, start in pieces:
        at = 0
        for word in text.split(" "):
            expected.append((word, start + at * DEFAULT_CHARACTER_S))
            at += len(word) + 1
    words = [w for t in caller.finals for w in t.words]
    assert [w.text for w in words] == [text for text, _ in expected]
    assert [w.start_s for w in words] == pytest.approx([start for _, start in expected], abs=2e-4)
    assert [w.end_s - w.start_s for w in words] == pytest.approx(
        [len(text) * DEFAULT_CHARACTER_S for text, _ in expected], abs=2e-4
    )
    assert [t.is_last for t in caller.all(Transcribed)].index(True) == len(caller.all(Transcribed)) - 1


@pytest.mark.parametrize("size", [1, 997, 3200, 65536])
async def test_what_was_said_is_what_is_heard(size: int) -> None:
    text = TEXT if size > 1 else "short"
    async with listening() as (caller, upstream):
        await caller.send(audio(text), size)
        ended = await caller.end()
        assert ended.error is None
        check_words(caller, [(text, 0.0)])
        (record,) = upstream.journal.of("stt")
        assert max(m.size_bytes for m in record.messages) <= 4096
        assert record.audio_bytes == len(audio(text))


@pytest.mark.parametrize(
    ("encoding", "rate_hz"),
    [
        (Encoding.LINEAR16, 8000),
        (Encoding.LINEAR16, 44100),
        (Encoding.LINEAR32, 16000),
        (Encoding.MULAW, 8000),
        (Encoding.ALAW, 8000),
    ],
)
async def test_every_encoding_and_rate(encoding: Encoding, rate_hz: int) -> None:
    """Over one connection, and over two."""
    pcm = audio("one two three", rate_hz) + pause(0.5, rate_hz) + audio("four", rate_hz)
    content = {
        Encoding.LINEAR16: lambda: pcm,
        Encoding.LINEAR32: lambda: b"".join(b"\0\0" + pcm[i : i + 2] for i in range(0, len(pcm), 2)),
        Encoding.MULAW: lambda: codecs.mulaw_encode(pcm),
        Encoding.ALAW: lambda: codecs.alaw_encode(pcm),
    }[encoding]()
    for share in (None, 0.4, 0.8):
        faults = [] if share is None else [f"stt:drop,nth=1,after-bytes={round(len(content) * share)}"]
        async with listening(audio_format=AudioFormat(encoding, rate_hz), faults=faults) as (caller, _):
            await caller.send(content, 1111)
            await caller.end()
            check_words(caller, [("one two three", 0.0), ("four", 13 * DEFAULT_CHARACTER_S + 0.5)])
            assert caller.session.reconnect_count == len(faults)


@pytest.mark.parametrize("seed", seeds(30))
async def test_connections_drop_at_any_byte(seed: int) -> None:
    rng = random.Random(seed)
    first, second = TEXT, "one more thing to say before we go"
    pcm = audio(first) + pause(1.0) + audio(second)
    how = ["drop", "close=1011", "close=1001", "close=1000"]
    faults = []
    for number in range(1, 4):
        # Bytes count both ways; a replay may be shorter than that.
        when = f"after-bytes={rng.randrange(1, len(pcm))}" if rng.random() < 0.7 else "after-frames=5"
        faults.append(f"stt:{rng.choice(how)},{when},nth={number}")
    options = waves_local.Options(
        stt_delay_s=rng.choice([0.0, 0.005]),
        last_apart=rng.random() < 0.5,
        max_words=rng.choice([0, 2, 30]),
        empty_finalize=rng.choice(["answered", "silent"]),
    )
    async with listening(faults=faults, upstream_options=options) as (caller, _):
        caller.session._retry._rng = lambda: 0.0
        await caller.send(pcm, rng.choice([500, 3200, 20_000]))
        ended = await caller.end()
        assert ended.error is None
        check_words(caller, [(first, 0.0), (second, len(first) * DEFAULT_CHARACTER_S + 1.0)])
        assert all(not c.lost_audio_s for c in caller.all(ConnectionChanged))


@pytest.mark.parametrize("seed", seeds(10))
async def test_settings_change_at_any_moment(seed: int) -> None:
    """Within a word, too, where that is no boundary by itself: an IMMEDIATE one would cut it."""
    rng = random.Random(seed)
    pcm = audio(TEXT)
    starts = [at for at, letter in enumerate(f" {TEXT}") if letter == " "]
    async with listening(faults=["stt:drop,nth=2,after-bytes=30000"] if seed % 3 == 0 else []) as (
        caller,
        upstream,
    ):
        at = 0
        for number, word in enumerate(sorted(rng.sample(range(len(starts)), 3))):
            policy = rng.choice(list(ApplyPolicy)[:2])
            cut = 2 * BLOCK * starts[word]
            if policy is ApplyPolicy.NEXT_BOUNDARY:
                cut += 2 * rng.randrange(BLOCK * len(TEXT.split()[word]))
            await caller.send(pcm[at:cut], 3000)
            at = cut
            caller.update(f"u{number}", policy, max_words=10 + number)
            await asyncio.sleep(rng.choice([0.0, 0.0, 0.3]))
        await caller.send(pcm[at:], 3000)
        ended = await caller.end()
        assert ended.error is None
        check_words(caller, [(TEXT, 0.0)])
        states = [caller.acks(f"u{n}")[-1].state for n in range(3)]
        assert all(s.terminal for s in states)
        assert AckState.REJECTED not in states
        applied = [a for a in caller.all(SettingsAcknowledged) if a.state is AckState.APPLIED]
        assert applied[-1].settings is not None
        limits = [r.query.get("max_words") for r in upstream.journal.of("stt")]
        assert str(applied[-1].settings["max_words"]) == limits[-1]


@pytest.mark.parametrize("id_of_the_caller", ["", "call-7"])
async def test_times_that_run_on_from_socket_to_socket_are_put_right(id_of_the_caller: str) -> None:
    async with listening(
        faults=["stt:drop,nth=1,after-bytes=60000"],
        upstream_options=waves_local.Options(stt_times_restart=False),
        client_session_id=id_of_the_caller,
    ) as (caller, _):
        await caller.send(audio(TEXT), 3000)
        caller.update("u", ApplyPolicy.IMMEDIATE, max_words=4)
        await caller.send(pause(1.0) + audio("and more"), 3000)
        assert (await caller.end()).error is None
        check_words(caller, [(TEXT, 0.0), ("and more", len(TEXT) * DEFAULT_CHARACTER_S + 1.0)])


async def test_a_full_account_lets_the_old_connection_go_first() -> None:
    async with listening(upstream_options=waves_local.Options(stt_sockets=1)) as (caller, upstream):
        await caller.send(audio("one two three"), 3000)
        caller.update("u", ApplyPolicy.IMMEDIATE, punctuation=True)
        await caller.until(SettingsAcknowledged, lambda a: a.state.terminal)
        assert caller.acks("u")[-1].state is AckState.APPLIED
        await caller.send(audio(" four"), 3000)
        assert (await caller.end()).error is None
        assert caller.text == "one two three four"
        assert upstream.journal.of("stt")[-1].query["punctuate"] == "true"


async def test_a_refused_change_leaves_everything_as_it_was() -> None:
    async with listening() as (caller, upstream):
        await caller.send(audio("one two"), 3000)
        caller.update("u", ApplyPolicy.IMMEDIATE, language_code="tlh")
        await caller.until(SettingsAcknowledged, lambda a: a.state.terminal)
        ack = caller.acks("u")[-1]
        assert ack.state is AckState.REJECTED
        assert isinstance(ack.error, errors.UpstreamRejected)
        assert "language" in ack.error.message
        await caller.send(audio(" three"), 3000)
        assert (await caller.end()).error is None
        assert caller.text == "one two three"
        assert [r.status for r in upstream.journal.of("stt")] == [101, 400]


@pytest.mark.parametrize(
    ("settings", "options", "kind"),
    [
        ({"model": "pulse-pro"}, {}, errors.UpstreamRejected),
        ({"language_code": "xx"}, {}, errors.UpstreamRejected),
        ({}, {"keys": ("another",)}, errors.UpstreamCredential),
        ({}, {"forbidden_keys": ("a-key",)}, errors.UpstreamCredential),
        ({"model": "pulse-2", "language_code": "hi"}, {}, errors.WavegateError),
    ],
)
async def test_what_the_upstream_refuses_fails_the_session(
    settings: dict[str, Any], options: dict[str, Any], kind: type[errors.WavegateError]
) -> None:
    async with listening(settings, upstream_options=waves_local.Options(**options)) as (caller, _):
        ended = await caller.over()
        assert isinstance(ended.error, kind)


@pytest.mark.parametrize(
    "fault",
    [
        "stt:bad-json,after-frames=2",
        "stt:unknown-frame,frames=0",
        "stt:wrong-type,after-frames=2",
        "stt:binary",
    ],
)
async def test_a_little_nonsense_harms_nothing(fault: str) -> None:
    async with listening(faults=[fault]) as (caller, _):
        await caller.send(audio("one two three"), 3000)
        ended = await caller.end()
        assert ended.error is None
        assert caller.text == "one two three"


async def test_finalizes_and_turns() -> None:
    options = waves_local.Options(empty_finalize="silent")
    async with listening(upstream_options=options) as (caller, _):
        for turn in ("one two", "three"):
            await caller.send(audio(turn), 3000)
            caller.finalize(turn.replace(" ", "-"))
            await caller.until(Transcribed, lambda t, turn=turn: t.finalize_id == turn.replace(" ", "-"))
        caller.finalize("nothing")
        await caller.until(Transcribed, lambda t: t.finalize_id == "nothing")
        await caller.end()
        answers = [(t.finalize_id, t.text) for t in caller.finals if t.finalize_id]
        assert answers == [("one-two", "one two"), ("three", "three"), ("nothing", "")]


async def test_a_vanished_caller_leaves_nothing_open() -> None:
    async with listening() as (caller, upstream):
        await caller.send(audio("one two"), 3000)
        await caller.until(Transcribed)
        await caller.vanish()
        await upstream.journal.wait_for(lambda _: upstream.open_connections == 0)
        (record,) = upstream.journal.of("stt")
        assert record.texts == []
