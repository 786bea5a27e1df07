"""The scenarios: what every client has to do, one function each.

A scenario says by commands of the protocol (README.md) what the driver shall do, and checks what comes of it. The
gateway is a real one, in front of a local upstream whose audio is a code: `session.spoken()` is what a listener hears,
letter by letter, and `waves_local.speak` makes audio in which words are heard. Whatever a scenario is about, it fails
where events of a session come in an impossible order, where the driver leaves something behind, and where it hangs.
"""

from __future__ import annotations

import asyncio
import io
import random
import re
import secrets
from collections.abc import Iterator
from typing import Any, Literal

import grpc
import numpy as np
import soundfile
import waves_local
from google.protobuf.duration_pb2 import Duration
from wavegate.speech import v1
from waves_local import codecs
from waves_local.opus import OggOpusReader

from clients.conformance.judge.messages import Failed, message_of, problem_of_status
from clients.conformance.judge.script import (
    Case,
    Client,
    NotApplicable,
    Problem,
    Session,
    b64,
    check,
    eventually,
    expect,
    near,
    refused,
    same,
    scenario,
)
from clients.conformance.judge.scripted import SESSION_ID, Call
from clients.conformance.judge.world import TOKENS, Gateway
from tests.clients.python import fake_gateway

HELLO = "Hello there, this is a whole text."
STORY = (
    "Once upon a time there was a stream that lost its call.",
    "It came back.",
    "Nothing was missing, nothing was said twice, and everybody was content with it.",
    "The end.",
)
LONG = "A very long story of which nobody wants to hear the end, told by a voice that does not tire. " * 12
VOICE = {"voice_id": "magnus"}
TIMED = {"voice_id": "avery", "model": "lightning_v3.1_pro", "word_timings": True}
"""A voice that tells when each word is heard."""
ENGLISH = {"language_code": "en"}
SAID = "alpha bravo charlie delta echo foxtrot golf hotel india juliet kilo lima".split()
RATE_HZ = 16000
SLOWLY = waves_local.Options(chunk_interval_s=0.02)
"""An upstream that speaks at five times the speed of speech, so that something can happen meanwhile."""
NEVER = 2**60


# -- helpers ----------------------------------------------------------------------------------------------------


def speech(*words: str, rate_hz: int = RATE_HZ, gap_s: float = 0.1, tail_s: float = 0.3) -> bytes:
    """Audio in which these words are heard."""
    return waves_local.speak(list(words), rate_hz, gap_s=gap_s, tail_s=tail_s)


def tokens_of(text: str) -> list[str]:
    """A text as a language model writes it."""
    return re.findall(r"\s*\S+", text)


def seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9


def words_in(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def cuts(direction: Literal["up", "down"], *after_bytes: int) -> Iterator[tuple[Literal["up", "down"], int]]:
    """Cut one connection after the other after so many bytes of a direction, and then none any more."""
    for size in after_bytes:
        yield direction, size
    while True:
        yield direction, NEVER


def parts(content: bytes, size: int) -> list[bytes]:
    return [content[at : at + size] for at in range(0, len(content), size)]


async def live(gateway: Gateway) -> list[v1.Session]:
    """The sessions that a gateway has."""
    return [*(await gateway.sessions.ListSessions(v1.ListSessionsRequest())).sessions]


async def no_sessions(gateway: Gateway) -> None:
    """Wait until a gateway has none."""

    async def none() -> bool:
        return not await live(gateway)

    await eventually(none, "the gateway has no session any more")


async def say_all(session: Session, texts: tuple[str, ...]) -> None:
    """Say texts as u0, u1, …"""
    for number, text in enumerate(texts):
        await session.do("say", text=text, utterance_id=f"u{number}")


def said(session: Session, count: int) -> list[str]:
    """What was heard of u0, u1, …"""
    return [session.spoken(f"u{number}").strip() for number in range(count)]


def status(code: str, reason: str) -> v1.Status:
    """A status with everything that one can have."""
    made: v1.Status = fake_gateway.status(
        grpc.StatusCode[code],
        reason,
        f"this is {reason}",
        retry_s=2,
        fields={"start.settings.speed": "must be between 0.5 and 2.0"},
        quota=("caller", "1 session"),
    )
    return made


def problem_in(event: Any, field: str) -> Problem:
    """The error that an event carries, without a kind."""
    return problem_of_status(getattr(event, field))


# -- speaking ---------------------------------------------------------------------------------------------------


@scenario("speak/whole-text")
async def whole_text(case: Case) -> None:
    """A whole text is heard once, letter by letter, and completed; the session ends well."""
    session = await (await case.connect()).synthesis(settings=VOICE)
    await session.do("say", text=HELLO, utterance_id="u1")
    done = await session.completed("u1")
    same("characters of the metrics", done.metrics.input_character_count, len(HELLO))
    events = await session.finish()
    same("what was heard", session.spoken("u1"), HELLO)
    same("bytes of the metrics", done.metrics.audio_bytes, len(session.audio("u1")))
    same("the first event", events[0].kind, "session_started")
    same("the last event", events[-1].kind, "session_ended")
    same("why it ended", events[-1].message.reason, v1.SessionEnded.REASON_CLIENT_END)
    same("utterances that started", [u.utterance_id for u in session.of("utterance_started")], ["u1"])
    same("utterances in the totals", events[-1].message.usage.utterance_count, 1)


@scenario("speak/close-finishes")
async def close_finishes(case: Case) -> None:
    """Leaving the session's scope in good order waits until everything is spoken, and the session is gone."""
    gateway = await case.gateway(options=SLOWLY)
    client = await case.connect(gateway.target)
    session = await client.synthesis(settings=VOICE)
    await session.do("say", text=HELLO, utterance_id="u1")
    await session.do("close")
    same(
        "what the upstream was sent",
        [t["text"] for c in gateway.connections("tts") for t in c.texts],
        [HELLO],
    )
    await no_sessions(gateway)
    await refused(session.do("say", text="Too late."), ("SESSION_CLOSED", "ARGUMENT"))


@scenario("speak/token-stream")
async def token_stream(case: Case) -> None:
    """The tokens of a language model are one utterance, joined as they are."""
    session = await (await case.connect()).synthesis(settings=TIMED)
    await session.do("say_tokens", tokens=tokens_of(" ".join(STORY)), interval=0.005, utterance_id="u1")
    await session.completed("u1")
    await session.finish()
    same("what was heard", session.spoken("u1"), " ".join(STORY))
    same("completed", len(session.of("utterance_completed")), 1)


@scenario("speak/in-order")
async def in_order(case: Case) -> None:
    """Utterances are heard one after the other in the order in which they were said, texts behind tokens, too."""
    session = await (await case.connect()).synthesis(settings=VOICE)
    await session.do("say_tokens", tokens=["One ", "two ", "three."], interval=0.05, utterance_id="u0")
    for number, text in enumerate(STORY, 1):
        await session.do("say", text=text, utterance_id=f"u{number}")
    await session.finish()
    wanted = ["One two three.", *STORY]
    same("what was heard", said(session, len(wanted)), wanted)
    same("all of it", session.spoken(), "".join(wanted))
    ended = [u.utterance_id for u in session.of("utterance_completed")]
    same("the order of the ends", ended, [f"u{n}" for n in range(len(wanted))])


@scenario("speak/pieces-and-flush")
async def pieces_and_flush(case: Case) -> None:
    """Pieces of text are one utterance; `flush` speaks what is there and keeps it open, `end_utterance` ends it."""
    session = await (await case.connect()).synthesis(settings={**TIMED, "max_buffer_delay": "5s"})
    await session.do("send_text", text="One moment ", utterance_id="u1")
    await session.do("send_text", text="please", utterance_id="u1")
    await session.do("flush", utterance_id="u1")
    await session.until(lambda: session.spoken("u1") == "One moment please", "what was flushed")
    same("ends so far", session.of("utterance_completed"), [])
    await session.do("send_text", text=", I look it up.", utterance_id="u1")
    await session.do("end_utterance", utterance_id="u1")
    await session.completed("u1")
    await session.finish()
    same("what was heard", session.spoken("u1"), "One moment please, I look it up.")
    same("utterances", len(session.of("utterance_completed")), 1)


@scenario("speak/own-ids")
async def own_ids(case: Case) -> None:
    """Without an id each utterance gets one of its own, by which its audio and its end are known."""
    session = await (await case.connect()).synthesis(settings=VOICE)
    ids = [(await session.do("say", text=text))["utterance_id"] for text in STORY[:2]]
    check(all(ids) and len({*ids}) == 2, f"these are no two ids: {ids}")
    for name in ids:
        await session.completed(name)
    await session.finish()
    same("what was heard", [session.spoken(name) for name in ids], [*STORY[:2]])


@scenario("speak/blank")
async def blank(case: Case) -> None:
    """A blank text, and an iterator without tokens, complete without audio; what follows is spoken."""
    session = await (await case.connect()).synthesis(settings=VOICE)
    await session.do("say", text="  \n ", utterance_id="u0")
    await session.do("say_tokens", tokens=[], utterance_id="u1")
    await session.do("say_tokens", tokens=["", " ", ""], utterance_id="u2")
    await session.do("say", text=HELLO, utterance_id="u3")
    for name in ("u0", "u1", "u2", "u3"):
        await session.completed(name)
    await session.finish()
    same("what was heard", said(session, 4), ["", "", "", HELLO])


@scenario("speak/any-script")
async def any_script(case: Case) -> None:
    """Text is passed on as it is: other scripts, signs beyond 16 bits, combining marks."""
    text = "नमस्ते दुनिया, 你好, e\u0301t\u00e9, 🎧 done."
    session = await (await case.connect()).synthesis(settings=VOICE)
    await session.do("say", text=text, utterance_id="u0")
    await session.do("say_tokens", tokens=tokens_of(text), utterance_id="u1")
    done = await session.completed("u0")
    same("characters", done.metrics.input_character_count, len(text))
    await session.finish()
    same("what was heard", said(session, 2), [text, text])


@scenario("speak/long-text")
async def long_text(case: Case) -> None:
    """A text longer than one message may be is sent in several, cut behind blanks, and is one utterance."""
    gateway = await case.faked()
    gateway.max_text_message_chars = 20
    session = await (await case.connect(gateway.target)).synthesis(settings=VOICE)
    text = " ".join(STORY)
    await session.do("say", text=text, utterance_id="u1")
    await session.completed("u1")
    await session.finish()
    pieces = [t.text for t in gateway.inputs("text")]
    check(max(map(len, pieces)) <= 20, f"a message is longer than 20 characters: {pieces}")
    check(all(piece.endswith(" ") for piece in pieces[:-1]), f"words are cut: {pieces}")
    same("what was heard", fake_gateway.text_of(session.audio("u1")), text)
    same("utterances", len(session.of("utterance_completed")), 1)


@scenario("speak/word-timings")
async def word_timings(case: Case) -> None:
    """Each word comes once, with its place and its times."""
    session = await (await case.connect()).synthesis(settings=TIMED)
    await session.do("say", text=HELLO, utterance_id="u1")
    await session.completed("u1")
    await session.finish()
    words = [word for message in session.of("word_timings") for word in message.words]
    same("the words", [w.text for w in words], HELLO.split())
    same("their places", [w.word_index for w in words], [*range(len(words))])
    for word, at in zip(words, (match.start() for match in re.finditer(r"\S+", HELLO)), strict=True):
        near(f"where {word.text!r} begins", seconds(word.start_offset), at * 0.06, 0.005)
        near(f"how long {word.text!r} is", seconds(word.end_offset), (at + len(word.text)) * 0.06, 0.005)


@scenario("speak/read-utterance")
async def read_utterance(case: Case) -> None:
    """What the client gives as the whole audio of an utterance is that, of each of several."""
    session = await (await case.connect()).synthesis(settings=VOICE, events=False)
    await say_all(session, STORY[:3])
    for number, text in enumerate(STORY[:3]):
        answer = await session.do("read_utterance", utterance_id=f"u{number}")
        same(f"the audio of u{number}", waves_local.spoken(_decoded(answer["audio"])), text)
        await session.completed(f"u{number}")
    await session.do("close")


def _decoded(text: str) -> bytes:
    return bytes(message_of({"audio": text}, v1.AudioChunk).audio)


@scenario("speak/paced")
async def paced(case: Case) -> None:
    """`max_audio_lead` goes to the gateway: what is heard is whole all the same."""
    session = await (await case.connect()).synthesis(settings=VOICE, max_audio_lead=0.4)
    await session.do("say", text=STORY[1], utterance_id="u1")
    await session.do("report_playback", utterance_id="u1", playback_offset=0.1)
    await session.completed("u1")
    await session.finish()
    same("what was heard", session.spoken("u1"), STORY[1])
    same("warnings", session.of("warning"), [])


@scenario("speak/once")
async def once(case: Case) -> None:
    """One text in one call: all of its audio, the format that it is in, and what was measured."""
    client = await case.connect()
    answer = await client.do(
        "synthesize_once",
        text=HELLO,
        settings=VOICE,
        audio_format={"encoding": "AUDIO_ENCODING_LINEAR16", "sample_rate_hertz": 16000},
        request_id="only-one",
    )
    same("what was heard", waves_local.spoken(_decoded(answer["audio"])), HELLO)
    started = message_of(answer["session_started"], v1.SessionStarted)
    same("the rate", started.audio_format.sample_rate_hertz, 16000)
    done = message_of(answer["utterance_completed"], v1.UtteranceCompleted)
    same("the id", done.utterance_id, "only-one")
    same("characters", done.metrics.input_character_count, len(HELLO))
    error = await refused(
        client.do("synthesize_once", text="  ", settings=VOICE), "INVALID_REQUEST", reason="FIELD_INVALID"
    )
    same("the field", [path for path, _ in error.field_violations], ["text"])


async def _spoken_in(case: Case, encoding: str, rate_hz: int) -> tuple[bytes, v1.UtteranceCompleted]:
    session = await (await case.connect()).synthesis(
        settings=VOICE,
        audio_format={"encoding": f"AUDIO_ENCODING_{encoding}", "sample_rate_hertz": rate_hz},
    )
    same("the rate in force", session.started.audio_format.sample_rate_hertz, rate_hz)
    same(
        "the encoding",
        session.started.audio_format.encoding,
        v1.AudioEncoding.Value(f"AUDIO_ENCODING_{encoding}"),
    )
    await session.do("say", text=HELLO, utterance_id="u1")
    done = await session.completed("u1")
    await session.finish()
    near("how long it is", seconds(done.metrics.audio_duration), len(HELLO) * 0.06, 0.1)
    return session.audio("u1"), done


@scenario("speak/linear16")
async def speak_linear16(case: Case) -> None:
    """Speech as 16-bit samples at each rate that there is."""
    for rate_hz in (8000, 16000, 24000, 44100):
        audio, _ = await _spoken_in(case, "LINEAR16", rate_hz)
        same(f"what was heard at {rate_hz} Hz", waves_local.spoken(audio), HELLO)


@scenario("speak/g711")
async def speak_g711(case: Case) -> None:
    """Speech as mu-law and A-law, as telephones have it."""
    audio, _ = await _spoken_in(case, "MULAW", 8000)
    same("what was heard in mu-law", waves_local.spoken(codecs.mulaw_decode(audio)), HELLO)
    audio, _ = await _spoken_in(case, "ALAW", 8000)
    same("what was heard in A-law", waves_local.spoken(codecs.alaw_decode(audio)), HELLO)


@scenario("speak/wav")
async def speak_wav(case: Case) -> None:
    """Speech as WAV: one header, and then samples."""
    audio, _ = await _spoken_in(case, "WAV", 16000)
    same("how it begins", audio[:4], b"RIFF")
    same("headers", audio.count(b"WAVEfmt "), 1)
    at = audio.index(b"data") + 8
    same("what was heard", waves_local.spoken(audio[at:]), HELLO)


@scenario("speak/mp3")
async def speak_mp3(case: Case) -> None:
    """Speech as MP3, of the length of the text."""
    audio, _ = await _spoken_in(case, "MP3", 24000)
    samples, rate_hz = soundfile.read(io.BytesIO(audio))
    same("the rate", rate_hz, 24000)
    near("its length", len(samples) / rate_hz, len(HELLO) * 0.06, 0.15)


# -- cancelling -------------------------------------------------------------------------------------------------


@scenario("cancel/playback-offset")
async def cancel_with_offset(case: Case) -> None:
    """Barge-in with what the listener has heard: the rest comes back as text, and no audio comes any more."""
    gateway = await case.gateway(options=SLOWLY)
    session = await (await case.connect(gateway.target)).synthesis(settings=TIMED)
    await session.do("say", text=LONG, utterance_id="u1")
    await session.heard(1.0)
    await session.do("cancel", utterance_id="u1", playback_offset=0.6)
    done = await session.cancelled("u1")
    same("the two parts of the text", (done.spoken_text + done.remaining_text).split(), LONG.split())
    near("characters heard in 0.6 s at 0.06 s each", len(done.spoken_text), 10, 8)
    same("how it is known", done.estimate_source, v1.ESTIMATE_SOURCE_WORD_TIMINGS)
    await session.do("say", text="Yes?", utterance_id="u2")
    await session.completed("u2")
    await session.finish()
    same("what was heard next", session.spoken("u2"), "Yes?")
    check(len(session.audio("u1")) < len(LONG) * 0.06 * 48_000 / 2, "most of the audio came all the same")


@scenario("cancel/after-playback-reports")
async def cancel_after_reports(case: Case) -> None:
    """Without an offset the latest report says what was heard."""
    gateway = await case.gateway(options=SLOWLY)
    session = await (await case.connect(gateway.target)).synthesis(settings=TIMED)
    await session.do("say", text=LONG, utterance_id="u1")
    await session.heard(1.5)
    await session.do("report_playback", utterance_id="u1", playback_offset=0.3)
    await session.do("report_playback", utterance_id="u1", playback_offset=0.6)
    await session.do("cancel", utterance_id="u1")
    done = await session.cancelled("u1")
    near("characters heard in 0.6 s", len(done.spoken_text), 10, 8)
    await session.finish()


@scenario("cancel/all")
async def cancel_all(case: Case) -> None:
    """Without an id every utterance that has not ended is cancelled; the next text is spoken."""
    gateway = await case.gateway(options=SLOWLY)
    session = await (await case.connect(gateway.target)).synthesis(settings=VOICE)
    await session.do("say", text=LONG, utterance_id="u0")
    await session.do("say", text=STORY[0], utterance_id="u1")
    await session.do("say", text=STORY[1], utterance_id="u2")
    await session.heard(0.2)
    await session.do("cancel")
    for name in ("u0", "u1", "u2"):
        done = await session.cancelled(name)
        if name != "u0":
            same(f"heard of {name}", done.spoken_text, "")
    await session.do("say", text="Yes?", utterance_id="u3")
    await session.completed("u3")
    await session.finish()
    same("what was heard behind it", said(session, 4)[1:], ["", "", "Yes?"])


@scenario("cancel/twice")
async def cancel_twice(case: Case) -> None:
    """Cancelling again, or what has ended, or what never was, harms nothing."""
    gateway = await case.gateway(options=SLOWLY)
    session = await (await case.connect(gateway.target)).synthesis(settings=VOICE)
    await session.do("cancel")
    await session.do("say", text=LONG, utterance_id="u1")
    await session.heard(0.2)
    await session.do("cancel", utterance_id="u1")
    await session.do("cancel", utterance_id="u1")
    await session.cancelled("u1")
    await session.do("cancel", utterance_id="u1")
    await session.do("cancel", utterance_id="nobody")
    await session.do("say", text="Yes?", utterance_id="u2")
    await session.completed("u2")
    await session.do("cancel", utterance_id="u2")
    await session.completed("u2")
    await session.finish()
    same("what was heard", session.spoken("u2"), "Yes?")
    same("utterances that were cancelled", len(session.of("utterance_cancelled")), 1)


@scenario("cancel/nothing-late")
async def cancel_nothing_late(case: Case) -> None:
    """Audio that was under way when the cancel was sent is not delivered."""
    gateway = await case.faked()
    gateway.late_audio_chunks = 5
    gateway.hold.clear()
    session = await (await case.connect(gateway.target)).synthesis(settings=VOICE)
    await session.do("say", text="x" * 40, utterance_id="u1")
    await session.until(lambda: session.audio("u1"), "the first audio")
    await session.do("cancel", utterance_id="u1")
    await session.cancelled("u1")
    gateway.hold.set()
    await session.do("say", text="Next.", utterance_id="u2")
    await session.completed("u2")
    await session.finish()
    check("LATE" not in fake_gateway.text_of(session.audio()), "audio came after the cancel")
    same("what was heard next", fake_gateway.text_of(session.audio("u2")), "Next.")


@scenario("cancel/late-text")
async def cancel_late_text(case: Case) -> None:
    """Text that comes for an utterance that was cancelled is dropped with a warning, and never spoken."""
    gateway = await case.gateway(options=SLOWLY)
    session = await (await case.connect(gateway.target)).synthesis(settings=VOICE)
    await session.do("send_text", text=LONG, utterance_id="u1")
    await session.heard(0.1)
    await session.do("cancel", utterance_id="u1")
    await session.do("send_text", text="This is too late.", utterance_id="u1")
    warning = await session.event("warning")
    same("the warning", (warning.reason, warning.utterance_id), ("STALE_TEXT", "u1"))
    await session.do("say", text="Yes?", utterance_id="u2")
    await session.completed("u2")
    await session.finish()
    same("what was heard next", session.spoken("u2"), "Yes?")
    same("utterances that were cancelled", len(session.of("utterance_cancelled")), 1)


@scenario("cancel/stops-tokens")
async def cancel_stops_tokens(case: Case) -> None:
    """The iterator behind an utterance is left, and no late token of it is spoken."""
    gateway = await case.gateway()
    session = await (await case.connect(gateway.target)).synthesis(settings=VOICE)
    tokens = ["Talking ", *(f"and {n} talking " for n in range(1000))]
    await session.do("say_tokens", tokens=tokens, interval=0.02, utterance_id="u1")
    await session.heard(0.2)
    await session.do("cancel", utterance_id="u1")
    await session.cancelled("u1")
    await session.do("say", text="Yes?", utterance_id="u2")
    await session.completed("u2")
    await session.finish()
    same("what was heard next", session.spoken("u2"), "Yes?")
    same("warnings", session.of("warning"), [])


@scenario("cancel/before-it-was-sent")
async def cancel_unsent(case: Case) -> None:
    """What waits behind another's tokens can be cancelled before the gateway has heard of it."""
    session = await (await case.connect()).synthesis(settings=VOICE)
    await session.do("say_tokens", tokens=tokens_of(STORY[0]), interval=0.03, utterance_id="u0")
    await session.do("say", text="Never heard.", utterance_id="u1")
    await session.do("cancel", utterance_id="u1")
    done = await session.cancelled("u1")
    same("how", done.method, done.METHOD_NOT_SENT)
    await session.completed("u0")
    await session.finish()
    same("what was heard", said(session, 2), [STORY[0], ""])


@scenario("speak/iterator-fails")
async def iterator_fails(case: Case) -> None:
    """What the caller's iterator raises comes out of the utterance, which is cancelled; the session goes on."""
    session = await (await case.connect()).synthesis(settings=VOICE)
    await session.do(
        "say_tokens",
        tokens=["One ", "two ", "three ", "four "],
        interval=0.01,
        utterance_id="u1",
        fail_after=2,
    )
    await refused(session.wait("u1"), "CALLER")
    await session.event("utterance_cancelled")
    await session.do("say", text=HELLO, utterance_id="u2")
    await session.completed("u2")
    await session.finish()
    same("what was heard next", session.spoken("u2"), HELLO)


# -- listening --------------------------------------------------------------------------------------------------


@scenario("listen/whole")
async def listen_whole(case: Case) -> None:
    """A recording that is sent at once is heard word by word, and the last transcript says that it is the last."""
    session = await (await case.connect()).transcription(settings=ENGLISH)
    for part in parts(speech(*SAID), 64_000):
        await session.do("send_audio", content=b64(part))
    events = await session.finish()
    same("what was heard", session.words(), SAID)
    check(session.finals()[-1].is_last, "no transcript is the last")
    check(any(not t.is_final for t in session.of("transcript")), "no interim transcript came")
    same("the last event", events[-1].kind, "session_ended")


@scenario("listen/paced")
async def listen_paced(case: Case) -> None:
    """Audio at four times its speed, in pieces of 50 ms, is heard while it comes."""
    session = await (await case.connect()).transcription(settings=ENGLISH)
    sending = session.ask("send_audio", content=b64(speech(*SAID[:6])), pace=4, piece=0.05)
    await session.event("transcript", lambda t: words_in(t.text)[:1] == SAID[:1])
    check(not sending.done(), "the first word came when all was sent")
    await session.answer(sending)
    await session.finish()
    same("what was heard", session.words(), SAID[:6])


@scenario("listen/pieces-of-any-size")
async def listen_odd_pieces(case: Case) -> None:
    """Audio may be cut anywhere, within a sample, too."""
    session = await (await case.connect()).transcription(settings=ENGLISH)
    content = speech(*SAID[:3])
    for part in (content[:1], content[1:4448], content[4448:4451], content[4451:]):
        await session.do("send_audio", content=b64(part))
    await session.finish()
    same("what was heard", session.words(), SAID[:3])


@scenario("listen/larger-than-a-message")
async def listen_large(case: Case) -> None:
    """One piece of audio that is larger than a message may be is sent in several."""
    session = await (await case.connect()).transcription(settings=ENGLISH)
    limit = session.started.limits.max_audio_message_bytes
    content = speech(*SAID * 4)
    check(0 < limit < len(content), f"{limit} bytes a message: this tests nothing")
    await session.do("send_audio", content=b64(content))
    await session.finish()
    same("what was heard", session.words(), SAID * 4)


@scenario("listen/finalize")
async def finalize(case: Case) -> None:
    """`finalize` gives the final of what was said so far, of nothing an empty one, and the session goes on."""
    session = await (await case.connect()).transcription(settings=ENGLISH)
    await session.do("send_audio", content=b64(speech(*SAID[:3])))
    first = message_of((await session.do("finalize"))["transcript"], v1.Transcript)
    same("the first turn", words_in(first.text), SAID[:3])
    check(first.is_final and first.finalize_id, "it is no final that answers a finalize")
    await session.do("send_audio", content=b64(speech(*SAID[3:6])))
    second = message_of((await session.do("finalize"))["transcript"], v1.Transcript)
    same("the second turn", words_in(second.text), SAID[3:6])
    third = message_of((await session.do("finalize"))["transcript"], v1.Transcript)
    same("the third turn", third.text, "")
    await session.finish()
    same("what was heard", session.words(), SAID[:6])


@scenario("listen/everything-it-tells")
async def listen_details(case: Case) -> None:
    """Times of words on one timeline that begins where the caller says, voice activity, sentences, the full text."""
    session = await (await case.connect()).transcription(
        settings={
            **ENGLISH,
            "word_timings": True,
            "sentence_timings": True,
            "voice_activity_events": True,
            "full_transcript": True,
            "end_of_utterance_timeout": "0.4s",
        },
        initial_audio_offset=100,
    )
    content = bytes(RATE_HZ) + speech(*SAID[:3], tail_s=1.2) + speech(*SAID[3:6], tail_s=1.2)
    await session.do("send_audio", content=b64(content), piece=0.1)
    await session.finish()
    same("what was heard", session.words(), SAID[:6])
    words = [word for final in session.finals() for word in final.words]
    same("the words", [words_in(w.text)[0] for w in words], SAID[:6])
    near("where the first begins", seconds(words[0].start_offset), 100.5, 0.05)
    same("the order", words, sorted(words, key=lambda w: seconds(w.start_offset)))
    same("the full text", words_in([t for t in session.finals() if t.full_text][-1].full_text), SAID[:6])
    voices = [e.kind for e in session.events if e.kind in ("speech_started", "speech_ended")]
    same("voice activity", voices, ["speech_started", "speech_ended"] * 2)
    near("where the voice began", seconds(session.of("speech_started")[0].audio_offset), 100.5, 0.1)
    check(any(t.sentences for t in session.finals()), "no sentences came")


@scenario("listen/settings-change")
async def listen_settings(case: Case) -> None:
    """Another language in mid-stream needs another connection to the upstream; no word is lost in it."""
    gateway = await case.gateway()
    session = await (await case.connect(gateway.target)).transcription(settings=ENGLISH)
    await session.do("send_audio", content=b64(speech(*SAID[:4])), piece=0.1)
    ack = await session.update(settings={"language_code": "hi"}, apply="IMMEDIATE")
    same("how", (ack.state, ack.mechanism), (ack.STATE_APPLIED, ack.MECHANISM_RECONNECT))
    same("the language in force", ack.settings.transcription.language_code, "hi")
    near("where in the audio", seconds(ack.audio_offset), len(speech(*SAID[:4])) / 32_000, 0.01)
    await session.do("send_audio", content=b64(speech(*SAID[4:8])), piece=0.1)
    await session.finish()
    same("what was heard", session.words(), SAID[:8])
    same("languages upstream", [c.query["language"] for c in gateway.connections("stt")], ["en", "hi"])


@scenario("listen/keywords-cleared")
async def keywords(case: Case) -> None:
    """Keywords can be given, replaced, and set to none, which is not the same as left alone."""
    session = await (await case.connect()).transcription(
        settings={
            **ENGLISH,
            "keywords": {"keywords": [{"phrase": "Wavegate", "boost": 2}, {"phrase": "Pulse"}]},
        }
    )
    same(
        "at the start",
        [k.phrase for k in session.started.settings.transcription.keywords.keywords],
        ["Wavegate", "Pulse"],
    )
    ack = await session.update(settings={"punctuation": False}, apply="IMMEDIATE")
    same("left alone", len(ack.settings.transcription.keywords.keywords), 2)
    ack = await session.update(settings={"keywords": {}}, apply="IMMEDIATE")
    same("none", len(ack.settings.transcription.keywords.keywords), 0)
    await session.finish()


async def _heard_in(
    case: Case, encoding: str, rate_hz: int, contents: list[bytes], settings: dict[str, Any] | None = None
) -> Session:
    session = await (await case.connect()).transcription(
        settings={**ENGLISH, **(settings or {})},
        audio_format={"encoding": f"AUDIO_ENCODING_{encoding}", "sample_rate_hertz": rate_hz},
    )
    for content in contents:
        await session.do("send_audio", content=b64(content))
    await session.finish()
    return session


@scenario("listen/linear")
async def listen_linear(case: Case) -> None:
    """Audio as 16-bit and 32-bit samples, at several rates."""
    for rate_hz in (8000, 16000, 48000):
        content = speech(*SAID[:3], rate_hz=rate_hz)
        session = await _heard_in(case, "LINEAR16", rate_hz, parts(content, 9_999))
        same(f"what was heard at {rate_hz} Hz", session.words(), SAID[:3])
    wide = (np.frombuffer(speech(*SAID[:3]), np.int16).astype("<i4") << 16).tobytes()
    session = await _heard_in(case, "LINEAR32", RATE_HZ, parts(wide, 9_999))
    same("what was heard in 32 bits", session.words(), SAID[:3])


@scenario("listen/g711")
async def listen_g711(case: Case) -> None:
    """Audio as mu-law and A-law, as telephones have it."""
    content = speech(*SAID[:3], rate_hz=8000)
    session = await _heard_in(case, "MULAW", 8000, [codecs.mulaw_encode(content)])
    same("what was heard in mu-law", session.words(), SAID[:3])
    session = await _heard_in(case, "ALAW", 8000, [codecs.alaw_encode(content)])
    same("what was heard in A-law", session.words(), SAID[:3])


def _ogg_opus(length_s: float) -> bytes:
    """A tone. Opus loses the code of the deterministic engine, which hears a tone as noise."""
    tone = np.sin(np.arange(round(length_s * 48_000)) / 20).astype("float32") * 0.3
    out = io.BytesIO()
    soundfile.write(out, tone, 48_000, format="OGG", subtype="OPUS")
    return out.getvalue()


@scenario("listen/opus")
async def listen_opus(case: Case) -> None:
    """Audio as Opus packets, one a message, and as an Ogg stream that is cut anywhere."""
    ogg = _ogg_opus(1.0)
    packets = [p for p in OggOpusReader().add(ogg) if not p.startswith(b"Opus")]
    session = await _heard_in(case, "OPUS", 48_000, packets)
    heard = session.of("session_ended")[0].usage
    near("how long the packets are", seconds(heard.audio_duration), 1.0, 0.05)
    check(session.words() and session.words()[0].startswith("noise"), f"heard {session.words()}")
    session = await _heard_in(case, "OGG_OPUS", 48_000, parts(ogg, 777))
    check(session.words() and session.words()[0].startswith("noise"), f"heard {session.words()}")


@scenario("listen/once")
async def listen_once(case: Case) -> None:
    """A recording in one call: samples with their format, a file that says itself what it is, and its address."""
    gateway = await case.gateway()
    client = await case.connect(gateway.target)
    content = speech(*SAID[:4])
    timed = {**ENGLISH, "word_timings": True}
    raw = await client.do(
        "transcribe_once",
        content=b64(content),
        audio_format={"encoding": "AUDIO_ENCODING_LINEAR16", "sample_rate_hertz": RATE_HZ},
        settings=timed,
    )
    answer = message_of(raw, v1.RecognizeResponse)
    same("what was heard", words_in(answer.text), SAID[:4])
    same("the words", [words_in(w.text)[0] for w in answer.words], SAID[:4])
    near("its length", seconds(answer.audio_duration), len(content) / 32_000, 0.02)
    raw = await client.do("transcribe_once", content=b64(codecs.wav(content, RATE_HZ)), settings=ENGLISH)
    same("what was heard of a file", words_in(message_of(raw, v1.RecognizeResponse).text), SAID[:4])
    error = await refused(
        client.do("transcribe_once", settings=ENGLISH, content=""), ("INVALID_REQUEST", "ARGUMENT")
    )
    check(error.message, "no message")


@scenario("listen/once-by-address")
async def listen_by_address(case: Case) -> None:
    """A recording that the upstream fetches by itself."""
    served = asyncio.Event()
    content = codecs.wav(speech(*SAID[:4]), RATE_HZ)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(content)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + content)
        await writer.drain()
        writer.close()
        served.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        client = await case.connect()
        uri = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/said.wav"
        raw = await client.do("transcribe_once", uri=uri, settings=ENGLISH)
    same("what was heard", words_in(message_of(raw, v1.RecognizeResponse).text), SAID[:4])
    check(served.is_set(), "nobody fetched it")


# -- settings, in the session's own stream ----------------------------------------------------------------------


@scenario("settings/next-utterance")
async def settings_next_utterance(case: Case) -> None:
    """A change is applied, says how each field took effect, and the next utterance has it."""
    session = await (await case.connect()).synthesis(settings=VOICE)
    ack = await session.update(settings={"speed": 2.0, "voice_id": "sophia"})
    same("its state", ack.state, ack.STATE_APPLIED)
    same("its fields", sorted(f.path for f in ack.fields), ["speed", "voice_id"])
    same("the revision", ack.settings_revision, 2)
    same("the speed in force", ack.settings.synthesis.speed, 2.0)
    await session.do("say", text=HELLO, utterance_id="u1")
    done = await session.completed("u1")
    same("the revision it was spoken with", done.settings_revision, 2)
    near("how long it takes", seconds(done.metrics.audio_duration), len(HELLO) * 0.03, 0.01)
    await session.finish()


@scenario("settings/while-speaking")
async def settings_while_speaking(case: Case) -> None:
    """In mid-utterance a change waits for the end of it: queued, then applied with the next utterance."""
    gateway = await case.gateway(options=SLOWLY)
    session = await (await case.connect(gateway.target)).synthesis(settings=VOICE)
    await session.do("say", text=STORY[0], utterance_id="u0")
    await session.heard(0.2)
    ack = await session.update(settings={"speed": 2.0}, update_id="faster")
    same("how", (ack.state, ack.mechanism), (ack.STATE_APPLIED, ack.MECHANISM_NEXT_UTTERANCE))
    await session.event("settings_ack", lambda a: a.state == a.STATE_APPLIED)
    states = [a.state for a in session.of("settings_ack") if a.update_id == "faster"]
    same("its states", states, [ack.STATE_QUEUED, ack.STATE_APPLIED])
    await session.do("say", text=STORY[1], utterance_id="u1")
    await session.finish()
    revisions = {u.utterance_id: u.settings_revision for u in session.of("utterance_started")}
    same("revisions", revisions, {"u0": 1, "u1": 2})
    same("what was heard", said(session, 2), [*STORY[:2]])


@scenario("settings/immediate")
async def settings_immediate(case: Case) -> None:
    """IMMEDIATE governs the rest of the utterance that is being spoken, too."""
    session = await (await case.connect()).synthesis(settings=TIMED)
    await session.do("send_text", text="This is said at leisure. ", utterance_id="u1")
    await session.heard(0.5)
    ack = await session.update(settings={"speed": 2.0}, apply="IMMEDIATE")
    same("how", (ack.state, ack.mechanism), (ack.STATE_APPLIED, ack.MECHANISM_IN_PLACE))
    await session.do("send_text", text="And this in a hurry.", utterance_id="u1", end_utterance=True)
    done = await session.completed("u1")
    await session.finish()
    same(
        "what was heard",
        words_in(session.spoken("u1")),
        words_in("This is said at leisure. And this in a hurry."),
    )
    near("how long it takes", seconds(done.metrics.audio_duration), 24 * 0.06 + 20 * 0.03, 0.13)


@scenario("settings/superseded")
async def settings_superseded(case: Case) -> None:
    """A change that a later one overtakes before it was applied says so."""
    gateway = await case.gateway(options=SLOWLY)
    session = await (await case.connect(gateway.target)).synthesis(settings=VOICE)
    await session.do("say", text=STORY[0], utterance_id="u0")
    await session.heard(0.2)
    first = session.ask("update_settings", settings={"speed": 1.5}, update_id="a")
    await session.event("settings_ack", lambda a: a.update_id == "a")
    second = await session.update(settings={"speed": 2.0}, update_id="b")
    overtaken = message_of((await session.answer(first))["settings_ack"], v1.SettingsAck)
    same("the first", overtaken.state, overtaken.STATE_SUPERSEDED)
    same("the second", (second.state, second.settings.synthesis.speed), (second.STATE_APPLIED, 2.0))
    await session.finish()


@scenario("settings/in-place-and-no-reconnect")
async def settings_no_reconnect(case: Case) -> None:
    """NO_RECONNECT is done where nothing has to be opened anew, and refused where it would be."""
    session = await (await case.connect()).transcription(settings=ENGLISH)
    ack = await session.update(settings={"interim_results": False}, apply="NO_RECONNECT")
    same("how", (ack.state, ack.mechanism), (ack.STATE_APPLIED, ack.MECHANISM_IN_PLACE))
    await refused(
        session.update(settings={"language_code": "hi"}, apply="NO_RECONNECT"),
        "OTHER",
        "FAILED_PRECONDITION",
        "RECONNECT_REQUIRED",
    )
    await session.do("send_audio", content=b64(speech(*SAID[:3])))
    await session.finish()
    same("what was heard", session.words(), SAID[:3])
    check(all(t.is_final for t in session.of("transcript")), "interim transcripts came all the same")


@scenario("settings/no-change")
async def settings_no_change(case: Case) -> None:
    """A change to what is so already makes no revision."""
    session = await (await case.connect()).synthesis(settings={**VOICE, "speed": 1.25})
    ack = await session.update(settings={"speed": 1.25})
    same("how", (ack.state, ack.mechanism), (ack.STATE_APPLIED, ack.MECHANISM_NO_CHANGE))
    same("the revision", ack.settings_revision, 1)
    await session.finish()


@scenario("settings/reset")
async def settings_reset(case: Case) -> None:
    """Fields can be put back to their defaults, by their names in the contract."""
    session = await (await case.connect()).synthesis(
        settings={**VOICE, "speed": 1.5, "max_buffer_delay": "0.5s", "extra": {"shade": "warm", "level": 3}}
    )
    same("extra at the start", session.started.settings.synthesis.extra["level"], 3)
    ack = await session.update(reset=["speed", "max_buffer_delay", "extra"], settings={"math_notation": True})
    settings = ack.settings.synthesis
    check(not settings.HasField("speed") or settings.speed == 1.0, f"the speed is {settings.speed}")
    check(not settings.HasField("extra"), "extra is still there")
    check(settings.math_notation, "math_notation was not set along with it")
    same(
        "the fields",
        sorted(f.path for f in ack.fields),
        ["extra", "math_notation", "max_buffer_delay", "speed"],
    )
    await session.finish()


@scenario("settings/refused")
async def settings_refused(case: Case) -> None:
    """A value out of its range is refused with every field that is wrong, and the session goes on as it was."""
    session = await (await case.connect()).synthesis(settings=VOICE)
    error = await refused(
        session.update(settings={"speed": 9.0, "max_chunk_bytes": -1}),
        "INVALID_REQUEST",
        "INVALID_ARGUMENT",
        "FIELD_INVALID",
    )
    fields = sorted(path.rpartition(".")[2] for path, _ in error.field_violations)
    same("the fields that are wrong", fields, ["max_chunk_bytes", "speed"])
    check(all(description for _, description in error.field_violations), "a violation is not described")
    check(error.retryable is False, "a wrong field is said to be worth a retry")
    rejected = await session.event("settings_ack", lambda a: a.state == a.STATE_REJECTED)
    same("the reason in the event", problem_in(rejected, "error").reason, "FIELD_INVALID")
    await session.do("say", text=HELLO, utterance_id="u1")
    done = await session.completed("u1")
    same("the revision", done.settings_revision, 1)
    await session.finish()


@scenario("settings/validate-only")
async def settings_validate_only(case: Case) -> None:
    """What would happen is told, and nothing does."""
    session = await (await case.connect()).synthesis(settings=VOICE)
    ack = await session.update(settings={"speed": 1.5}, validate_only=True)
    same("its state", ack.state, ack.STATE_VALIDATED)
    same("the speed that would be", ack.settings.synthesis.speed, 1.5)
    await refused(session.update(settings={"speed": 9.0}, validate_only=True), "INVALID_REQUEST")
    ack = await session.update(settings={"math_notation": True})
    same("the revision after another change", ack.settings_revision, 2)
    check(ack.settings.synthesis.speed in (0.0, 1.0), "the speed has changed")
    await session.finish()


@scenario("settings/revision-mismatch")
async def settings_revision(case: Case) -> None:
    """`expected_revision` guards against a change that somebody else has made meanwhile."""
    session = await (await case.connect()).synthesis(settings=VOICE)
    ack = await session.update(settings={"speed": 1.5}, expected_revision=1)
    same("the revision", ack.settings_revision, 2)
    error = await refused(
        session.update(settings={"speed": 1.75}, expected_revision=1),
        "CONFLICT",
        "ABORTED",
        "REVISION_MISMATCH",
    )
    check(error.message, "no message")
    ack = await session.update(settings={"speed": 1.75}, expected_revision=2)
    same("the revision", ack.settings_revision, 3)
    await session.finish()


# -- settings, from outside -------------------------------------------------------------------------------------


@scenario("control/both-kinds")
async def control_both(case: Case) -> None:
    """One stream changes sessions of both kinds; each session hears of its own change, too."""
    gateway = await case.gateway()
    client, outside = await case.connect(gateway.target), await case.connect(gateway.target)
    speaking, listening = await client.synthesis(settings=VOICE), await client.transcription(settings=ENGLISH)
    control = await outside.control()
    ack = await control.update(speaking.id, synthesis={"speed": 2.0}, update_id="from-outside")
    same("its state", (ack.state, ack.settings_revision), (ack.STATE_APPLIED, 2))
    own = await speaking.event("settings_ack", lambda a: a.update_id == "from-outside")
    same("the ack in the session", own.settings.synthesis.speed, 2.0)
    ack = await control.update(listening.id, transcription={"word_timings": True}, reset=["interim_results"])
    same("its state", ack.state, ack.STATE_APPLIED)
    await control.event("ack", lambda a: a.update_id == "from-outside")
    await control.close()
    await speaking.do("say", text=HELLO, utterance_id="u1")
    done = await speaking.completed("u1")
    same("the revision it was spoken with", done.settings_revision, 2)
    await speaking.finish()
    await listening.do("send_audio", content=b64(speech(*SAID[:2])))
    await listening.finish()
    check(all(t.words for t in listening.finals() if t.text), "finals have no words")


@scenario("control/after-input")
async def control_after_input(case: Case) -> None:
    """A change can wait for an input of the session: that one still has the old settings."""
    gateway = await case.gateway()
    client = await case.connect(gateway.target)
    session = await client.synthesis(settings=VOICE)
    control = await client.control()
    asked = control.ask(session.id, synthesis={"speed": 2.0}, after_input_sequence=3, update_id="later")
    await control.event("ack", lambda a: a.state == a.STATE_QUEUED)
    await say_all(session, STORY[:2])
    ack = message_of((await session.answer(asked))["ack"], v1.SettingsAck)
    same("its state", ack.state, ack.STATE_APPLIED)
    await session.do("say", text=STORY[3], utterance_id="u2")
    await session.finish()
    revisions = {u.utterance_id: u.settings_revision for u in session.of("utterance_started")}
    same("revisions", revisions, {"u0": 1, "u1": 1, "u2": 2})
    await control.close()


@scenario("control/watch")
async def control_watch(case: Case) -> None:
    """Who watches a session hears of changes that others make, and of its end."""
    gateway = await case.gateway()
    client = await case.connect(gateway.target)
    session = await client.synthesis(settings=VOICE)
    control = await client.control()
    await control.update(session.id, synthesis={"speed": 1.5}, watch=True)
    await session.update(settings={"speed": 2.0}, update_id="its-own")
    own = await control.event("ack", lambda a: a.update_id == "its-own" and a.state == a.STATE_APPLIED)
    same("the speed", own.settings.synthesis.speed, 2.0)
    await session.finish()
    await control.event("session_ended")
    await control.close()


@scenario("control/refused")
async def control_refused(case: Case) -> None:
    """A change that is refused raises, and the stream goes on: unknown sessions, the other kind, revisions, fields."""
    client = await case.connect()
    session = await client.synthesis(settings=VOICE)
    control = await client.control()
    await refused(
        control.update("nobody", synthesis={"speed": 1.5}),
        "SESSION_NOT_FOUND",
        "NOT_FOUND",
        "SESSION_NOT_FOUND",
    )
    await refused(
        control.update(session.id, transcription={"punctuation": False}),
        "INVALID_REQUEST",
        reason="FIELD_INVALID",
    )
    error = await refused(control.update(session.id, synthesis={"speed": 9}), "INVALID_REQUEST")
    check("speed" in error.field_violations[0][0], f"{error.field_violations}")
    await refused(
        control.update(session.id, synthesis={"speed": 1.5}, expected_revision=7), "CONFLICT", "ABORTED"
    )
    ack = await control.update(session.id, synthesis={"speed": 1.5}, validate_only=True)
    same("its state", ack.state, ack.STATE_VALIDATED)
    ack = await control.update(session.id, synthesis={"speed": 1.5}, apply="IMMEDIATE")
    same("the revision", ack.settings_revision, 2)
    await control.close()
    await session.finish()


# -- voices, sessions, traces -----------------------------------------------------------------------------------


@scenario("lookup/voices")
async def voices(case: Case) -> None:
    """The catalogue, by model and by language, with what it says of each voice."""
    client = await case.connect()
    everybody = [message_of(v, v1.Voice) for v in (await client.do("list_voices"))["voices"]]
    check(len(everybody) >= 14, f"{len(everybody)} voices")
    (magnus,) = [v for v in everybody if v.voice_id == "magnus"]
    check("lightning_v3.1" in magnus.models and "en" in magnus.language_codes, f"{magnus}")
    check(any(t.key == "gender" and [*t.values] == ["male"] for t in magnus.tags), f"{magnus.tags}")
    older = await client.do("list_voices", model="lightning-v2")
    same("of a model", {message_of(v, v1.Voice).voice_id for v in older["voices"]}, {"emily", "raj"})
    tamil = await client.do("list_voices", language_code="ta")
    same("of a language", {message_of(v, v1.Voice).voice_id for v in tamil["voices"]}, {"mishka"})
    await refused(client.do("list_voices", model="no-such-model"), ("INVALID_REQUEST", "UPSTREAM"))


@scenario("lookup/pages")
async def pages(case: Case) -> None:
    """Lists are read to their last page."""
    gateway = await case.faked()
    client = await case.connect(gateway.target)
    found = [message_of(v, v1.Voice).voice_id for v in (await client.do("list_voices"))["voices"]]
    same("voices", found, [f"voice-{n}" for n in range(5)])
    sessions = [await client.synthesis(settings=VOICE, labels={"team": "a"}) for _ in range(3)]
    other = await client.synthesis(settings=VOICE, labels={"team": "b"})
    listed = await client.do("list_sessions", labels={"team": "a"})
    ids = [message_of(s, v1.Session).session_id for s in listed["sessions"]]
    same("sessions", sorted(ids), sorted(s.id for s in sessions))
    for session in (*sessions, other):
        await session.finish()


@scenario("lookup/sessions")
async def sessions(case: Case) -> None:
    """Live sessions, by label and one by one; one that has ended is not found."""
    client = await case.connect()
    speaking = await client.synthesis(
        settings={**VOICE, "speed": 1.5}, labels={"team": "a"}, client_session_id="mine-7"
    )
    listening = await client.transcription(settings=ENGLISH, labels={"team": "b"})
    listed = [message_of(s, v1.Session) for s in (await client.do("list_sessions"))["sessions"]]
    same("all", {s.session_id for s in listed}, {speaking.id, listening.id})
    listed = [
        message_of(s, v1.Session)
        for s in (await client.do("list_sessions", labels={"team": "a"}))["sessions"]
    ]
    same("by label", [s.session_id for s in listed], [speaking.id])
    found = await client.session_info(speaking.id)
    same("its settings", found.settings.synthesis.speed, 1.5)
    same("its labels", dict(found.labels), {"team": "a"})
    same("its state", found.state, found.STATE_ACTIVE)
    same("its trace", found.trace_id, speaking.started.trace_id)
    await speaking.finish()
    await listening.finish()
    await refused(client.session_info(speaking.id), "SESSION_NOT_FOUND", "NOT_FOUND", "SESSION_NOT_FOUND")


@scenario("lookup/close-session")
async def close_session(case: Case) -> None:
    """A session can be ended from outside: finished in good order, or at once, which its own caller hears as such."""
    gateway = await case.gateway(options=SLOWLY)
    client, outside = await case.connect(gateway.target), await case.connect(gateway.target)
    first, second = await client.synthesis(settings=VOICE), await client.synthesis(settings=VOICE)
    await first.do("say", text=STORY[0], utterance_id="u1")
    await second.do("say", text=LONG, utterance_id="u1")
    await first.heard()
    await second.heard()
    await outside.do("close_session", session_id=first.id)
    same("the end of the first", await first.over(), None)
    same("what was heard", first.spoken("u1"), STORY[0])
    ended = first.of("session_ended")[0]
    same("why", ended.reason, ended.REASON_CLOSED_BY_OPERATOR)
    await outside.do("close_session", session_id=second.id, discard=True)
    expect(await second.over(), "CONFLICT", "ABORTED", "SESSION_CLOSED")
    same("why", second.of("session_ended")[0].reason, ended.REASON_CLOSED_BY_OPERATOR)
    await refused(outside.do("close_session", session_id=first.id), "SESSION_NOT_FOUND")


@scenario("lookup/discard")
async def discard(case: Case) -> None:
    """`discard` ends a session at once, and well: what was begun is cancelled."""
    gateway = await case.gateway(options=SLOWLY)
    session = await (await case.connect(gateway.target)).synthesis(settings=VOICE)
    await session.do("say", text=LONG, utterance_id="u1")
    await session.heard()
    await session.do("discard")
    same("the end", await session.over(), None)
    same("cancelled", [u.utterance_id for u in session.of("utterance_cancelled")], ["u1"])
    await refused(session.do("say", text="Too late."), "SESSION_CLOSED")


@scenario("trace/spans")
async def trace_spans(case: Case) -> None:
    """The spans of a session can be had by it and by its trace, down to the last chunk; of nobody's: not found."""
    client = await case.connect()
    session = await client.synthesis(settings=VOICE)
    await session.do("say", text=HELLO, utterance_id="u1")
    await session.finish()
    await session.do("close")

    async def spans() -> list[v1.TraceSpan]:
        try:
            answer = await client.do("get_trace", session_id=session.started.session_id)
        except Failed as failed:
            expect(failed.problem, "SESSION_NOT_FOUND", reason="TRACE_NOT_FOUND")
            return []
        found = [message_of(s, v1.TraceSpan) for s in answer["spans"]]
        return found if any(s.kind == s.KIND_SERVER for s in found) else []

    found = await eventually(spans, "the spans of the session")
    same("their trace", {s.trace_id for s in found}, {session.started.trace_id})
    check(any(s.name == "chunk.out" for s in found), f"no chunk among {sorted({s.name for s in found})}")
    root = next(s for s in found if s.kind == s.KIND_SERVER)
    check(root.end_time.ToNanoseconds() > root.start_time.ToNanoseconds() > 0, f"it has no times: {root}")
    by_trace = await client.do("get_trace", trace_id=session.started.trace_id)
    same("spans by trace", len(by_trace["spans"]), len(found))
    await refused(
        client.do("get_trace", trace_id="0" * 31 + "1"), "SESSION_NOT_FOUND", "NOT_FOUND", "TRACE_NOT_FOUND"
    )


@scenario("trace/from-the-caller")
async def trace_from_caller(case: Case) -> None:
    """The caller's own span is the parent of the gateway's."""
    trace_id, span_id = secrets.token_hex(16), secrets.token_hex(8)
    client = await case.connect()
    for session in (
        await client.synthesis(settings=VOICE, traceparent=f"00-{trace_id}-{span_id}-01"),
        await client.transcription(settings=ENGLISH, traceparent=f"00-{trace_id}-{span_id}-01"),
    ):
        same("the trace", session.started.trace_id, trace_id)
        await session.finish()
        await session.do("close")

    async def roots() -> list[v1.TraceSpan]:
        answer = await client.do("get_trace", trace_id=trace_id)
        found = [message_of(s, v1.TraceSpan) for s in answer["spans"]]
        servers = [s for s in found if s.kind == s.KIND_SERVER and s.parent_is_remote]
        return servers if len(servers) == 2 else []

    for root in await eventually(roots, "the spans of both calls"):
        same("its parent", root.parent_span_id, span_id)


# -- errors -----------------------------------------------------------------------------------------------------

REASONS: dict[str, tuple[str, str]] = {
    "FIELD_INVALID": ("INVALID_ARGUMENT", "INVALID_REQUEST"),
    "MESSAGE_ORDER": ("INVALID_ARGUMENT", "INVALID_REQUEST"),
    "NOT_SUPPORTED": ("UNIMPLEMENTED", "OTHER"),
    "RECONNECT_REQUIRED": ("FAILED_PRECONDITION", "OTHER"),
    "REVISION_MISMATCH": ("ABORTED", "CONFLICT"),
    "START_TIMEOUT": ("DEADLINE_EXCEEDED", "DEADLINE"),
    "SESSION_IDLE": ("DEADLINE_EXCEEDED", "DEADLINE"),
    "CALLER_UNAUTHENTICATED": ("UNAUTHENTICATED", "ACCESS_DENIED"),
    "CALLER_FORBIDDEN": ("PERMISSION_DENIED", "ACCESS_DENIED"),
    "SESSION_NOT_FOUND": ("NOT_FOUND", "SESSION_NOT_FOUND"),
    "TRACE_NOT_FOUND": ("NOT_FOUND", "SESSION_NOT_FOUND"),
    "SESSION_TAKEN_OVER": ("ABORTED", "CONFLICT"),
    "SESSION_CLOSED": ("ABORTED", "CONFLICT"),
    "RESUME_GAP": ("OUT_OF_RANGE", "INVALID_REQUEST"),
    "CALLER_QUOTA": ("RESOURCE_EXHAUSTED", "CAPACITY"),
    "GATEWAY_CAPACITY": ("RESOURCE_EXHAUSTED", "CAPACITY"),
    "UPSTREAM_CAPACITY": ("RESOURCE_EXHAUSTED", "CAPACITY"),
    "UPSTREAM_CREDENTIAL": ("FAILED_PRECONDITION", "UPSTREAM"),
    "UPSTREAM_GONE": ("FAILED_PRECONDITION", "UPSTREAM"),
    "UPSTREAM_REJECTED": ("INVALID_ARGUMENT", "INVALID_REQUEST"),
    "UPSTREAM_UNAVAILABLE": ("UNAVAILABLE", "UPSTREAM"),
    "UPSTREAM_STALLED": ("UNAVAILABLE", "UPSTREAM"),
    "UPSTREAM_PROTOCOL": ("INTERNAL", "UPSTREAM"),
    "GATEWAY_DRAINING": ("UNAVAILABLE", "GATEWAY_UNAVAILABLE"),
    "GATEWAY_BUG": ("INTERNAL", "OTHER"),
}
"""Every reason of docs/errors.md, its status, and the kind of error that it is."""


def _check_details(reason: str, problem: Problem) -> None:
    check(f"this is {reason}" in problem.message, f"the message of {reason} is {problem.message!r}")
    same(f"the retry delay of {reason}", problem.retry_delay, 2)
    check(problem.retryable, f"{reason} has a retry delay, and is not retryable")
    fields = [("start.settings.speed", "must be between 0.5 and 2.0")]
    same(f"the fields of {reason}", [*problem.field_violations], fields)
    same(f"the quotas of {reason}", [*problem.quota_violations], [("caller", "1 session")])
    same(f"the metadata of {reason}", dict(problem.metadata), {"from": "fake"})


@scenario("errors/reasons-of-sessions")
async def reasons_of_sessions(case: Case) -> None:
    """Each reason that a gateway can give comes out of `session_ended` as an error of its kind, with all details."""
    gateway = await case.faked()
    gateway.refuse_all = True
    client = await case.connect(gateway.target)
    for reason, (code, kind) in REASONS.items():
        gateway.refuse = status(code, reason)
        _check_details(reason, await refused(client.synthesis(settings=VOICE), kind, code, reason))
    _check_details(reason, await refused(client.transcription(settings=ENGLISH), kind, code, reason))


@scenario("errors/reasons-of-calls")
async def reasons_of_calls(case: Case) -> None:
    """Each reason comes out of the trailers of a call with one answer, as well as of a stream of answers."""
    gateway = await case.faked()
    client = await case.connect(gateway.target)
    content = b64(bytes(100))
    for reason, (code, kind) in REASONS.items():
        gateway.refuse = status(code, reason)
        work = client.do("transcribe_once", content=content, settings=ENGLISH)
        _check_details(reason, await refused(work, kind, code, reason))
        work = client.do("synthesize_once", text="x", settings=VOICE)
        _check_details(reason, await refused(work, kind, code, reason))


@scenario("errors/lost-status")
async def lost_status(case: Case) -> None:
    """A gateway that ends the call while the client still writes: that of `session_ended` counts."""
    gateway = await case.faked()
    gateway.rude = True
    session = await (await case.connect(gateway.target)).synthesis(settings=VOICE)
    await session.do("say", text="This [break] is the end.", utterance_id="u1")
    for number in range(50):
        session.ask("say", text="One more.", utterance_id=f"more{number}")
    problem = expect(await session.over(), "UPSTREAM", "FAILED_PRECONDITION", "UPSTREAM_CREDENTIAL")
    check("key" in problem.message, problem.message)


@scenario("errors/refused-start")
async def refused_start(case: Case) -> None:
    """A session whose settings are wrong does not open; the error names the field."""
    client = await case.connect()
    error = await refused(
        client.synthesis(settings={"speed": 9.0}), "INVALID_REQUEST", "INVALID_ARGUMENT", "FIELD_INVALID"
    )
    same("the fields", [path for path, _ in error.field_violations], ["start.settings.speed"])
    same("retryable", error.retryable, False)


@scenario("errors/wrong-format")
async def wrong_format(case: Case) -> None:
    """A format that there is not in this direction is refused, by the client itself or by the gateway."""
    client = await case.connect()
    for encoding, rate_hz in (("OPUS", 24_000), ("LINEAR16", 12_345)):
        wrong = {"encoding": f"AUDIO_ENCODING_{encoding}", "sample_rate_hertz": rate_hz}
        error = await refused(
            client.synthesis(settings=VOICE, audio_format=wrong), ("INVALID_REQUEST", "ARGUMENT")
        )
        same("retryable", bool(error.retryable), False)
    wrong = {"encoding": "AUDIO_ENCODING_MP3", "sample_rate_hertz": 16_000}
    await refused(client.transcription(settings=ENGLISH, audio_format=wrong), ("INVALID_REQUEST", "ARGUMENT"))
    await refused(
        client.synthesis(settings=VOICE, client_session_id="not an id!"), ("INVALID_REQUEST", "ARGUMENT")
    )


@scenario("errors/quotas")
async def quotas(case: Case) -> None:
    """A caller with as many sessions as it may have is told so, and when to try again; anybody is at a full gateway."""
    gateway = await case.gateway("tokens")
    client = await case.connect(gateway.target, token=TOKENS["alice"])
    session = await client.synthesis(settings=VOICE)
    error = await refused(client.synthesis(settings=VOICE), "CAPACITY", "RESOURCE_EXHAUSTED", "CALLER_QUOTA")
    check(error.retryable and (error.retry_delay or 0) > 0, f"retry delay {error.retry_delay}")
    same("whose quota", [subject for subject, _ in error.quota_violations], ["caller"])
    other = await case.connect(gateway.target, token=TOKENS["bob"])
    await (await other.transcription(settings=ENGLISH)).finish()
    await session.finish()
    await session.do("close")
    full = await case.gateway("full")
    client = await case.connect(full.target)
    session = await client.synthesis(settings=VOICE)
    error = await refused(
        client.transcription(settings=ENGLISH), "CAPACITY", "RESOURCE_EXHAUSTED", "GATEWAY_CAPACITY"
    )
    same("whose quota", [subject for subject, _ in error.quota_violations], ["gateway"])
    await session.finish()


@scenario("errors/idle")
async def idle(case: Case) -> None:
    """A session that says nothing for too long is ended by the gateway, which the caller hears as what it is."""
    gateway = await case.gateway("hasty")
    session = await (await case.connect(gateway.target)).synthesis(settings=VOICE)
    same("the limit", seconds(session.started.limits.client_idle_timeout), 1)
    expect(await session.over(), "DEADLINE", "DEADLINE_EXCEEDED", "SESSION_IDLE")
    same("why", session.of("session_ended")[0].reason, v1.SessionEnded.REASON_CLIENT_IDLE)
    await refused(session.do("say", text="Too late."), ("SESSION_CLOSED", "DEADLINE"))


@scenario("errors/open-timeout")
async def open_timeout(case: Case) -> None:
    """A gateway that takes the call and says nothing: opening ends at its own time limit."""

    async def silent(call: Call) -> None:
        await call.read()
        await asyncio.Event().wait()

    gateway = await case.scripted(silent)
    client = await case.connect(gateway.target)
    error = await refused(client.synthesis(settings=VOICE, open_timeout=0.5), "DEADLINE")
    check(
        "0.5" in error.message or "500" in error.message, f"{error.message!r} does not say how long it took"
    )
    await refused(client.transcription(settings=ENGLISH, open_timeout=0.5), "DEADLINE")


@scenario("errors/call-timeout")
async def call_timeout(case: Case) -> None:
    """A call with one answer ends at its deadline."""
    gateway = await case.gateway(faults=["stt-http:hang"])
    client = await case.connect(gateway.target)
    work = client.do(
        "transcribe_once", content=b64(codecs.wav(speech("alpha"), RATE_HZ)), settings=ENGLISH, timeout=0.5
    )
    await refused(work, "DEADLINE", "DEADLINE_EXCEEDED")


@scenario("errors/too-large")
async def too_large(case: Case) -> None:
    """A recording beyond the limit of one request is refused as that, and not as something worth a retry."""
    client = await case.connect()
    work = client.do("transcribe_once", content=b64(bytes(33 * 2**20)), settings=ENGLISH)
    error = await refused(work, "INVALID_REQUEST")
    same("retryable", error.retryable, False)


@scenario("errors/utterance-fails")
async def utterance_fails(case: Case) -> None:
    """An utterance that the upstream refuses raises out of its handle; the session goes on."""
    session = await (await case.connect()).synthesis(settings={"voice_id": "nobody-at-all"})
    await session.do("say", text=HELLO, utterance_id="u1")
    await refused(session.wait("u1"), "INVALID_REQUEST", "INVALID_ARGUMENT", "UPSTREAM_REJECTED")
    failed = await session.event("utterance_failed")
    same("the reason in the event", problem_in(failed, "error").reason, "UPSTREAM_REJECTED")
    same("what was heard", seconds(failed.audio_sent_duration), 0)
    await session.update(settings=VOICE)
    await session.do("say", text=HELLO, utterance_id="u2")
    await session.completed("u2")
    await session.finish()
    same("what was heard", session.spoken(), HELLO)


# -- connecting -------------------------------------------------------------------------------------------------


@scenario("connect/no-gateway")
async def no_gateway(case: Case) -> None:
    """Where nothing listens, opening a session and calling fail soon and say where they tried."""
    client = await case.connect("127.0.0.1:1")
    for work in (
        client.synthesis(settings=VOICE),
        client.transcription(settings=ENGLISH),
        client.do("list_voices"),
        client.do("synthesize_once", text=HELLO, settings=VOICE),
    ):
        error = await refused(work, "GATEWAY_UNAVAILABLE", "UNAVAILABLE")
        check("127.0.0.1:1" in error.message, f"the target is not in {error.message!r}")
        check(error.retryable, "it is not said to be worth a retry")


async def _fails_to_connect(case: Case, *targets: str, **arguments: Any) -> Problem:
    """The error of `connect`, or of the first session where that does not look at what it is given."""
    try:
        client = await case.connect(*targets, **arguments)
        await client.synthesis(settings=VOICE)
    except Failed as failed:
        return failed.problem
    check(False, f"{targets} was taken for a target")
    raise AssertionError


@scenario("connect/wrong-targets")
async def wrong_targets(case: Case) -> None:
    """A target without a port, with a scheme, with a port that is none, or empty, is refused with what to write."""
    for target in ("127.0.0.1", "http://127.0.0.1:50051", "127.0.0.1:port", "127.0.0.1:70000", ""):
        error = expect(await _fails_to_connect(case, target), "ARGUMENT")
        check(len(error.message) > 15, f"this helps nobody: {error.message!r}")


@scenario("connect/several-targets")
async def several_targets(case: Case) -> None:
    """A session opens on the first target that takes it."""
    gateway = await case.gateway()
    client = await case.connect("127.0.0.1:1", gateway.target)
    session = await client.synthesis(settings=VOICE)
    await session.do("say", text=HELLO, utterance_id="u1")
    await session.finish()
    same("what was heard", session.spoken(), HELLO)


@scenario("connect/token")
async def token(case: Case) -> None:
    """A token lets in; none and a wrong one do not, for sessions as for calls."""
    gateway = await case.gateway("tokens")
    for wrong in (None, "token-of-nobody"):
        client = await case.connect(gateway.target, token=wrong)
        for work in (
            client.synthesis(settings=VOICE),
            client.transcription(settings=ENGLISH),
            client.do("list_voices"),
        ):
            await refused(work, "ACCESS_DENIED", "UNAUTHENTICATED", "CALLER_UNAUTHENTICATED")
    client = await case.connect(gateway.target, token=TOKENS["alice"])
    await client.do("list_voices")
    await (await client.synthesis(settings=VOICE)).finish()


@scenario("connect/token-with-line-break")
async def token_with_line_break(case: Case) -> None:
    """A token that no header can carry is refused, and not repeated in the message."""
    gateway = await case.gateway("tokens")
    error = expect(await _fails_to_connect(case, gateway.target, token="secret\nx-more: yes"), "ARGUMENT")
    check("secret" not in error.message, "the message holds the token")


@scenario("connect/what-goes-along")
async def what_goes_along(case: Case) -> None:
    """Metadata and the token go with each call, no stream has a deadline, and inputs are numbered from 1."""

    async def serve(call: Call) -> None:
        same("the number of the start", (await call.read()).input_sequence, 1)
        await call.started()
        while (await call.read()).WhichOneof("input") != "end_session":
            pass
        await call.ended()

    gateway = await case.scripted(serve)
    client = await case.connect(gateway.target, token="the-token", metadata={"x-tenant": "seven"})
    for session in (await client.synthesis(settings=VOICE), await client.transcription(settings=ENGLISH)):
        for command in ({"do": "flush"}, {"do": "end_utterance"}) if session.name == "s1" else ():
            await session.do(command["do"])
        await session.finish()
    same("calls", len(gateway.calls), 2)
    for call in gateway.calls:
        same("the token", call.metadata.get("authorization"), "Bearer the-token")
        same("the metadata", call.metadata.get("x-tenant"), "seven")
        check(not call.has_deadline, "the stream has a deadline")


def _certificates(case: Case) -> dict[str, str]:
    """PEM texts by name."""
    made = case.world.certificates
    if made is None:
        raise NotApplicable("there is no openssl")
    names = ("ca.pem", "client.pem", "client.key")
    return {name: made.read(name).decode() for name in names}


@scenario("connect/tls")
async def tls(case: Case) -> None:
    """Encrypted, with an authority of one's own."""
    pem = _certificates(case)
    gateway = await case.gateway("tls")
    client = await case.connect(f"localhost:{gateway.port}", tls={"root_certificates": pem["ca.pem"]})
    session = await client.synthesis(settings=VOICE)
    await session.do("say", text=HELLO, utterance_id="u1")
    await session.finish()
    same("what was heard", session.spoken(), HELLO)


@scenario("connect/mutual-tls")
async def mutual_tls(case: Case) -> None:
    """With a certificate of the client's own; without it, nobody is let in, and the error says what is missing."""
    pem = _certificates(case)
    gateway = await case.gateway("mtls")
    own = {"private_key": pem["client.key"], "certificate_chain": pem["client.pem"]}
    client = await case.connect(f"localhost:{gateway.port}", tls={"root_certificates": pem["ca.pem"], **own})
    session = await client.synthesis(settings=VOICE)
    await session.do("say", text=HELLO, utterance_id="u1")
    await session.finish()
    same("what was heard", session.spoken(), HELLO)
    client = await case.connect(f"localhost:{gateway.port}", tls={"root_certificates": pem["ca.pem"]})
    error = await refused(client.synthesis(settings=VOICE, open_timeout=15), "GATEWAY_UNAVAILABLE")
    check(re.search(r"certificate|TLS", error.message, re.IGNORECASE), error.message)


@scenario("connect/untrusted")
async def untrusted(case: Case) -> None:
    """A gateway whose authority nobody knows is not trusted, and the error says why."""
    _certificates(case)
    gateway = await case.gateway("tls")
    client = await case.connect(f"localhost:{gateway.port}", tls={})
    error = await refused(client.synthesis(settings=VOICE, open_timeout=15), "GATEWAY_UNAVAILABLE")
    check(re.search(r"certificate|authority|trust", error.message, re.IGNORECASE), error.message)


@scenario("connect/tls-against-plain-text")
async def tls_against_plain(case: Case) -> None:
    """Encrypted against a gateway that is not: a clear error, and soon."""
    client = await case.connect((await case.gateway()).target, tls={})
    error = await refused(client.synthesis(settings=VOICE, open_timeout=15), "GATEWAY_UNAVAILABLE")
    check(re.search(r"TLS|encrypt", error.message, re.IGNORECASE), error.message)


@scenario("connect/plain-text-against-tls")
async def plain_against_tls(case: Case) -> None:
    """In clear text against a gateway that is encrypted: a clear error, and soon."""
    _certificates(case)
    client = await case.connect((await case.gateway("tls")).target)
    error = await refused(client.synthesis(settings=VOICE, open_timeout=15), "GATEWAY_UNAVAILABLE")
    check(re.search(r"TLS|encrypt", error.message, re.IGNORECASE), error.message)


@scenario("connect/newer-gateway")
async def newer_gateway(case: Case) -> None:
    """Events, fields and values of enums that only a newer gateway has are passed over."""
    # Field 99, a string, in a known message; and field 98 in the place of an event.
    field_99, event_98 = b"\x9a\x06\x03new", b"\x92\x06\x05later"

    async def serve(call: Call) -> None:
        await call.read()
        await call.send(more=event_98)
        await call.started(sequence=2, more=field_99)
        text = (await call.read()).text
        await call.send(more=event_98)
        chunk = v1.AudioChunk(audio=b"\x01\x00\x02\x00", utterance_id=text.utterance_id)
        chunk.MergeFromString(field_99)
        await call.send(audio=chunk)
        warning = v1.Warning(
            reason="SOMETHING_NEW", message="nobody knows it", utterance_id=text.utterance_id
        )
        await call.send(warning=warning)
        connection = v1.ConnectionEvent()
        connection.MergeFromString(b"\x08\x63\x10\x63")  # state 99, reason 99
        await call.send(connection=connection)
        await call.send(utterance_completed=v1.UtteranceCompleted(utterance_id=text.utterance_id))
        while (await call.read()).WhichOneof("input") != "end_session":
            pass
        await call.ended()

    gateway = await case.scripted(serve)
    session = await (await case.connect(gateway.target)).synthesis(settings=VOICE)
    same("the gateway's version", session.started.gateway_version, "9.9.9")
    await session.do("say", text=HELLO, utterance_id="u1")
    await session.completed("u1")
    await session.finish()
    same("the audio", session.audio("u1"), b"\x01\x00\x02\x00")
    same("the warning", session.of("warning")[0].reason, "SOMETHING_NEW")

    async def listen(call: Call) -> None:
        await call.read()
        await call.started(more=field_99)
        audio = await call.read()
        await call.send(more=event_98)
        transcript = v1.Transcript(segment_id="a", segment_revision=1, text="alpha", is_final=True)
        transcript.MergeFromString(field_99 + b"\x30\x63")  # final_trigger 99
        check(audio.WhichOneof("input") == "audio", "no audio came")
        await call.send(transcript=transcript)
        while (await call.read()).WhichOneof("input") != "end_session":
            pass
        await call.ended()

    gateway = await case.scripted(listen)
    session = await (await case.connect(gateway.target)).transcription(settings=ENGLISH)
    await session.do("send_audio", content=b64(bytes(320)))
    await session.event("transcript")
    await session.finish()
    same("what was heard", session.words(), ["alpha"])


# -- leaving ----------------------------------------------------------------------------------------------------


@scenario("leave/abort")
async def abort(case: Case) -> None:
    """Leaving a session after a failure of the caller ends it at once, at the gateway too."""
    gateway = await case.gateway(options=SLOWLY)
    client = await case.connect(gateway.target)
    speaking, listening = await client.synthesis(settings=VOICE), await client.transcription(settings=ENGLISH)
    await speaking.do("say", text=LONG, utterance_id="u1")
    await speaking.do("say_tokens", tokens=["and "] * 1000, interval=0.05, utterance_id="u2")
    await listening.do("send_audio", content=b64(speech(*SAID)))
    await speaking.heard()
    await speaking.do("abort")
    await listening.do("abort")
    await no_sessions(gateway)
    await refused(speaking.do("say", text="Too late."), ("SESSION_CLOSED", "ARGUMENT"))


@scenario("leave/drop")
async def drop(case: Case) -> None:
    """A session that is forgotten without a word leaves nothing behind once its client is closed."""
    gateway = await case.gateway(options=SLOWLY)
    client = await case.connect(gateway.target)
    speaking = await client.synthesis(settings=VOICE, resume_window=0)
    listening = await client.transcription(settings=ENGLISH, resume_window=0)
    await speaking.do("say", text=LONG, utterance_id="u1")
    await listening.do("send_audio", content=b64(speech(*SAID)))
    await speaking.heard()
    await speaking.do("drop")
    await listening.do("drop")
    await client.close()
    await no_sessions(gateway)


@scenario("leave/twice")
async def leave_twice(case: Case) -> None:
    """Closing again does nothing, or says that it is closed; it never hangs."""
    client = await case.connect()
    for session in (await client.synthesis(settings=VOICE), await client.transcription(settings=ENGLISH)):
        await session.do("close")
        for command in ("close", "end", "discard", "abort"):
            try:
                await session.do(command)
            except Failed as failed:
                expect(failed.problem, ("SESSION_CLOSED", "ARGUMENT"))


@scenario("leave/close-client")
async def close_client(case: Case) -> None:
    """Closing a client ends its sessions; who waits for one of them hears of it."""
    gateway = await case.gateway(options=SLOWLY)
    client = await case.connect(gateway.target)
    session = await client.synthesis(settings=VOICE)
    await session.do("say", text=LONG, utterance_id="u1")
    waiting = session.ask("wait", utterance_id="u1")
    await session.heard()
    await client.close()
    try:
        await session.answer(waiting, "wait")
        check(False, "it was waited for in vain, and nobody said so")
    except Failed as failed:
        kinds = ("SESSION_CLOSED", "CONNECTION_LOST", "GATEWAY_UNAVAILABLE", "CANCELLED", "OTHER")
        expect(failed.problem, kinds)
    await session.over()


# -- back-pressure and length -----------------------------------------------------------------------------------


@scenario("load/slow-reader", within_s=120, is_long=True)
async def slow_reader(case: Case) -> None:
    """While nobody reads, audio waits in the gateway, not in the client; when somebody does, all of it is there."""
    gateway = await case.gateway(options=waves_local.Options())
    client = await case.connect(gateway.target)
    session = await client.synthesis(settings=VOICE, events=False)
    text = ("Nobody listens to this, and yet it has to be there. " * 60).strip()
    await session.do("say", text=text, utterance_id="u1")
    delivered = [0, -1, -2]

    async def settled() -> bool:
        request = v1.GetSessionRequest(session_id=session.id)
        delivered.insert(0, (await gateway.sessions.GetSession(request)).session.usage.audio_bytes)
        return delivered[0] > 0 and len({*delivered[:8]}) == 1

    await eventually(settled, "the gateway sends no more to who does not read", every_s=0.1)
    all_bytes = len(text) * 0.06 * 48_000
    check(
        delivered[0] < 600_000,
        f"{delivered[0]} bytes of {all_bytes:.0f} went to a client that nobody reads",
    )
    await session.do("events", on=True)
    await session.finish()
    same("what was heard", session.spoken("u1"), text)


@scenario("load/slow-reader-of-transcripts")
async def slow_reader_of_transcripts(case: Case) -> None:
    """A caller that sends a whole recording before it reads gets every word."""
    session = await (await case.connect()).transcription(settings=ENGLISH, events=False)
    for part in parts(speech(*SAID * 5), 60_000):
        await session.do("send_audio", content=b64(part))
    await session.do("end")
    await session.do("events", on=True)
    same("the end", await session.over(), None)
    same("what was heard", session.words(), SAID * 5)


@scenario("load/many-sessions")
async def many_sessions(case: Case) -> None:
    """Thirty sessions of one client at once, of both kinds: each hears its own."""
    client = await case.connect()

    async def speaks(number: int) -> None:
        session = await client.synthesis(settings=VOICE)
        text = f"I am number {number}. {STORY[number % 4]}"
        await session.do("say_tokens", tokens=tokens_of(f"I am number {number}"), utterance_id="u0")
        await session.do("say", text=text, utterance_id="u1")
        await session.finish()
        same(f"what {number} heard", said(session, 2), [f"I am number {number}", text])

    async def listens(number: int) -> None:
        session = await client.transcription(settings=ENGLISH)
        words = [SAID[number % 12], SAID[number * 5 % 12], SAID[number * 7 % 12]]
        await session.do("send_audio", content=b64(speech(*words)), piece=0.2)
        await session.finish()
        same(f"what {number} heard", session.words(), words)

    await asyncio.gather(*(speaks(n) if n % 2 else listens(n) for n in range(30)))


@scenario("load/ten-minutes-of-speech", within_s=240, is_long=True)
async def ten_minutes_of_speech(case: Case) -> None:
    """Ten minutes of speech in one session, faster than it is spoken: every letter once."""
    gateway = await case.gateway(options=waves_local.Options(chunk_s=0.25))
    session = await (await case.connect(gateway.target)).synthesis(
        settings=VOICE, audio_format={"encoding": "AUDIO_ENCODING_MULAW", "sample_rate_hertz": 8000}
    )
    texts = [
        f"This is sentence {n} of a speech that does not end before ten minutes have gone."
        for n in range(130)
    ]
    for number, text in enumerate(texts):
        await session.do("say", text=text, utterance_id=f"u{number}")
    await session.do("end")
    same("the end", await session.over(within_s=200), None)
    length_s = len(session.audio()) / 8000
    check(length_s > 600, f"it was {length_s:.0f} s")
    heard = [waves_local.spoken(codecs.mulaw_decode(session.audio(f"u{n}"))) for n in range(len(texts))]
    same("what was heard", heard, texts)


@scenario("load/ten-minutes-of-listening", within_s=240, is_long=True)
async def ten_minutes_of_listening(case: Case) -> None:
    """Ten minutes of audio in one session, faster than it is spoken: every word once."""
    session = await (await case.connect()).transcription(
        settings={**ENGLISH, "interim_results": False},
        audio_format={"encoding": "AUDIO_ENCODING_MULAW", "sample_rate_hertz": 8000},
    )
    words = SAID * 4
    piece = codecs.mulaw_encode(speech(*words, rate_hz=8000, tail_s=1.2))
    count = int(600 * 8000 / len(piece)) + 1
    for _ in range(count):
        await session.do("send_audio", content=b64(piece), piece=0.5)
    await session.do("end")
    same("the end", await session.over(within_s=200), None)
    same("words", len(session.words()), len(words) * count)
    same("what was heard", session.words(), words * count)


# -- lost connections -------------------------------------------------------------------------------------------


@scenario("resume/while-speaking")
async def resume_while_speaking(case: Case) -> None:
    """The connection is cut several times while audio comes: every letter is heard once, and it is told."""
    gateway = await case.gateway()
    proxy = await case.proxy(gateway)
    session = await (await case.connect(proxy.target)).synthesis(settings=VOICE)
    proxy.arm(cuts("down", 30_000, 90_000, 60_000))
    await say_all(session, STORY)
    await session.finish()
    same("what was heard", said(session, len(STORY)), [*STORY])
    same("cuts", proxy.cuts["down"], 3)
    resumed = session.of("session_resumed")
    check(resumed and len(resumed) <= 3, f"it was told {len(resumed)} times that the session was resumed")
    same("the session", {r.session_id for r in resumed}, {session.started.session_id})
    check(all(r.attempts >= 1 and r.outage >= 0 for r in resumed), f"{resumed}")


@scenario("resume/while-sending-text")
async def resume_while_sending_text(case: Case) -> None:
    """The connection is cut while tokens go out: each is sent once."""
    gateway = await case.gateway()
    proxy = await case.proxy(gateway)
    session = await (await case.connect(proxy.target)).synthesis(settings=TIMED)
    proxy.arm(cuts("up", 300, 700, 500))
    await session.do("say_tokens", tokens=tokens_of(" ".join(STORY)), interval=0.01, utterance_id="u0")
    await session.completed("u0")
    await session.finish()
    same("what was heard", said(session, 1), [" ".join(STORY)])
    same("cuts", proxy.cuts["up"], 3)
    check(session.of("session_resumed"), "nobody told that the session was resumed")


@scenario("resume/while-listening")
async def resume_while_listening(case: Case) -> None:
    """The connection is cut in both directions while audio goes out: every word is heard once, in its place."""
    gateway = await case.gateway()
    proxy = await case.proxy(gateway)
    session = await (await case.connect(proxy.target)).transcription(
        settings={**ENGLISH, "word_timings": True}
    )
    content = speech(*SAID * 2)
    proxy.arm(cuts("up", 40_000, 90_000, 70_000))
    await session.do("send_audio", content=b64(content), pace=8, piece=0.05)
    await session.finish()
    same("what was heard", session.words(), SAID * 2)
    same("cuts", proxy.cuts["up"], 3)
    words = [seconds(w.start_offset) for t in session.finals() for w in t.words]
    same("their places", words, sorted(words))
    session = await (await case.connect(proxy.target)).transcription(settings=ENGLISH)
    before = proxy.cuts["down"]
    proxy.arm(cuts("down", 2_000, 3_000))
    await session.do("send_audio", content=b64(content), pace=8, piece=0.05)
    await session.finish()
    same("what was heard again", session.words(), SAID * 2)
    check(proxy.cuts["down"] > before, "nothing was cut")


@scenario("resume/many-cuts", within_s=120)
async def many_cuts(case: Case) -> None:
    """Wherever the connection is cut, in a dozen places and in both directions, each word is spoken and heard once."""
    gateway = await case.gateway()
    chance = random.Random(7)

    def anywhere(ups: int, up: int, downs: int, down: int) -> Iterator[tuple[Literal["up", "down"], int]]:
        for _ in range(ups):
            yield "up", chance.randint(450, up)
        for _ in range(downs):
            yield "down", chance.randint(500, down)
        yield from cuts("up")

    proxy = await case.proxy(gateway)
    session = await (await case.connect(proxy.target)).synthesis(settings=TIMED)
    proxy.arm(anywhere(1, 600, 10, 30_000))
    for number, text in enumerate(STORY):
        await session.do("say_tokens", tokens=tokens_of(text), interval=0.003, utterance_id=f"u{number}")
    await session.finish()
    same("what was heard", said(session, len(STORY)), [*STORY])
    same(
        "the order of the ends",
        [u.utterance_id for u in session.of("utterance_completed")],
        ["u0", "u1", "u2", "u3"],
    )
    check(sum(proxy.cuts.values()) >= 8, f"{proxy.cuts} cuts: this tests little")

    proxy = await case.proxy(gateway)
    session = await (await case.connect(proxy.target)).transcription(settings=ENGLISH)
    proxy.arm(anywhere(8, 30_000, 3, 1_000))
    await session.do("send_audio", content=b64(speech(*SAID * 2)), pace=10, piece=0.05)
    final = message_of((await session.do("finalize"))["transcript"], v1.Transcript)
    check(final.is_final, "finalize was answered by what is not final")
    await session.finish()
    same("what was heard", session.words(), SAID * 2)
    check(sum(proxy.cuts.values()) >= 8, f"{proxy.cuts} cuts: this tests little")


@scenario("resume/meanwhile")
async def resume_meanwhile(case: Case) -> None:
    """What is said while there is no connection is taken, and spoken when there is one again."""
    gateway = await case.gateway()
    proxy = await case.proxy(gateway)
    session = await (await case.connect(proxy.target)).synthesis(settings=VOICE)
    await session.do("say", text=STORY[0], utterance_id="u0")
    await session.completed("u0")
    proxy.refusing = True
    proxy.cut()
    await session.do("say", text=STORY[1], utterance_id="u1")
    await session.do("say", text=STORY[2], utterance_id="u2")
    same("resumed so far", session.of("session_resumed"), [])
    proxy.refusing = False
    await session.completed("u2")
    await session.finish()
    same("what was heard", said(session, 3), [*STORY[:3]])
    same("resumed", len(session.of("session_resumed")), 1)


@scenario("resume/what-proxies-make-of-it")
async def resume_after_rst_stream(case: Case) -> None:
    """Behind some proxies a lost call ends with INTERNAL, CANCELLED or UNKNOWN: it is resumed all the same."""
    losses = [
        ("INTERNAL", "Received RST_STREAM with error code 2"),
        ("CANCELLED", "RST_STREAM closed stream. HTTP/2 error code: CANCEL"),
        ("UNKNOWN", "Stream removed"),
        ("UNAVAILABLE", "Socket closed"),
    ]

    def chunk(index: int) -> v1.AudioChunk:
        return v1.AudioChunk(audio=bytes([index, 0]), utterance_id="u1", chunk_index=index)

    async def first(call: Call) -> None:
        check((await call.read()).start.resume_window.seconds > 0, "no resume window was asked for")
        await call.started(window_s=30)
        check((await call.read()).WhichOneof("input") == "text", "no text came")
        await call.send(audio=chunk(0))
        await call.lose(*losses[0])

    def again(number: int) -> Any:
        async def resume(call: Call) -> None:
            start = (await call.read()).start
            same("the session to be resumed", start.resume_session_id, SESSION_ID)
            same("the last that was received", start.last_received_sequence, number + 1)
            await call.started(sequence=number + 1, window_s=30, resumed=True, input_sequence_acknowledged=2)
            call._sequence = number + 1
            await call.send(audio=chunk(number))
            if number < len(losses):
                await call.lose(*losses[number])
                return
            await call.send(utterance_completed=v1.UtteranceCompleted(utterance_id="u1"))
            while (await call.read()).WhichOneof("input") != "end_session":
                pass
            await call.ended()

        return resume

    gateway = await case.scripted(first, *(again(n) for n in range(1, len(losses) + 1)))
    session = await (await case.connect(gateway.target)).synthesis(settings=VOICE)
    await session.do("say", text=HELLO, utterance_id="u1")
    await session.completed("u1")
    await session.finish()
    same("the audio", session.audio("u1"), bytes([0, 0, 1, 0, 2, 0, 3, 0, 4, 0]))
    same("resumed", len(session.of("session_resumed")), len(losses))


@scenario("resume/switched-off")
async def resume_off(case: Case) -> None:
    """With a window of 0 nothing is made again: the loss is an error that says what is lost."""
    gateway = await case.gateway(options=SLOWLY)
    proxy = await case.proxy(gateway)
    session = await (await case.connect(proxy.target)).synthesis(settings=VOICE, resume_window=0)
    await session.do("say", text=LONG, utterance_id="u1")
    await session.heard()
    proxy.cut()
    error = expect(await session.over(), "CONNECTION_LOST", "UNAVAILABLE")
    check("u1" in error.message, f"it does not say that u1 is lost: {error.message!r}")
    same("resumed", session.of("session_resumed"), [])
    await refused(session.wait("u1"), "CONNECTION_LOST")
    await no_sessions(gateway)


@scenario("resume/too-late")
async def resume_too_late(case: Case) -> None:
    """Where the gateway stays away for longer than the window, it is given up, and everybody who waits hears of it."""
    gateway = await case.gateway(options=SLOWLY)
    proxy = await case.proxy(gateway)
    session = await (await case.connect(proxy.target)).synthesis(settings=VOICE, resume_window=2)
    await session.do("say", text=LONG, utterance_id="u1")
    await session.heard()
    proxy.refusing = True
    proxy.cut()
    await refused(session.wait("u1"), "CONNECTION_LOST", "UNAVAILABLE")
    expect(await session.over(), "CONNECTION_LOST", "UNAVAILABLE")
    await no_sessions(gateway)


@scenario("resume/another-gateway-there")
async def resume_elsewhere(case: Case) -> None:
    """Behind the same address there is another gateway now, which has no such session: the error says so, and what is
    lost."""
    gateway, other = await case.gateway(), await case.gateway()
    proxy = await case.proxy(gateway)
    client = await case.connect(proxy.target)
    session = await client.synthesis(settings=VOICE)
    await session.do("send_text", text="This is not finished ", utterance_id="u1")
    proxy.to_port = other.port
    proxy.cut()
    error = expect(await session.over(), "CONNECTION_LOST", "UNAVAILABLE", "SESSION_NOT_FOUND")
    check("u1" in error.message, f"it does not say that u1 is lost: {error.message!r}")
    again = await client.synthesis(settings=VOICE)
    await again.do("say", text=HELLO, utterance_id="u1")
    await again.finish()
    same("what was heard", again.spoken(), HELLO)


@scenario("resume/closed-meanwhile")
async def closed_meanwhile(case: Case) -> None:
    """A session that was ended from outside while nobody was connected is not taken up: it was closed, or is gone."""
    gateway = await case.gateway()
    proxy = await case.proxy(gateway)
    session = await (await case.connect(proxy.target)).transcription(settings=ENGLISH)
    await session.do("send_audio", content=b64(speech(*SAID[:3])))
    await session.event("transcript")
    proxy.refusing = True
    proxy.cut()
    await gateway.sessions.CloseSession(v1.CloseSessionRequest(session_id=session.id, discard=True))
    proxy.refusing = False
    problem = expect(await session.over(), ("CONFLICT", "CONNECTION_LOST"))
    check(problem.reason in ("SESSION_CLOSED", "SESSION_NOT_FOUND"), f"the reason is {problem.reason}")


@scenario("resume/gap")
async def resume_gap(case: Case) -> None:
    """A gateway that no longer holds what was missed: the session is lost, with that as the reason."""

    async def first(call: Call) -> None:
        await call.read()
        await call.started(window_s=30)
        await call.read()
        await call.lose("UNAVAILABLE", "Socket closed")

    async def second(call: Call) -> None:
        await call.read()
        ended = v1.SessionEnded(
            reason=v1.SessionEnded.REASON_FAILURE,
            status=fake_gateway.status(grpc.StatusCode.OUT_OF_RANGE, "RESUME_GAP", "it is no longer held"),
        )
        await call.send(session_ended=ended)
        await call.lose("OUT_OF_RANGE", "it is no longer held")

    gateway = await case.scripted(first, second)
    session = await (await case.connect(gateway.target)).synthesis(settings=VOICE)
    await session.do("say", text=HELLO, utterance_id="u1")
    expect(await session.over(), "CONNECTION_LOST", "UNAVAILABLE", "RESUME_GAP")
    same("calls", len(gateway.calls), 2)


@scenario("resume/taken-over")
async def taken_over(case: Case) -> None:
    """Another call takes the session over: the caller hears that, and does not take it back."""
    gateway = await case.gateway(options=SLOWLY)
    session = await (await case.connect(gateway.target)).synthesis(settings=VOICE)
    await session.do("say", text=STORY[0], utterance_id="u1")
    await session.heard()
    call = gateway.synthesis.SynthesizeStream()
    start = v1.StartSynthesis(resume_session_id=session.id, last_received_sequence=1)
    await call.write(v1.SynthesizeStreamRequest(start=start))
    check((await call.read()).session_started.resumed, "the judge could not take it over")
    expect(await session.over(), "CONFLICT", "ABORTED", "SESSION_TAKEN_OVER")
    same("why", session.of("session_ended")[0].reason, v1.SessionEnded.REASON_TAKEN_OVER)
    same("resumed", session.of("session_resumed"), [])
    await call.write(v1.SynthesizeStreamRequest(end_session=v1.EndSession()))
    await call.done_writing()
    while await call.read() is not grpc.aio.EOF:
        pass


@scenario("resume/whatever-is-under-way")
async def resume_everything(case: Case) -> None:
    """A change of settings, a cancel, a `finalize` and the end, all said while there is no connection, happen once."""
    gateway = await case.gateway(options=SLOWLY)
    proxy = await case.proxy(gateway)
    client = await case.connect(proxy.target)
    speaking, listening = await client.synthesis(settings=VOICE), await client.transcription(settings=ENGLISH)
    await speaking.do("say", text=LONG, utterance_id="u0")
    await listening.do("send_audio", content=b64(speech(*SAID[:3])))
    await speaking.heard()
    proxy.refusing = True
    proxy.cut()
    cancelling = speaking.ask("cancel", utterance_id="u0")
    await speaking.answer(cancelling, "cancel")
    changing = speaking.ask(
        "update_settings", settings={"speed": 2.0}, update_id="meanwhile", expected_revision=1
    )
    finalizing = listening.ask("finalize")
    await speaking.do("say", text=STORY[1], utterance_id="u1")
    await speaking.do("end")
    proxy.refusing = False
    ack = message_of((await speaking.answer(changing, "update_settings"))["settings_ack"], v1.SettingsAck)
    same("the change", (ack.state, ack.settings_revision), (ack.STATE_APPLIED, 2))
    final = message_of((await listening.answer(finalizing, "finalize"))["transcript"], v1.Transcript)
    same("the final", words_in(final.text), SAID[:3])
    await speaking.cancelled("u0")
    same("the end", await speaking.over(), None)
    await listening.finish()
    same("what was heard", speaking.spoken("u1"), STORY[1])
    same("heard", listening.words(), SAID[:3])
    same("acks", len([a for a in speaking.of("settings_ack") if a.state == a.STATE_APPLIED]), 1)
    started = {u.utterance_id: u.settings_revision for u in speaking.of("utterance_started")}
    same("the revision of what came behind the change", started.get("u1"), 2)


@scenario("resume/while-opening")
async def resume_while_opening(case: Case) -> None:
    """A session whose call is lost before the upstream has accepted it is taken up, not opened again."""
    gateway = await case.gateway(faults=["*:refuse=429,retry-after=1,times=1"])
    proxy = await case.proxy(gateway)
    client = await case.connect(proxy.target)
    opening = asyncio.ensure_future(client.transcription(settings=ENGLISH))
    seen = 0

    async def connecting() -> bool:
        nonlocal seen
        seen += bool(await live(gateway))
        return seen > 2  # by then the client has been told its name, too

    await eventually(connecting, "the session is being opened")
    proxy.cut()
    session = await opening
    await session.do("send_audio", content=b64(speech(*SAID[:3])))
    await session.finish()
    same("what was heard", session.words(), SAID[:3])
    same("connections of the client", proxy.accepted, 2)


@scenario("resume/dead-connection", within_s=150, is_long=True)
async def dead_connection(case: Case) -> None:
    """A connection that is dead without a word is noticed in a silence, too, within half a minute (keepalive)."""
    gateway = await case.gateway()
    proxy = await case.proxy(gateway)
    client = await case.connect(proxy.target)
    session = await client.synthesis(settings=VOICE)
    await session.do("say", text=STORY[0], utterance_id="u0")
    await session.completed("u0")
    proxy.freeze()
    await session.event("session_resumed", within_s=50)
    await session.do("say", text=STORY[1], utterance_id="u1")
    await session.finish()
    same("what was heard", said(session, 2), [*STORY[:2]])


@scenario("resume/leave-meanwhile")
async def leave_meanwhile(case: Case) -> None:
    """Who leaves while the connection is lost does not hang."""
    gateway = await case.gateway(options=SLOWLY)
    proxy = await case.proxy(gateway)
    session = await (await case.connect(proxy.target)).synthesis(settings=VOICE)
    await session.do("say", text=LONG, utterance_id="u1")
    await session.heard()
    proxy.refusing = True
    proxy.cut()
    await session.do("abort")


# -- gateways that shut down ------------------------------------------------------------------------------------


async def _pair(case: Case) -> tuple[Gateway, Gateway, Client]:
    """Two gateways, of which the first speaks slowly, and a client that knows both."""
    old, new = await case.gateway(options=SLOWLY), await case.gateway()
    return old, new, await case.connect(old.target, new.target)


@scenario("move/while-speaking")
async def move_while_speaking(case: Case) -> None:
    """The gateway shuts down in mid-utterance: that one is finished there, the others are spoken by another gateway,
    each letter once, with the settings in force."""
    old, new, client = await _pair(case)
    session = await client.synthesis(settings=VOICE, labels={"team": "a"})
    await session.update(settings={"speed": 1.25})
    await say_all(session, STORY)
    await session.heard(0.5)
    old.terminate()
    moved = await session.event("session_moved")
    same("the target", moved.target, new.target)
    same("the session that it was", moved.previous_session_id, session.started.session_id)
    same("the settings", moved.session_started.settings.synthesis.speed, 1.25)
    (found,) = await live(new)
    same("the session at the other gateway", found.session_id, moved.session_started.session_id)
    same("its labels", dict(found.labels), {"team": "a"})
    await session.do("say", text="I am elsewhere.", utterance_id=f"u{len(STORY)}")
    await session.finish()
    same("what was heard", said(session, len(STORY) + 1), [*STORY, "I am elsewhere."])
    same("go_away", len(session.of("go_away")), 1)
    started = [u.utterance_id for u in session.of("utterance_started")]
    same("utterances that started", started, [f"u{n}" for n in range(len(STORY) + 1)])
    same("the exit code of the gateway", await old.process.ended(), 0)


@scenario("move/while-idle")
async def move_while_idle(case: Case) -> None:
    """A session that says nothing moves at once, and new sessions open where it went."""
    old, _new, client = await _pair(case)
    session = await client.synthesis(settings=VOICE)
    await session.do("say", text=STORY[0], utterance_id="u0")
    await session.completed("u0")
    old.terminate()
    await session.event("session_moved")
    same("the exit code of the gateway", await old.process.ended(), 0)
    await session.do("say", text=STORY[1], utterance_id="u1")
    other = await client.transcription(settings=ENGLISH)
    await other.do("send_audio", content=b64(speech(*SAID[:2])))
    await other.finish()
    await session.finish()
    same("what was heard", said(session, 2), [*STORY[:2]])
    same("what was heard by another", other.words(), SAID[:2])


@scenario("move/while-tokens-come")
async def move_while_tokens_come(case: Case) -> None:
    """Tokens of an utterance that is being heard go on to where it is; the next one is spoken elsewhere."""
    old, _new, client = await _pair(case)
    session = await client.synthesis(settings=TIMED)
    await session.do("say_tokens", tokens=tokens_of(" ".join(STORY)), interval=0.05, utterance_id="u0")
    await session.do("say", text="I am elsewhere.", utterance_id="u1")
    await session.heard(0.3)
    old.terminate()
    await session.event("go_away")
    await session.finish()
    same("what was heard", said(session, 2), [" ".join(STORY), "I am elsewhere."])
    same("moved", len(session.of("session_moved")), 1)


@scenario("move/while-listening")
async def move_while_listening(case: Case) -> None:
    """Audio behind the last final is sent again to another gateway: each word once, all offsets on one timeline."""
    old, new, client = await _pair(case)
    session = await client.transcription(
        settings={**ENGLISH, "word_timings": True, "full_transcript": True}, initial_audio_offset=50
    )
    content = b"".join(speech(*SAID[at : at + 3], tail_s=1.2) for at in range(0, 12, 3))
    half = len(content) // 4 * 2 + 4_000
    await session.do("send_audio", content=b64(content[:half]), pace=8, piece=0.1)
    await session.event("transcript", lambda t: t.is_final)
    old.terminate()
    moved = await session.event("session_moved")
    same("the target", moved.target, new.target)
    same("what is lost", moved.lost_audio, 0)
    await session.do("send_audio", content=b64(content[half:]), pace=8, piece=0.1)
    await session.do("finalize")
    await session.finish()
    same("what was heard", session.words(), SAID)
    words = [w for t in session.finals() for w in t.words]
    places = [seconds(w.start_offset) for w in words]
    same("their order", places, sorted(places))
    near("where the last one ends", seconds(words[-1].end_offset), 50 + len(content) / 32_000 - 1.2, 0.1)
    same("the full text", words_in([t for t in session.finals() if t.full_text][-1].full_text), SAID)
    same("the exit code of the gateway", await old.process.ended(), 0)


@scenario("move/same-address")
async def move_same_address(case: Case) -> None:
    """Behind the only address there is another process by now: the session moves to it, and so do new ones."""
    old, new = await case.gateway(), await case.gateway()
    proxy = await case.proxy(old)
    client = await case.connect(proxy.target)
    session = await client.synthesis(settings=VOICE)
    await session.do("say", text=STORY[0], utterance_id="u0")
    await session.completed("u0")
    proxy.to_port = new.port
    old.terminate()
    moved = await session.event("session_moved")
    same("the target", moved.target, proxy.target)
    await session.do("say", text=STORY[1], utterance_id="u1")
    other = await client.synthesis(settings=VOICE)
    await other.do("say", text=HELLO, utterance_id="u0")
    await other.finish()
    await session.finish()
    same("what was heard", said(session, 2), [*STORY[:2]])
    same("what was heard of another", other.spoken(), HELLO)
    same("the exit code of the gateway", await old.process.ended(), 0)


@scenario("move/not-finished-in-time")
async def not_finished_in_time(case: Case) -> None:
    """What a gateway cannot finish in its time fails, and says so; what was said behind it is spoken elsewhere."""
    old = await case.gateway("hurried", options=waves_local.Options(chunk_interval_s=0.1))
    new = await case.gateway()
    session = await (await case.connect(old.target, new.target)).synthesis(settings=VOICE)
    await session.do("say", text=LONG, utterance_id="u0")
    await session.do("say", text=STORY[1], utterance_id="u1")
    await session.heard(0.2)
    old.terminate()
    error = await refused(session.wait("u0"), "GATEWAY_UNAVAILABLE", "UNAVAILABLE", "GATEWAY_DRAINING")
    check(error.retryable, "it is not said to be worth a retry")
    await session.completed("u1")
    await session.finish()
    same("what was heard behind it", session.spoken("u1"), STORY[1])
    failed = session.of("utterance_failed")[0]
    heard_s = len(session.audio("u0")) / 48_000
    near("how much of it was heard", seconds(failed.audio_sent_duration), heard_s, 0.5)


@scenario("move/lost-while-draining")
async def lost_while_draining(case: Case) -> None:
    """A gateway that vanishes while it drains: what was being heard fails, what was not heard is spoken elsewhere, and
    audio without a final is heard there."""
    old, new = await case.gateway(options=SLOWLY), await case.gateway()
    proxy = await case.proxy(old)
    client = await case.connect(proxy.target, new.target)
    speaking, listening = await client.synthesis(settings=VOICE), await client.transcription(settings=ENGLISH)
    content = speech(*SAID[:6])
    await listening.do("send_audio", content=b64(content[: len(content) // 4 * 2]))
    await speaking.do("say", text=LONG, utterance_id="u0")
    await speaking.do("say", text=STORY[1], utterance_id="u1")
    await speaking.heard(0.1)
    old.terminate()
    await speaking.event("go_away")
    await listening.event("go_away")
    proxy.refusing = True
    proxy.cut()
    await refused(speaking.wait("u0"), ("CONNECTION_LOST", "GATEWAY_UNAVAILABLE"), "UNAVAILABLE")
    await listening.do("send_audio", content=b64(content[len(content) // 4 * 2 :]))
    await speaking.finish()
    await listening.finish()
    same("what was heard behind it", speaking.spoken("u1"), STORY[1])
    same("heard", listening.words(), SAID[:6])


@scenario("move/ogg-stays")
async def ogg_stays(case: Case) -> None:
    """An Ogg stream cannot be cut: its session stays where it is, and is finished there."""
    old, new, client = await _pair(case)
    session = await client.transcription(
        settings=ENGLISH, audio_format={"encoding": "AUDIO_ENCODING_OGG_OPUS", "sample_rate_hertz": 48_000}
    )
    contents = parts(_ogg_opus(1.0), 2_000)
    for content in contents[: len(contents) // 2]:
        await session.do("send_audio", content=b64(content))
    old.terminate()
    await session.event("go_away")
    for content in contents[len(contents) // 2 :]:
        await session.do("send_audio", content=b64(content))
    await session.finish()
    same("moved", session.of("session_moved"), [])
    check(session.words() and session.words()[0].startswith("noise"), f"heard {session.words()}")
    same("sessions at the other gateway", await live(new), [])


@scenario("move/switched-off")
async def move_off(case: Case) -> None:
    """With moving switched off a session stays, is told that its gateway goes away, and finishes there."""
    old, new, client = await _pair(case)
    session = await client.synthesis(settings=VOICE, move=False)
    await say_all(session, STORY[:3])
    await session.heard(0.3)
    old.terminate()
    away = await session.event("go_away")
    check(seconds(away.time_left) > 0, "no time is left")
    await session.finish()
    same("what was heard", said(session, 3), [*STORY[:3]])
    same("moved", session.of("session_moved"), [])
    same("sessions at the other gateway", await live(new), [])


@scenario("move/gateway-killed")
async def gateway_killed(case: Case) -> None:
    """A gateway that is killed takes its sessions along: the loss is told with what is lost, and a new session opens at
    the other gateway."""
    old, _new, client = await _pair(case)
    session = await client.synthesis(settings=VOICE, resume_window=2)
    await session.do("say", text=LONG, utterance_id="u1")
    await session.heard()
    old.kill()
    error = expect(await session.over(), "CONNECTION_LOST", "UNAVAILABLE")
    check("u1" in error.message, f"it does not say that u1 is lost: {error.message!r}")
    again = await client.synthesis(settings=VOICE)
    await again.do("say", text=HELLO, utterance_id="u1")
    await again.finish()
    same("what was heard", again.spoken(), HELLO)


# -- upstreams that fail ----------------------------------------------------------------------------------------


@scenario("upstream/mended-while-speaking")
async def mended_while_speaking(case: Case) -> None:
    """The upstream drops the connection in mid-speech: the gateway goes on, and tells of it."""
    gateway = await case.gateway(faults=["tts:drop,after-frames=5,times=1"])
    session = await (await case.connect(gateway.target)).synthesis(settings=TIMED)
    await session.do("say", text=HELLO, utterance_id="u1")
    done = await session.completed("u1")
    await session.finish()
    check(done.metrics.reconnect_count >= 1, "nothing was mended")
    lost = [e for e in session.of("connection") if e.state != e.STATE_CONNECTED]
    check(lost, "nobody told that the connection was lost")
    check(any(c.discontinuity for c in session.of("audio")), "no chunk says that it does not join")
    check(session.spoken("u1").endswith("text."), f"heard {session.spoken('u1')!r}")


@scenario("upstream/mended-while-listening")
async def mended_while_listening(case: Case) -> None:
    """The upstream drops the connection while it listens: the audio is sent again, and no word is lost."""
    gateway = await case.gateway()
    gateway.upstream.faults.add("stt:drop,after-bytes=60000,times=1")
    session = await (await case.connect(gateway.target)).transcription(settings=ENGLISH)
    await session.do("send_audio", content=b64(speech(*SAID)), piece=0.1)
    await session.finish()
    same("what was heard", session.words(), SAID)
    again = [e for e in session.of("connection") if seconds(e.replayed_audio_duration) > 0]
    check(again, "nobody told that audio was sent again")


@scenario("upstream/refuses")
async def upstream_refuses(case: Case) -> None:
    """What the upstream answers the gateway comes out as what it is: its key, a model that is gone, a full account, a
    failure."""
    gateway = await case.gateway()
    client = await case.connect(gateway.target)
    for refusal, kind, code, reason in (
        ("401", "UPSTREAM", "FAILED_PRECONDITION", "UPSTREAM_CREDENTIAL"),
        ("403", "UPSTREAM", "FAILED_PRECONDITION", "UPSTREAM_CREDENTIAL"),
        ("410", "UPSTREAM", "FAILED_PRECONDITION", "UPSTREAM_GONE"),
        ("429,retry-after=60", "CAPACITY", "RESOURCE_EXHAUSTED", "UPSTREAM_CAPACITY"),
        ("400", "INVALID_REQUEST", "INVALID_ARGUMENT", "UPSTREAM_REJECTED"),
        ("503", "UPSTREAM", "UNAVAILABLE", "UPSTREAM_UNAVAILABLE"),
    ):
        gateway.upstream.faults.clear()
        gateway.upstream.faults.add(f"stt:refuse={refusal}")
        error = await refused(client.transcription(settings=ENGLISH), kind, code, reason)
        if reason == "UPSTREAM_CAPACITY":
            near("the retry delay", error.retry_delay or 0, 60, 1)
            same("whose quota", [s for s, _ in error.quota_violations], ["upstream-account"])
        same(f"retryable {reason}", error.retryable, reason in ("UPSTREAM_CAPACITY", "UPSTREAM_UNAVAILABLE"))


@scenario("upstream/fails-an-utterance")
async def upstream_fails_an_utterance(case: Case) -> None:
    """An error of the upstream fails the utterance, and the next one is spoken."""
    gateway = await case.gateway(faults=["tts:error=this voice has a cold,after-frames=3,times=1"])
    session = await (await case.connect(gateway.target)).synthesis(settings=VOICE)
    await session.do("say", text=STORY[0], utterance_id="u0")
    error = await refused(session.wait("u0"), "INVALID_REQUEST", "INVALID_ARGUMENT", "UPSTREAM_REJECTED")
    check("cold" in error.message, f"the upstream's words are not in {error.message!r}")
    gateway.upstream.faults.clear()
    await session.do("say", text=STORY[1], utterance_id="u1")
    await session.completed("u1")
    await session.finish()
    same("what was heard next", session.spoken("u1"), STORY[1])
    failed = session.of("utterance_failed")[0]
    check(seconds(failed.audio_sent_duration) > 0, "it is not said how much was heard")


@scenario("upstream/given-up")
async def upstream_given_up(case: Case) -> None:
    """An upstream that drops every connection: an utterance fails, a transcription ends, both as worth a retry."""
    gateway = await case.gateway()
    client = await case.connect(gateway.target)
    speaking, listening = await client.synthesis(settings=VOICE), await client.transcription(settings=ENGLISH)
    gateway.upstream.faults.add("*:drop")
    await speaking.do("say", text=HELLO, utterance_id="u1")
    error = await refused(speaking.wait("u1"), "UPSTREAM", "UNAVAILABLE", "UPSTREAM_UNAVAILABLE")
    check(error.retryable, "it is not said to be worth a retry")
    listening.ask("send_audio", content=b64(speech(*SAID)))
    expect(await listening.over(), "UPSTREAM", "UNAVAILABLE", "UPSTREAM_UNAVAILABLE")
    gateway.upstream.faults.clear()
    await speaking.do("say", text=HELLO, utterance_id="u2")
    await speaking.completed("u2")
    await speaking.finish()
    same("what was heard", speaking.spoken("u2"), HELLO)
