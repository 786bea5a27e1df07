"""The protocol core of one text-to-speech connection, as conversations without a loop.

Each test says what the session wants spoken, what the upstream answers and how time passes; no clock runs.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wavegate_server import errors
from wavegate_server.waves import ending, tts
from wavegate_server.waves.ending import (
    HAND_OVER_S,
    LAST_WORD_S,
    NOTHING_TO_SAY_S,
    OWED_S,
    PACE_REQUESTS,
    Custom,
    Habits,
    Pace,
    PerRequest,
)
from wavegate_server.waves.tts import (
    KEEPALIVE_ID,
    LATE_CANCEL_S,
    MAX_GARBAGE,
    AudioReceived,
    Completion,
    ConnectionFailed,
    LateAudioReceived,
    Mode,
    Request,
    RequestCompleted,
    RequestFailed,
    RequestReturned,
    TtsEvent,
    TtsProtocol,
    WordReceived,
)

RATE_HZ = 24_000
VOICE: Mapping[str, Any] = {"voice_id": "magnus", "model": "lightning_v3.1"}
ONE_SENTENCE = "Hello there, how are you"
SENTENCES = "Hello there. How are you? I am well."

BOTH_MODES = pytest.mark.parametrize("mode", list(Mode), ids=lambda m: m.value)


def pcm(seconds: float) -> bytes:
    return bytes(2 * round(seconds * RATE_HZ))


class Conversation:
    """A protocol core, a clock that moves when told to, and an upstream that echoes ids or does not."""

    def __init__(
        self, mode: Mode = Mode.CONTINUATIONS, *, habits: Habits | None = None, echoes: bool = True
    ) -> None:
        self.habits = habits if habits is not None else Habits()
        self.core = TtsProtocol(mode, RATE_HZ, "session-1", self.habits)
        self.echoes = echoes
        self.now = 100.0
        self.heard: list[TtsEvent] = []
        """Every event so far."""

    def speak(self, request: Request, text: str, *, last: bool = False) -> list[dict[str, Any]]:
        return [json.loads(m) for m in self.core.speak(request, text, last=last, now=self.now)]

    def cancel(self, request: Request) -> list[dict[str, Any]]:
        return [json.loads(m) for m in self.core.cancel(request, self.now)]

    def frame(
        self, status: str, request: Request | str, upstream_id: str = "", **rest: Any
    ) -> list[TtsEvent]:
        """The upstream sends a frame of a request, named by its object or its id."""
        name = request if isinstance(request, str) else request.request_id
        frame = {"session_id": "up-s", "request_id": upstream_id or f"up-{name}", "status": status, **rest}
        if self.echoes:
            frame["external_request_id"] = name
        return self.raw(json.dumps(frame))

    def raw(self, message: str | bytes) -> list[TtsEvent]:
        events = self.core.receive(message, self.now)
        self.heard += events
        return events

    def audio(self, request: Request | str, seconds: float = 0.5, upstream_id: str = "") -> list[TtsEvent]:
        data = {"audio": base64.b64encode(pcm(seconds)).decode()}
        return self.frame("chunk", request, upstream_id, data=data)

    def word(
        self, request: Request | str, word: str, start: float, end: float, upstream_id: str = ""
    ) -> list[TtsEvent]:
        data = {"id": 0, "word": word, "start": start, "end": end}
        return self.frame("word_timestamp", request, upstream_id, data=data)

    def complete(self, request: Request | str, upstream_id: str = "", **extra: Any) -> list[TtsEvent]:
        return self.frame("complete", request, upstream_id, **extra)

    def close(self, code: int | None = 1000, reason: str = "") -> list[TtsEvent]:
        events = self.core.closed(code, reason, self.now)
        self.heard += events
        return events

    def wait(self, seconds: float) -> list[TtsEvent]:
        """Let time pass, and have the deadlines in it kept."""
        until = self.now + seconds
        events: list[TtsEvent] = []
        while (due := self.core.deadline()) is not None and due <= until:
            self.now = max(self.now, due)
            new = self.core.expire(self.now)
            assert new or self.core.deadline() != due, "a deadline that nothing comes of is asked for again"
            events += new
        self.now = until
        self.heard += events
        return events


def request(number: int = 1, **settings: Any) -> Request:
    return request_with(settings, number)


def request_with(settings: Mapping[str, Any], number: int = 1) -> Request:
    return Request(f"r-{number}", {**VOICE, **settings})


# -- what is written ---------------------------------------------------------------------------------------------

COMMON = {
    "voice_id": "magnus",
    "model": "lightning_v3.1",
    "sample_rate": RATE_HZ,
    "output_format": "pcm",
    "session_id": "session-1",
    "request_id": "r-1",
}


def test_continuations_a_whole_utterance_is_one_message() -> None:
    assert Conversation().speak(request(), "Hello.", last=True) == [
        {**COMMON, "context_id": "r-1", "text": "Hello.", "continue": False}
    ]


def test_continuations_fragments_share_a_context_which_an_empty_text_closes() -> None:
    talk, r = Conversation(), request()
    assert talk.speak(r, "Hel") == [{**COMMON, "context_id": "r-1", "text": "Hel", "continue": True}]
    assert talk.speak(r, "lo.") == [{**COMMON, "context_id": "r-1", "text": "lo.", "continue": True}]
    assert talk.speak(r, "", last=True) == [{**COMMON, "context_id": "r-1", "text": "", "continue": False}]


def test_flush_a_whole_utterance_is_one_message() -> None:
    assert Conversation(Mode.FLUSH).speak(request(), "Hello.", last=True) == [
        {**COMMON, "text": "Hello.", "continue": False, "flush": True}
    ]


def test_flush_fragments_are_closed_by_an_empty_text_that_flushes() -> None:
    talk, r = Conversation(Mode.FLUSH), request()
    assert talk.speak(r, "Hel") == [{**COMMON, "text": "Hel", "continue": True, "flush": False}]
    assert talk.speak(r, "lo.") == [{**COMMON, "text": "lo.", "continue": True, "flush": False}]
    assert talk.speak(r, "", last=True) == [{**COMMON, "text": "", "continue": False, "flush": True}]


@BOTH_MODES
def test_every_message_carries_every_setting(mode: Mode) -> None:
    settings = {
        "language_code": "hi-IN",
        "number_language_code": "en",
        "speed": 1.25,
        "word_timings": True,
        "math_notation": False,
        "max_buffer_delay": 0.25,
        "completion_backoff": 0.1,
        "max_chunk_bytes": 4096,
        "content_filter": "reject",
        "extra": {"seed": 7, "style": {"calm": True}},
    }
    talk, r = Conversation(mode), request_with(settings)
    buffer = "max_buffer_delay_ms" if mode is Mode.CONTINUATIONS else "max_buffer_flush_ms"
    expected = {
        **COMMON,
        "language": "hi",
        "number_pronunciation_language": "en",
        "speed": 1.25,
        "word_timestamps": True,
        "math_notation": False,
        buffer: 250,
        "complete_backoff_ms": 100,
        "content_filter": {"enabled": True, "action": "reject"},
        "seed": 7,
        "style": {"calm": True},
    }
    own = {"text", "continue", "flush", "context_id"}
    for text, last in (("One", False), (" two.", False), ("", True)):
        (message,) = talk.speak(r, text, last=last)
        assert {k: v for k, v in message.items() if k not in own} == expected


def test_cancel_names_the_context_and_has_no_text() -> None:
    talk, r = Conversation(), request(speed=1.5)
    talk.speak(r, "Hello there.")
    assert talk.cancel(r) == [{**COMMON, "speed": 1.5, "context_id": "r-1", "cancel_request": True}]
    assert talk.core.reusable
    assert talk.cancel(r) == [], "a request is cancelled once"


def test_flush_has_no_word_for_cancel_so_the_connection_is_of_no_more_use() -> None:
    talk, r = Conversation(Mode.FLUSH), request()
    talk.speak(r, "Hello there.", last=True)
    assert talk.cancel(r) == []
    assert not talk.core.reusable


@BOTH_MODES
def test_what_was_never_sent_is_cancelled_without_a_word(mode: Mode) -> None:
    talk, r = Conversation(mode), request()
    assert talk.cancel(r) == []
    assert talk.core.reusable


@BOTH_MODES
def test_the_keepalive_is_a_blank_with_an_id_of_its_own(mode: Mode) -> None:
    talk = Conversation(mode)
    (message,) = [json.loads(m) for m in talk.core.keepalive(VOICE)]
    assert message == {**COMMON, "request_id": KEEPALIVE_ID, "text": " "}


@BOTH_MODES
def test_no_keepalive_falls_into_an_open_request(mode: Mode) -> None:
    talk, r = Conversation(mode), request()
    talk.speak(r, "Hello.")
    assert talk.core.keepalive(VOICE) == []
    talk.speak(r, "", last=True)
    assert talk.core.keepalive(VOICE) == []
    talk.audio(r)
    talk.complete(r)
    talk.wait(OWED_S)
    assert talk.core.keepalive(VOICE) != []


@pytest.mark.parametrize("echoes", [True, False])
def test_an_answered_keepalive_ends_nothing(echoes: bool) -> None:
    """A `complete` for the blank, which comes when the next request is already on the wire."""
    talk, r = Conversation(echoes=echoes), request()
    talk.core.keepalive(VOICE)
    talk.speak(r, ONE_SENTENCE, last=True)
    assert talk.complete(KEEPALIVE_ID) == []
    assert talk.audio(r) != []
    assert talk.complete(r) == [RequestCompleted(r, Completion.UPSTREAM)]


def test_one_request_at_a_time() -> None:
    talk = Conversation()
    talk.speak(request(1), "One.")
    with pytest.raises(AssertionError, match="one request at a time"):
        talk.speak(request(2), "Two.")


def test_a_closed_request_takes_no_more_text() -> None:
    talk, r = Conversation(), request()
    talk.speak(r, "One.", last=True)
    with pytest.raises(AssertionError, match="no more text"):
        talk.speak(r, "Two.")


@pytest.mark.parametrize(
    ("model", "old_paths", "path"),
    [
        ("lightning_v3.1", False, "/waves/v1/tts/live"),
        ("lightning_v3.1_pro", False, "/waves/v1/tts/live"),
        ("lightning_v3.1", True, "/waves/v1/lightning-v3.1/get_speech/stream"),
        ("lightning-v2", False, "/waves/v1/lightning-v2/get_speech/stream"),
        ("lightning-v2", True, "/waves/v1/lightning-v2/get_speech/stream"),
    ],
)
def test_the_path_follows_the_model(model: str, old_paths: bool, path: str) -> None:
    assert tts.path_of({"model": model}, old_paths=old_paths) == path


def test_completion_and_buffer_times_always_have_a_value() -> None:
    """The upstream's own 4 s of `complete_backoff_ms` would hold back the end of every utterance."""
    assert tts.defaults(Mode.CONTINUATIONS) == {"max_buffer_delay": 3.0, "completion_backoff": 0.0}
    assert tts.defaults(Mode.FLUSH) == {"max_buffer_delay": 0.0, "completion_backoff": 0.0}


# -- how a request ends ------------------------------------------------------------------------------------------

Step = tuple[str, Any]


@dataclass(frozen=True)
class Way:
    """A way of ending: the text, what the upstream does after its closing fragment, and what comes of it.

    `after_s` is how long after the upstream's last step the end is known.
    """

    name: str
    text: str
    steps: tuple[Step, ...]
    end: Completion | type[errors.WavegateError]
    after_s: float = 0.0
    reusable: bool = True
    unconfirmed: bool = False
    sends_complete: bool | None = None
    """What was known of the upstream before."""
    learns: bool | None = None
    """What is known of it afterwards."""

    def __str__(self) -> str:
        return self.name


AUDIO: Step = ("audio", 1.2)
COMPLETE: Step = ("complete", {})
UP, QUIET = Completion.UPSTREAM, Completion.QUIET_TIMEOUT
STALL = errors.UpstreamStalled

WAYS = [
    Way("complete of one release", ONE_SENTENCE, (AUDIO, COMPLETE), UP, learns=True),
    Way(
        "complete with the fields of old documents",
        ONE_SENTENCE,
        (AUDIO, ("complete", {"message": "Speech generated", "done": True})),
        UP,
        learns=True,
    ),
    Way(
        "one complete of a text that can have several releases",
        SENTENCES,
        (AUDIO, COMPLETE),
        UP,
        OWED_S,
        unconfirmed=True,
        learns=True,
    ),
    Way(
        "a complete of each release, with pauses",
        SENTENCES,
        (
            AUDIO,
            COMPLETE,
            ("pause", OWED_S - 0.01),
            AUDIO,
            COMPLETE,
            ("pause", OWED_S - 0.01),
            AUDIO,
            COMPLETE,
        ),
        UP,
        learns=True,
    ),
    Way(
        "a complete that is said again",
        SENTENCES,
        (AUDIO, COMPLETE, COMPLETE, COMPLETE),
        UP,
        OWED_S,
        unconfirmed=True,
        learns=True,
    ),
    Way("no complete, from an upstream not known yet", ONE_SENTENCE, (AUDIO,), STALL, OWED_S, reusable=False),
    Way(
        "no complete, from an upstream that sends none",
        ONE_SENTENCE,
        (AUDIO,),
        QUIET,
        OWED_S,
        unconfirmed=True,
        sends_complete=False,
        learns=False,
    ),
    Way(
        "a pause in the audio of an upstream that sends no complete",
        SENTENCES,
        (AUDIO, ("pause", OWED_S - 0.01), AUDIO),
        QUIET,
        OWED_S,
        unconfirmed=True,
        sends_complete=False,
        learns=False,
    ),
    Way(
        "no complete, from an upstream that sent them before",
        ONE_SENTENCE,
        (AUDIO,),
        STALL,
        OWED_S,
        reusable=False,
        sends_complete=True,
        learns=True,
    ),
    Way(
        "the socket closes after complete",
        SENTENCES,
        (AUDIO, COMPLETE, ("close", 1000)),
        UP,
        reusable=False,
        learns=True,
    ),
    Way(
        "the socket goes away after complete",
        SENTENCES,
        (AUDIO, COMPLETE, ("close", 1001)),
        UP,
        reusable=False,
        learns=True,
    ),
    Way(
        "the socket is lost after complete",
        SENTENCES,
        (AUDIO, COMPLETE, ("close", None)),
        errors.UpstreamUnavailable,
        reusable=False,
        learns=True,
    ),
    Way(
        "the socket closes without complete",
        ONE_SENTENCE,
        (AUDIO, ("close", 1000)),
        errors.UpstreamUnavailable,
        reusable=False,
    ),
    Way(
        "the socket is closed as full",
        ONE_SENTENCE,
        (("close", 1008),),
        errors.UpstreamCapacity,
        reusable=False,
    ),
    Way("nothing comes", ONE_SENTENCE, (), STALL, OWED_S, reusable=False),
    Way("nothing to say, and nothing comes", "🙂 …", (), QUIET, NOTHING_TO_SAY_S),
    Way("nothing to say, and a complete", "🙂", (COMPLETE,), UP),
    Way("nothing to say, and it is said", "🙂", (AUDIO,), QUIET, OWED_S, unconfirmed=True),
    Way(
        "complete without audio, for a text",
        ONE_SENTENCE,
        (COMPLETE,),
        STALL,
        OWED_S,
        reusable=False,
    ),
    Way(
        "complete first, audio late",
        ONE_SENTENCE,
        (COMPLETE, ("pause", OWED_S - 0.01), AUDIO, COMPLETE),
        UP,
        learns=True,
    ),
    Way(
        "an error frame",
        ONE_SENTENCE,
        (AUDIO, ("error", {"message": "Invalid voice_id: nobody"})),
        errors.UpstreamRejected,
    ),
    Way(
        "an error frame of a failing upstream",
        ONE_SENTENCE,
        (AUDIO, ("error", {"error": {"message": "Internal server error", "code": "500"}})),
        errors.UpstreamUnavailable,
        reusable=False,
    ),
]


@pytest.mark.parametrize("echoes", [True, False], ids=["ids echoed", "ids not echoed"])
@BOTH_MODES
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_ways_to_end(way: Way, mode: Mode, echoes: bool) -> None:
    talk = Conversation(mode, habits=Habits(sends_complete=way.sends_complete), echoes=echoes)
    r = request()
    talk.speak(r, way.text, last=True)
    ends: list[TtsEvent] = []
    release = 1
    for at, (step, value) in enumerate(way.steps):
        assert not ends, "it ended before the upstream was done"
        match step:
            case "audio":
                release += at > 0 and "complete" in [s for s, _ in way.steps[:at]]
                ends += [e for e in talk.audio(r, value, f"up-{release}") if not isinstance(e, AudioReceived)]
            case "complete":
                ends += talk.complete(r, f"up-{release}", **value)
            case "error":
                ends += talk.frame("error", r, **value)
            case "close":
                ends += talk.close(value)
            case "pause":
                ends += talk.wait(value)
    if way.after_s:
        assert not ends
        assert not talk.wait(way.after_s - 0.001), "too early"
        ends += talk.wait(0.002)
    (end,) = ends
    assert isinstance(end, RequestCompleted | RequestFailed)
    assert end.request is r
    assert r.ended
    if isinstance(way.end, Completion):
        assert end == RequestCompleted(r, way.end, way.unconfirmed)
    else:
        assert isinstance(end, RequestFailed)
        assert type(end.error) is way.end
    # Without echoed ids, a frame after a mere quiet could not be told from the next request's.
    blind = way.end is QUIET and not echoes and any(s[0] == "audio" for s in way.steps)
    assert talk.core.reusable == (way.reusable and not blind)
    assert talk.habits.sends_complete == way.learns
    assert talk.wait(60) == [], "an end comes once"


@BOTH_MODES
def test_the_next_request_follows_on_the_same_connection(mode: Mode) -> None:
    talk = Conversation(mode)
    for number in range(1, 4):
        r = request(number)
        talk.speak(r, ONE_SENTENCE, last=True)
        assert [type(e) for e in talk.audio(r)] == [AudioReceived]
        assert talk.complete(r) == [RequestCompleted(r, Completion.UPSTREAM)]


def test_two_stalls_in_a_row_make_the_habit_doubtful() -> None:
    """An upstream that no longer sends `complete` fails two requests, not every one from then on."""
    habits = Habits(sends_complete=True)
    now = 0.0
    for number in range(2):
        talk, r = Conversation(habits=habits), request(number)
        talk.now = now
        talk.speak(r, ONE_SENTENCE, last=True)
        talk.audio(r, 1.0)
        (failed,) = talk.wait(OWED_S)
        assert isinstance(failed, RequestFailed)
        now = talk.now
    talk, r = Conversation(habits=habits), request(2)
    talk.now = now
    talk.speak(r, ONE_SENTENCE, last=True)
    talk.audio(r, 1.0)
    (doubted,) = talk.wait(OWED_S)
    assert isinstance(doubted, RequestFailed)
    assert doubted.is_doubtful, "spoken once more, it may prove to be an end"


def test_of_many_requests_that_stall_at_once_none_is_taken_for_whole() -> None:
    """Half of each was heard, and the silence of one says nothing about what the others owe."""
    habits = Habits(sends_complete=True)
    many = [(Conversation(habits=habits), request(number)) for number in range(5)]
    for number, (talk, r) in enumerate(many):
        talk.now = number * 0.5
        talk.speak(r, ONE_SENTENCE, last=True)
        talk.audio(r)
    for talk, _ in many:
        (failed,) = talk.wait(OWED_S)
        assert isinstance(failed, RequestFailed)
        assert isinstance(failed.error, errors.UpstreamStalled)
    # Said again, they are heard to their end, and nothing is doubted any more.
    talk, r = Conversation(habits=habits), request(9)
    talk.now = 20.0
    talk.speak(r, ONE_SENTENCE, last=True)
    talk.audio(r)
    talk.complete(r)
    assert habits.sends_complete
    assert habits.doubted_at is None


def test_a_complete_before_the_closing_fragment_counts_if_nothing_was_said_since() -> None:
    talk, r = Conversation(), request()
    talk.speak(r, "Hello there.")
    talk.audio(r)
    assert talk.complete(r) == []
    talk.wait(30)
    talk.speak(r, "", last=True)
    assert talk.wait(0.0) == [RequestCompleted(r, Completion.UPSTREAM)]


def test_a_complete_before_more_text_is_no_end_of_that_text() -> None:
    talk, r = Conversation(), request()
    talk.speak(r, "Hello there.")
    talk.audio(r)
    talk.complete(r)
    talk.speak(r, " And more.", last=True)
    (failed,) = talk.wait(OWED_S)
    assert isinstance(failed, RequestFailed)
    assert isinstance(failed.error, errors.UpstreamStalled)


def test_a_complete_of_one_release_is_no_end_of_what_was_buffered_behind_it() -> None:
    talk, r = Conversation(), request()
    talk.speak(r, "Hello. And then something that was long in the making")
    talk.audio(r, 0.3, "task-1")
    talk.complete(r, "task-1")
    talk.speak(r, "", last=True)
    assert talk.wait(OWED_S - 0.01) == []
    assert talk.audio(r, 2.0, "task-2") != []
    assert talk.complete(r, "task-2") == [RequestCompleted(r, Completion.UPSTREAM)]


def test_a_complete_that_overtakes_text_is_no_end_of_it() -> None:
    """The first sentence is complete just when the second one was sent: that was not meant by it."""
    talk, r = Conversation(), request()
    talk.speak(r, "Hello there. ")
    talk.audio(r, 1.0, "task-1")
    talk.speak(r, "Bye.", last=True)
    talk.complete(r, "task-1")
    assert talk.wait(OWED_S - 0.01) == []
    talk.audio(r, 0.4, "task-2")
    assert talk.complete(r, "task-2") == [RequestCompleted(r, Completion.UPSTREAM)]


def paced(seconds: float = 0.06, **known: Any) -> Habits:
    """Habits of a gateway that knows the pace of `VOICE`, in seconds a letter, and what else is `known`."""
    habits = Habits(**known)
    for speed in (1, 2):
        habits.paces[f"{VOICE['model']}/{VOICE['voice_id']}/{speed}"] = Pace(
            PACE_REQUESTS, *(seconds / speed for _ in ("mean", "fastest", "slowest"))
        )
    return habits


@pytest.mark.parametrize("sends_complete", [None, False])
def test_a_quiet_after_far_too_little_audio_is_a_stall(sends_complete: bool | None) -> None:
    talk, r = Conversation(habits=paced(sends_complete=sends_complete)), request()
    talk.speak(r, "Something that is much longer than what is heard of it.", last=True)
    talk.audio(r, 0.2)
    assert talk.wait(OWED_S - 0.001) == []
    (failed,) = talk.wait(0.002)
    assert isinstance(failed, RequestFailed)
    assert not failed.is_doubtful


def test_a_faster_voice_is_no_stall() -> None:
    talk = Conversation(habits=paced(sends_complete=False))
    r = request(speed=2.0)
    talk.speak(r, "a" * 100, last=True)
    talk.audio(r, 2.9)
    assert talk.wait(OWED_S) == [RequestCompleted(r, Completion.QUIET_TIMEOUT, True)]


def test_a_text_that_falls_silent_at_the_same_place_twice_has_ended_there() -> None:
    """Of an upstream that is not known, silence can be a stall: said again over another connection, it shows."""
    habits = Habits()
    talk, r = Conversation(habits=habits), request()
    talk.speak(r, ONE_SENTENCE, last=True)
    talk.audio(r, 1.0)
    (failed,) = talk.wait(OWED_S)
    assert isinstance(failed, RequestFailed)
    assert failed.is_doubtful
    again = request(2)
    again.doubted_audio_s = again.least_audio_s = 1.0
    talk = Conversation(habits=habits)
    talk.speak(again, ONE_SENTENCE, last=True)
    talk.audio(again, 1.0)
    assert talk.wait(LAST_WORD_S) == [RequestCompleted(again, Completion.QUIET_TIMEOUT, True)]
    assert habits.sends_complete is False


def test_a_text_that_goes_on_the_second_time_was_cut_the_first_time() -> None:
    talk, again = Conversation(), request()
    again.doubted_audio_s = again.least_audio_s = 1.0
    talk.speak(again, ONE_SENTENCE, last=True)
    talk.audio(again, 1.2)
    (failed,) = talk.wait(OWED_S)
    assert isinstance(failed, RequestFailed)
    assert failed.is_doubtful, "and may have been cut again"


def test_less_than_was_heard_before_is_no_end() -> None:
    talk, again = Conversation(habits=Habits(sends_complete=False)), request()
    again.least_audio_s = 1.5
    talk.speak(again, ONE_SENTENCE, last=True)
    talk.audio(again, 1.2)
    (failed,) = talk.wait(OWED_S)
    assert isinstance(failed, RequestFailed)
    assert not failed.is_doubtful


def test_the_last_words_time_tells_the_end() -> None:
    talk, r = Conversation(), request(word_timings=True)
    talk.speak(r, SENTENCES, last=True)
    for at, word in enumerate(SENTENCES.split()):
        talk.word(r, word, at * 0.3, at * 0.3 + 0.3)
    talk.audio(r, 2.39)
    assert talk.wait(LAST_WORD_S - 0.001) == [], "not all of the last word is there"
    talk.audio(r, 0.01)
    assert talk.wait(LAST_WORD_S) == [RequestCompleted(r, Completion.QUIET_TIMEOUT)]


def test_a_complete_behind_the_last_word_is_the_end_at_once() -> None:
    talk, r = Conversation(), request(word_timings=True)
    talk.speak(r, SENTENCES, last=True)
    for at, word in enumerate(SENTENCES.split()):
        talk.word(r, word, at * 0.3, at * 0.3 + 0.3)
    talk.audio(r, 2.4)
    assert talk.complete(r) == [RequestCompleted(r, Completion.UPSTREAM)]


def test_words_that_are_left_are_owed() -> None:
    talk, r = Conversation(habits=Habits(sends_complete=False)), request(word_timings=True)
    talk.speak(r, SENTENCES, last=True)
    for at, word in enumerate(SENTENCES.split()[:5]):
        talk.word(r, word, at * 0.3, at * 0.3 + 0.3)
    talk.audio(r, 1.5)
    (failed,) = talk.wait(OWED_S)
    assert isinstance(failed, RequestFailed)


@pytest.mark.parametrize("mode", list(Mode), ids=lambda m: m.value)
def test_a_complete_that_was_asked_to_come_late_is_waited_for(mode: Mode) -> None:
    talk, r = Conversation(mode, habits=Habits(sends_complete=True)), request(completion_backoff=8.0)
    talk.speak(r, ONE_SENTENCE, last=True)
    talk.audio(r, 1.0)
    assert talk.wait(8.0) == []
    assert talk.complete(r) == [RequestCompleted(r, Completion.UPSTREAM)]


def test_a_complete_that_was_seen_to_come_late_is_waited_for() -> None:
    habits = Habits()
    for number in range(2):
        talk, r = Conversation(habits=habits), request(number)
        talk.speak(r, ONE_SENTENCE, last=True)
        talk.audio(r, 1.0)
        assert talk.wait(4.9 + 4.0 * number) == []
        assert talk.complete(r) == [RequestCompleted(r, Completion.UPSTREAM)]


# -- what is learnt ----------------------------------------------------------------------------------------------


def said(
    habits: Habits, text: str, *releases: float, streamed: bool = False, completes: str = "release"
) -> float:
    """One request, in one message or two, spoken in releases of so many seconds; how late its end was known."""
    talk, r = Conversation(habits=habits), request()
    half = len(text) // 2 if streamed else 0
    if streamed:
        talk.speak(r, text[:half])
    talk.speak(r, text[half:], last=True)
    for number, seconds in enumerate(releases):
        talk.audio(r, seconds, f"task-{number}")
        if completes == "release" or number == len(releases) - 1:
            talk.complete(r, f"task-{number}")
    heard_at = talk.now
    while not r.ended:
        talk.wait(0.25)
    return talk.now - heard_at


def test_one_complete_for_a_whole_text_is_learnt_from_two() -> None:
    habits = Habits()
    late_s = [said(habits, SENTENCES, 2.0, completes="turn") for _ in range(4)]
    assert late_s == [OWED_S, OWED_S, 0, 0]
    assert said(habits, SENTENCES * 3, 6.0, completes="turn") == OWED_S, "nothing was seen of longer texts"


def test_what_is_learnt_of_whole_texts_is_not_believed_of_streamed_ones() -> None:
    habits = Habits()
    for _ in range(3):
        said(habits, SENTENCES, 2.0, completes="turn")
    assert said(habits, SENTENCES, 2.0, completes="turn", streamed=True) == OWED_S


def test_one_complete_for_a_streamed_text_is_learnt_from_two_that_surely_had_several_releases() -> None:
    habits = Habits()
    late_s = [said(habits, SENTENCES, 1.0, 1.0, completes="turn", streamed=True) for _ in range(4)]
    assert late_s == [OWED_S, OWED_S, 0, 0]


def test_and_from_five_that_may_have_had_one() -> None:
    habits = Habits()
    late_s = [said(habits, SENTENCES, 2.0, completes="turn", streamed=True) for _ in range(7)]
    assert late_s == [OWED_S] * 5 + [0, 0]


def test_a_complete_for_each_release_is_no_one_complete() -> None:
    habits = Habits()
    for _ in range(3):
        said(habits, SENTENCES, 0.7, 0.7, 0.7, streamed=True)
    assert habits.streamed.per_request is PerRequest.EACH
    talk, r = Conversation(habits=habits), request()
    talk.speak(r, SENTENCES[:20])
    talk.speak(r, SENTENCES[20:], last=True)
    talk.audio(r, 1.5, "task-1")
    talk.complete(r, "task-1")
    (failed,) = talk.wait(OWED_S)
    assert isinstance(failed, RequestFailed), "a release is missing, and the length shows it"


LAST_IS_LONG = "It rained. Then it stopped again."
LAST_IS_SHORT = "It rained, and then it stopped again. Yes."


def usual(pace_s: float | None = 0.1) -> tuple[Conversation, Request]:
    """A request to an upstream that was seen to send one `complete` for a text, with the pace of its voice."""
    habits = paced(pace_s) if pace_s else Habits()
    habits.whole = Custom(PerRequest.ONE, 2, 2, 100)
    return Conversation(habits=habits), request()


@pytest.mark.parametrize(
    ("text", "pace_s", "is_unconfirmed"),
    [(LAST_IS_LONG, 0.1, False), (LAST_IS_SHORT, 0.1, True), (LAST_IS_LONG, None, True)],
    ids=["more than without its end", "as well without its end", "no pace is known"],
)
def test_an_end_by_habit_is_confirmed_by_what_only_the_whole_text_takes(
    text: str, pace_s: float | None, is_unconfirmed: bool
) -> None:
    talk, r = usual(pace_s)
    talk.speak(r, text, last=True)
    talk.audio(r, len(text) * 0.1)
    assert talk.complete(r) == [RequestCompleted(r, Completion.UPSTREAM, is_unconfirmed)]


def test_an_upstream_that_sends_more_than_it_used_to_is_waited_for() -> None:
    talk, r = usual()
    talk.speak(r, LAST_IS_LONG, last=True)
    talk.audio(r, 1.0, "task-1")
    assert talk.complete(r, "task-1") == [], "so much is the first sentence"
    assert talk.core.may_follow(talk.now), "and it speaks in turn"
    assert talk.wait(OWED_S - 0.1) == []
    talk.audio(r, 2.3, "task-2")
    assert talk.complete(r, "task-2") == [RequestCompleted(r, Completion.UPSTREAM)]
    assert talk.habits.whole.per_request is PerRequest.EACH


def test_what_is_shorter_than_usual_and_followed_by_nothing_ends_unconfirmed_and_teaches_the_pace() -> None:
    talk, r = usual()
    talk.speak(r, LAST_IS_SHORT, last=True)
    talk.audio(r, 3.3)
    assert talk.complete(r) == []
    assert talk.wait(OWED_S) == [RequestCompleted(r, Completion.UPSTREAM, True)]
    assert talk.habits.paces[r.voice].fastest == pytest.approx(3.3 / len(LAST_IS_SHORT), abs=0.001)


def test_what_was_spoken_during_a_delay_is_not_known_by_its_length() -> None:
    talk, r = usual()
    talk.habits.streamed = Custom(PerRequest.ONE, 2, 2, 100)
    talk.speak(r, LAST_IS_LONG)
    talk.wait(1.0)
    talk.speak(r, " And then.", last=True)
    talk.audio(r, len(LAST_IS_LONG + " And then.") * 0.1)
    assert talk.complete(r) == [RequestCompleted(r, Completion.UPSTREAM, True)]


@pytest.mark.parametrize("streamed", [False, True])
def test_a_text_that_is_spoken_faster_than_others_ends_with_its_complete_all_the_same(streamed: bool) -> None:
    """Marks are pauses, so a text with many of them teaches nothing about one without."""
    habits = ending.habits_of_waves_local()
    slow = "Yes. It rained, I know. We sat in the car, and waited. Then it stopped, so we went out."
    for _ in range(4):
        assert said(habits, slow, 0.09 * len(slow), completes="turn", streamed=streamed) == 0
    fast = "The train leaves at nine thirty in the morning from platform number four"
    assert said(habits, fast, 0.04 * len(fast), completes="turn", streamed=streamed) == 0


@pytest.mark.parametrize("text", ["Well, that is one way to do it, and there are others, too.", "a" * 149])
def test_no_complete_outweighs_the_words_that_are_left(text: str) -> None:
    """An upstream may cut a text more finely than sentences; its word times tell."""
    talk, r = Conversation(), request(word_timings=True)
    words = text.split() if " " in text else ["a" * 149]
    talk.speak(r, text, last=True)
    talk.word(r, words[0], 0.0, 0.3)
    talk.audio(r, 0.3)
    ends = talk.complete(r)
    assert bool(ends) == (len(words) == 1)


def test_a_complete_said_again_in_the_next_release_is_none_of_it() -> None:
    """The upstream's ids do not tell its releases apart, so their number proves nothing."""
    talk, r = Conversation(), request()
    talk.speak(r, "Hello there, how are you. I am well.", last=True)
    talk.audio(r, 1.2, "context")
    talk.complete(r, "context")
    talk.wait(0.3)
    talk.audio(r, 0.3, "context")
    assert talk.complete(r, "context") == []
    assert talk.audio(r, 0.3, "context") != []


def test_text_that_comes_slowly_may_be_spoken_in_as_many_pieces() -> None:
    """Whatever delay the upstream was asked for."""
    talk, r = Conversation(), request()
    for number, piece in enumerate(("These ", "tokens ", "come ", "slowly.")):
        talk.speak(r, piece, last=number == 3)
        talk.wait(0.7)
    talk.audio(r, 0.6, "task-1")
    assert talk.complete(r, "task-1") == []


def test_a_complete_before_any_audio_teaches_nothing() -> None:
    talk, r = Conversation(), request()
    talk.speak(r, ONE_SENTENCE, last=True)
    talk.complete(r)
    assert talk.habits.sends_complete is None


def test_word_times_that_jump_back_are_those_of_another_release() -> None:
    talk, r = Conversation(habits=Habits(sends_complete=False)), request(word_timings=True)
    talk.speak(r, "One two. Three four.", last=True)
    for word, start in (("One", 0.0), ("two.", 0.5), ("Three", 0.0), ("four.", 0.5)):
        talk.word(r, word, start, start + 0.5, "context")
    talk.audio(r, 1.2, "context")
    assert talk.wait(LAST_WORD_S + 1.0) == [], "the last word ends at 2 s"
    talk.audio(r, 0.8, "context")
    assert talk.wait(LAST_WORD_S) == [RequestCompleted(r, Completion.QUIET_TIMEOUT)]


def test_late_audio_unlearns_what_led_to_the_end() -> None:
    habits = paced(sends_complete=False)
    habits.whole = Custom(PerRequest.ONE, 2, 2, 100)
    talk, r = Conversation(habits=habits), request()
    talk.speak(r, ONE_SENTENCE, last=True)
    talk.audio(r, 1.2)
    assert talk.wait(OWED_S) == [RequestCompleted(r, Completion.QUIET_TIMEOUT, True)]
    assert talk.audio(r, 0.5) == [LateAudioReceived(r, pytest.approx(0.5, abs=0.001))]
    assert habits.sends_complete is None
    assert habits.whole.per_request is None
    assert not [v for v in habits.paces if v.endswith("/1")]


# -- the peer is there --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answers", [True, False])
def test_silence_is_an_end_only_if_the_peer_is_there(answers: bool) -> None:
    talk, r = Conversation(habits=paced(sends_complete=False)), request()
    talk.core.alive_at = talk.now
    talk.speak(r, ONE_SENTENCE, last=True)
    talk.audio(r, 1.2)
    assert talk.wait(OWED_S) == []
    assert talk.core.wants_proof
    if answers:
        talk.core.answered(talk.now)
        assert talk.wait(0.0) == [RequestCompleted(r, Completion.QUIET_TIMEOUT, True)]
    else:
        (failed,) = talk.wait(OWED_S)
        assert isinstance(failed, RequestFailed)
        assert not failed.is_doubtful


def test_a_proof_is_wanted_once_for_each_silence() -> None:
    """A frame that comes between the question and its answer begins another silence: no second question until then."""
    talk, r = Conversation(habits=Habits()), request()
    talk.core.alive_at = talk.now
    talk.speak(r, SENTENCES, last=True)
    talk.audio(r, 1.0)
    talk.complete(r)
    assert talk.wait(OWED_S) == []
    assert talk.core.wants_proof
    asked_at = talk.now
    talk.wait(0.1)
    talk.complete(r)
    talk.core.answered(asked_at)
    assert not talk.core.wants_proof
    assert talk.wait(OWED_S - 0.1) == []
    assert not talk.core.wants_proof
    assert talk.wait(0.1) == []
    assert talk.core.wants_proof
    talk.core.answered(talk.now)
    assert talk.wait(0.0) == [RequestCompleted(r, Completion.UPSTREAM, True)]


# -- no hole between two -------------------------------------------------------------------------------------------


def handed_over(habits: Habits | None = None) -> tuple[Conversation, Request, Request]:
    """Two requests: the first may have been heard whole, and the second was sent behind it."""
    talk, old, new = Conversation(habits=habits), request(1), request(2)
    talk.speak(old, SENTENCES, last=True)
    talk.audio(old, 2.0)
    assert not talk.core.may_follow(talk.now)
    talk.complete(old)
    assert talk.core.may_follow(talk.now)
    talk.speak(new, ONE_SENTENCE, last=True)
    assert not talk.core.may_follow(talk.now), "one at a time"
    return talk, old, new


def test_the_next_request_is_sent_as_soon_as_the_one_before_may_be_whole() -> None:
    talk, old, new = handed_over()
    first, second = talk.audio(new, 1.0)
    assert first == RequestCompleted(old, Completion.NEXT_REQUEST, True)
    assert isinstance(second, AudioReceived)
    assert talk.complete(new) == [RequestCompleted(new, Completion.UPSTREAM)]


def test_audio_of_the_one_before_is_its_own_until_the_next_is_heard() -> None:
    talk, old, new = handed_over()
    talk.wait(3.0)
    (event,) = talk.audio(old, 0.5)
    assert isinstance(event, AudioReceived)
    assert event.request is old
    assert talk.complete(old) == []
    assert talk.audio(new, 1.0)[0] == RequestCompleted(old, Completion.NEXT_REQUEST, True)


def test_silence_while_the_next_request_is_owed_too_is_a_stall_of_both() -> None:
    talk, old, new = handed_over()
    returned, failed = talk.wait(OWED_S)
    assert returned == RequestReturned(new)
    assert isinstance(failed, RequestFailed)
    assert failed.request is old


@pytest.mark.parametrize("code", [None, 1011])
def test_a_lost_connection_returns_the_next_request(code: int | None) -> None:
    talk, old, new = handed_over()
    returned, failed = talk.close(code)
    assert returned == RequestReturned(new)
    assert isinstance(failed, RequestFailed)
    assert failed.request is old


def test_a_connection_that_closes_behind_a_complete_returns_the_next_request() -> None:
    talk, old, new = handed_over()
    assert talk.close(1000) == [RequestReturned(new), RequestCompleted(old, Completion.UPSTREAM)]


def test_a_request_that_is_refused_early_is_returned_and_judged_when_it_comes_alone() -> None:
    talk, old, new = handed_over()
    assert talk.frame("error", new, message="Another request is being spoken") == [RequestReturned(new)]
    assert talk.wait(OWED_S) == [RequestCompleted(old, Completion.UPSTREAM, True)]
    again = request(3)
    talk.speak(again, SENTENCES, last=True)
    talk.audio(again, 1.0)
    talk.complete(again)
    assert not talk.core.may_follow(talk.now), "this upstream takes one at a time"


def test_a_request_that_is_refused_alone_too_says_nothing_about_its_turn() -> None:
    talk, _, new = handed_over()
    talk.frame("error", new, message="Invalid voice_id: nobody")
    talk.wait(OWED_S)
    again = request(3)
    talk.speak(again, ONE_SENTENCE, last=True)
    (failed,) = talk.frame("error", again, message="Invalid voice_id: nobody")
    assert isinstance(failed, RequestFailed)
    assert talk.core.habits.speaks_in_turn(talk.now)


def test_an_upstream_that_drops_the_rest_for_the_next_request_is_found_out() -> None:
    habits = paced()
    habits.whole = Custom(PerRequest.EACH, 2, 2, 100)
    talk, old, new = Conversation(habits=habits), request(1), request(2)
    talk.speak(old, SENTENCES, last=True)
    talk.audio(old, 2.0)
    talk.complete(old)
    assert talk.core.may_follow(talk.now)
    talk.speak(new, ONE_SENTENCE, last=True)
    old.least_audio_s = 2.5  # more of it was heard before
    returned, failed = talk.audio(new, 1.0)
    assert returned == RequestReturned(new)
    assert isinstance(failed, RequestFailed)
    assert failed.request is old
    assert not habits.speaks_in_turn(talk.now)


def test_without_echoed_ids_the_next_request_waits() -> None:
    talk, old = Conversation(echoes=False), request(1)
    talk.speak(old, SENTENCES, last=True)
    talk.audio(old, 2.0)
    talk.complete(old)
    assert not talk.core.may_follow(talk.now)
    talk.wait(OWED_S)
    assert talk.core.may_follow(talk.now)


def test_behind_a_quiet_of_an_upstream_without_complete_the_next_request_is_sent_soon() -> None:
    talk, old = Conversation(habits=paced(sends_complete=False)), request(1)
    talk.speak(old, SENTENCES, last=True)
    talk.audio(old, 2.0)
    assert not talk.core.may_follow(talk.now + HAND_OVER_S - 0.01)
    assert talk.core.deadline() == pytest.approx(talk.now + HAND_OVER_S), "and its time is not missed"
    assert talk.wait(HAND_OVER_S) == []
    assert talk.core.may_follow(talk.now)


def test_a_cancel_of_the_one_before_leaves_the_next_request() -> None:
    talk, old, new = handed_over()
    (message,) = talk.cancel(old)
    assert message["context_id"] == old.request_id
    assert [type(e) for e in talk.audio(new, 1.0)] == [AudioReceived]


def test_a_cancel_that_was_not_obeyed_once_is_not_sent_again() -> None:
    habits = Habits()
    talk, r = Conversation(habits=habits), request()
    talk.speak(r, ONE_SENTENCE, last=True)
    talk.audio(r)
    assert talk.cancel(r) != []
    talk.wait(LATE_CANCEL_S + 0.01)
    assert talk.audio(r) == []
    assert talk.core.disobeyed
    other, r = Conversation(habits=habits), request(2)
    other.now = talk.now + 1
    other.speak(r, ONE_SENTENCE, last=True)
    other.audio(r)
    assert other.cancel(r) == []
    assert not other.core.reusable


def test_a_connection_that_closes_over_an_open_request_with_too_little_heard_has_failed() -> None:
    """`complete` and a close after the first release: what was buffered behind it is lost, and that is said."""
    talk = Conversation(habits=paced())
    r = request()
    talk.speak(r, "Hello. And then something that was long in the making")
    talk.audio(r, 0.3)
    talk.complete(r)
    (failed,) = talk.close(1000)
    assert isinstance(failed, RequestFailed)
    assert failed.error.retryable


def test_a_connection_that_closes_over_an_open_request_with_all_heard_has_ended_it() -> None:
    talk, r = Conversation(), request()
    talk.speak(r, "Hello there.")
    talk.audio(r, 0.6)
    talk.complete(r)
    assert talk.close(1000) == [RequestCompleted(r, Completion.UPSTREAM)]


# -- stalls ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "delay_s", "last", "stalls_after_s"),
    [
        (Mode.CONTINUATIONS, 3.0, False, 3.0 + OWED_S),
        (Mode.CONTINUATIONS, 0.0, False, OWED_S),
        (Mode.CONTINUATIONS, 3.0, True, OWED_S),
        (Mode.FLUSH, 1.0, False, 1.0 + OWED_S),
        (Mode.FLUSH, 0.0, False, None),  # what it buffers, it keeps until it is told
        (Mode.FLUSH, 0.0, True, OWED_S),
    ],
)
def test_audio_is_owed_from_the_closing_fragment_or_an_elapsed_buffer_delay_on(
    mode: Mode, delay_s: float, last: bool, stalls_after_s: float | None
) -> None:
    talk, r = Conversation(mode), request(max_buffer_delay=delay_s)
    talk.speak(r, "Hello there", last=last)
    if stalls_after_s is None:
        assert talk.wait(3600) == []
        return
    assert talk.wait(stalls_after_s - 0.001) == []
    (failed,) = talk.wait(0.002)
    assert isinstance(failed, RequestFailed)
    assert isinstance(failed.error, errors.UpstreamStalled)
    assert failed.error.retryable
    assert not talk.core.reusable


def test_text_that_waits_for_more_owes_nothing_new() -> None:
    """Heard so far, the upstream waits for the rest of the turn, however long that takes."""
    talk, r = Conversation(), request(max_buffer_delay=3.0)
    talk.speak(r, "Hello there. ")
    talk.audio(r)
    assert talk.wait(3600) == []


def test_blanks_owe_nothing() -> None:
    talk, r = Conversation(), request(max_buffer_delay=0.0)
    talk.speak(r, "  \n")
    assert talk.wait(3600) == []


@pytest.mark.parametrize(
    "frame",
    [
        {"status": "processing"},
        {"status": "chunk", "data": {"audio": ""}},
        {"status": "chunk", "data": {}},
        {"status": "chunk"},
    ],
)
def test_frames_that_say_nothing_keep_no_stall_alive(frame: dict[str, Any]) -> None:
    talk, r = Conversation(), request()
    talk.speak(r, ONE_SENTENCE, last=True)
    for _ in range(4):
        assert talk.raw(json.dumps({**frame, "external_request_id": "r-1", "request_id": "up"})) == []
        assert talk.wait(1.2) == []
    (failed,) = talk.wait(0.2)
    assert isinstance(failed, RequestFailed)


def test_silence_while_nobody_listened_proves_nothing() -> None:
    talk, r = Conversation(), request()
    talk.speak(r, ONE_SENTENCE, last=True)
    talk.now += 60
    talk.core.touch(talk.now)
    assert talk.wait(OWED_S - 0.001) == []
    assert talk.wait(0.002) != []


def test_silence_while_nobody_listened_makes_no_quiet_end_of_text_not_yet_heard() -> None:
    talk, r = Conversation(habits=Habits(sends_complete=False)), request()
    talk.speak(r, "Hello there.")
    talk.audio(r)
    talk.wait(1)
    talk.speak(r, " And more.", last=True)
    talk.now += 10
    talk.core.touch(talk.now)
    assert talk.wait(OWED_S - 0.01) == []
    assert talk.audio(r) != []
    assert talk.wait(OWED_S) == [RequestCompleted(r, Completion.QUIET_TIMEOUT, True)]


def test_no_request_no_deadline() -> None:
    talk = Conversation()
    assert talk.core.deadline() is None
    assert talk.core.expire(1e9) == []


# -- whose frame it is -------------------------------------------------------------------------------------------


def test_stale_frames_are_dropped_and_counted() -> None:
    talk, old, new = Conversation(), request(1), request(2)
    talk.speak(old, "Old.", last=True)
    talk.audio(old)
    talk.cancel(old)
    talk.speak(new, ONE_SENTENCE, last=True)
    assert talk.audio(old, 0.25) == []
    assert talk.word(old, "old", 0, 1) == []
    assert talk.complete(old) == []
    assert talk.core.counters.stale_frames == 3
    assert talk.core.counters.stale_audio_bytes == pytest.approx(len(pcm(0.25)), abs=3)
    assert [type(e) for e in talk.audio(new)] == [AudioReceived]
    assert talk.complete(new) == [RequestCompleted(new, Completion.UPSTREAM)]


def test_without_echoed_ids_the_upstreams_own_tell() -> None:
    talk = Conversation(echoes=False)
    old, new = request(1), request(2)
    talk.speak(old, ONE_SENTENCE, last=True)
    talk.audio(old)
    talk.complete(old)
    talk.speak(new, ONE_SENTENCE, last=True)
    assert [type(e) for e in talk.audio(old)] == [LateAudioReceived]
    assert talk.complete(old) == []
    assert [type(e) for e in talk.audio(new)] == [AudioReceived]


def test_without_echoed_ids_a_cancel_costs_the_connection() -> None:
    talk, r = Conversation(echoes=False), request()
    talk.speak(r, "Hello there.")
    talk.audio(r)
    assert talk.cancel(r) == []
    assert not talk.core.reusable


def test_a_cancel_before_it_is_known_whether_ids_are_echoed() -> None:
    """The first frame of all comes after a cancel and says not whose it is: it is nobody's, and the socket goes."""
    talk, old, new = Conversation(echoes=False), request(1), request(2)
    talk.speak(old, "Old.", last=True)
    assert talk.cancel(old) != []
    talk.speak(new, "New.", last=True)
    assert talk.audio(old) == []
    assert talk.core.disobeyed
    assert not talk.core.reusable
    assert talk.audio(new) == []
    talk.core.abandon()
    assert talk.close(None) == [ConnectionFailed(talk_error(talk))]


def talk_error(talk: Conversation) -> Any:
    """The error of the last event."""
    last = talk.heard[-1]
    assert isinstance(last, ConnectionFailed)
    return last.error


def test_where_ids_are_echoed_a_frame_without_one_is_nobodys() -> None:
    talk, r = Conversation(), request()
    talk.speak(r, ONE_SENTENCE, last=True)
    talk.audio(r)
    assert talk.raw(json.dumps({"status": "complete", "request_id": "another"})) == []
    assert talk.raw(json.dumps({"status": "complete"})) == []
    assert not r.ended
    # One release of this request, known by the upstream's own id, may leave the echo out.
    assert talk.raw(json.dumps({"status": "complete", "request_id": "up-r-1"})) != []


@pytest.mark.parametrize(
    ("late_s", "disobeyed"), [(0.0, False), (LATE_CANCEL_S, False), (LATE_CANCEL_S + 0.01, True)]
)
def test_audio_long_after_a_cancel_is_disobedience(late_s: float, disobeyed: bool) -> None:
    talk, r = Conversation(), request()
    talk.speak(r, "Hello there.")
    talk.audio(r)
    talk.cancel(r)
    talk.wait(late_s)
    assert talk.audio(r) == []
    assert talk.core.disobeyed is disobeyed
    assert talk.core.reusable is not disobeyed


def test_an_answer_to_a_cancel_is_no_disobedience() -> None:
    talk, r = Conversation(), request()
    talk.speak(r, "Hello there.")
    talk.cancel(r)
    talk.wait(1)
    assert talk.complete(r) == []
    assert talk.frame("cancelled", r) == []
    assert talk.core.reusable


def test_late_audio_of_a_failed_request_teaches_nothing() -> None:
    talk, r = Conversation(habits=paced()), request()
    talk.speak(r, ONE_SENTENCE, last=True)
    talk.frame("error", r, message="Invalid voice_id")
    assert talk.audio(r) == []
    assert talk.habits == paced()


def test_a_long_connection_remembers_its_newest_requests_only() -> None:
    talk = Conversation()
    for number in range(500):
        r = request(number)
        talk.speak(r, ONE_SENTENCE, last=True)
        talk.audio(r)
        talk.complete(r)
    assert len(talk.core._ended) <= tts._REMEMBERED
    assert len(talk.core._own_ids) <= tts._REMEMBERED * 4 + 1
    assert [type(e) for e in talk.audio(r)] == [LateAudioReceived]


def test_the_upstreams_ids_are_kept_for_support() -> None:
    talk, r = Conversation(), request()
    talk.speak(r, SENTENCES, last=True)
    talk.audio(r, upstream_id="task-1")
    talk.audio(r, upstream_id="task-2")
    assert talk.core.upstream_session_id == "up-s"
    assert r.upstream_request_id == "task-2"


# -- audio and words ---------------------------------------------------------------------------------------------


def test_audio_comes_as_it_was_sent() -> None:
    talk, r = Conversation(), request()
    talk.speak(r, ONE_SENTENCE, last=True)
    for audio in (b"\x01\x02\x03", b"\x04", bytes(range(256)) * 16):
        data = {"audio": base64.b64encode(audio).decode()}
        assert talk.frame("chunk", r, data=data) == [AudioReceived(r, audio)]
    # Old documents have it beside the status.
    assert talk.frame("chunk", r, audio=base64.b64encode(b"ab").decode()) == [AudioReceived(r, b"ab")]


def times(events: Iterable[TtsEvent]) -> list[tuple[str, float, float]]:
    return [(e.text, round(e.start_s, 6), round(e.end_s, 6)) for e in events if isinstance(e, WordReceived)]


def test_word_times_that_restart_with_each_release() -> None:
    talk, r = Conversation(), request()
    talk.speak(r, "One. Two. Three.", last=True)
    talk.word(r, "One.", 0.0, 0.4, "task-1")
    talk.audio(r, 0.5, "task-1")
    talk.word(r, "Two.", 0.0, 0.6, "task-2")
    talk.audio(r, 0.75, "task-2")
    talk.audio(r, 0.25, "task-3")
    talk.word(r, "Three.", 0.1, 0.2, "task-3")
    assert times(talk.heard) == [("One.", 0.0, 0.4), ("Two.", 0.5, 1.1), ("Three.", 1.35, 1.45)]


def test_word_times_that_run_through_all_releases() -> None:
    talk, r = Conversation(), request()
    talk.speak(r, "One. Two. Three.", last=True)
    talk.word(r, "One.", 0.0, 0.4, "task-1")
    talk.audio(r, 0.5, "task-1")
    talk.word(r, "Two.", 0.49, 1.1, "task-2")  # rounded down
    talk.audio(r, 0.75, "task-2")
    talk.word(r, "Three.", 1.35, 1.45, "task-3")
    assert times(talk.heard) == [("One.", 0.0, 0.4), ("Two.", 0.49, 1.1), ("Three.", 1.35, 1.45)]


def test_a_word_that_ends_before_it_begins_has_no_length() -> None:
    talk, r = Conversation(), request()
    talk.speak(r, ONE_SENTENCE, last=True)
    assert talk.word(r, "odd", 0.5, 0.2) == [WordReceived(r, "odd", 0.5, 0.5)]


# -- garbage and unknown frames ----------------------------------------------------------------------------------

DEEP = "[" * 100_000

UNREADABLE = [
    pytest.param(b"\x00\x01", id="binary"),
    pytest.param(b'{"status":"chunk","data":{"audio":"AAAA"}}', id="binary JSON"),
    pytest.param("", id="empty"),
    pytest.param("not json", id="no JSON"),
    pytest.param('{"status": "chunk"', id="cut off"),
    pytest.param('{"status":"chunk","data":{"audio":"AAAA"}#', id="cut off behind its audio"),
    pytest.param("[1, 2]", id="a list"),
    pytest.param('["chunk", "AAAA"]', id="a list with audio"),
    pytest.param("null", id="null"),
    pytest.param('"complete"', id="a string"),
    pytest.param("{}", id="an empty object"),
    pytest.param('{"ping": 1}', id="an unknown object"),
    pytest.param(DEEP, id="deeper than a stack"),
]


@pytest.mark.parametrize("frame", UNREADABLE)
def test_a_frame_that_cannot_be_read_may_have_held_audio(frame: str | bytes) -> None:
    """A hole is never passed over: another connection says the text again."""
    talk, r = Conversation(), request()
    talk.speak(r, ONE_SENTENCE, last=True)
    talk.audio(r)
    (failed,) = talk.raw(frame)
    assert isinstance(failed, RequestFailed)
    assert isinstance(failed.error, errors.UpstreamProtocol)
    assert not talk.core.reusable


@pytest.mark.parametrize("frame", UNREADABLE)
def test_between_requests_such_a_frame_holds_nothing(frame: str | bytes) -> None:
    talk = Conversation()
    for _ in range(MAX_GARBAGE - 1):
        assert talk.raw(frame) == []
    assert talk.core.reusable


GARBAGE = [
    pytest.param('{"status": "word_timestamp", "external_request_id": "r-1"}', id="word without data"),
    pytest.param(
        '{"status": "word_timestamp", "external_request_id": "r-1", "data": {"word": "a", "start": "0"}}',
        id="word without times",
    ),
    pytest.param(
        '{"status":"word_timestamp","external_request_id":"r-1","data":{"word":"a","start":-1,"end":1}}',
        id="word before the beginning",
    ),
    pytest.param(
        '{"status":"word_timestamp","external_request_id":"r-1","data":{"word":"a","start":0,"end":1e300}}',
        id="word at the end of time",
    ),
    pytest.param(
        '{"status":"word_timestamp","external_request_id":"r-1","data":{"word":"a","start":true,"end":1}}',
        id="word at true",
    ),
]


@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_is_passed_over_until_there_is_too_much_of_it(garbage: str | bytes) -> None:
    talk, r = Conversation(), request()
    talk.speak(r, ONE_SENTENCE, last=True)
    for _ in range(MAX_GARBAGE - 1):
        assert talk.raw(garbage) == []
        assert talk.core.reusable
    (failed,) = talk.raw(garbage)
    assert isinstance(failed, RequestFailed)
    assert failed.request is r
    assert isinstance(failed.error, errors.UpstreamProtocol)
    assert not talk.core.reusable
    assert talk.core.counters.garbage == MAX_GARBAGE


def test_garbage_with_no_request_open_ends_the_connection() -> None:
    talk = Conversation()
    for _ in range(MAX_GARBAGE - 1):
        assert talk.raw("nonsense") == []
    (failed,) = talk.raw("nonsense")
    assert isinstance(failed, ConnectionFailed)
    assert isinstance(failed.error, errors.UpstreamProtocol)
    assert not talk.core.reusable


@pytest.mark.parametrize("audio", ["not base64!", "AAA", 5, ["AAAA"], {"a": 1}, "ÄÖÜ="])
def test_damaged_audio_is_a_hole_that_cannot_be_passed_over(audio: Any) -> None:
    talk, r = Conversation(), request()
    talk.speak(r, ONE_SENTENCE, last=True)
    (failed,) = talk.frame("chunk", r, data={"audio": audio})
    assert isinstance(failed, RequestFailed)
    assert isinstance(failed.error, errors.UpstreamProtocol)
    assert not talk.core.reusable


@pytest.mark.parametrize("ids", [{}, {"request_id": 7, "external_request_id": 8}, {"request_id": "another"}])
def test_audio_that_names_no_request_where_others_do_is_a_hole(ids: dict[str, Any]) -> None:
    talk, r = Conversation(), request()
    talk.speak(r, ONE_SENTENCE, last=True)
    talk.audio(r)
    for audio in (None, ""):
        assert talk.raw(json.dumps({**ids, "status": "chunk", "data": {"audio": audio}})) == []
    (failed,) = talk.raw(json.dumps({**ids, "status": "chunk", "data": {"audio": "AAAA"}}))
    assert isinstance(failed, RequestFailed)
    assert isinstance(failed.error, errors.UpstreamProtocol)


def test_damaged_audio_of_a_cancelled_request_hurts_nobody() -> None:
    talk, r = Conversation(), request()
    talk.speak(r, "Hello there.")
    talk.audio(r)
    talk.cancel(r)
    assert talk.frame("chunk", r, data={"audio": "not base64!"}) == []
    assert talk.core.reusable


@pytest.mark.parametrize("status", ["started", "pong", "cancelled", "", None, 206, True, ["chunk"], {}])
def test_an_unknown_status_is_no_error(status: Any) -> None:
    talk, r = Conversation(), request()
    talk.speak(r, ONE_SENTENCE, last=True)
    for _ in range(10):
        assert talk.raw(json.dumps({"status": status, "request_id": "x", "data": None})) == []
    assert talk.core.counters.unknown_frames == 10
    assert talk.core.counters.garbage == 0
    talk.audio(r)
    assert talk.complete(r) == [RequestCompleted(r, Completion.UPSTREAM)]
    assert talk.core.reusable


frames = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
odd_frames = st.fixed_dictionaries(
    {},
    optional={
        "status": st.sampled_from(["chunk", "word_timestamp", "complete", "error", "x"]) | frames,
        "session_id": frames,
        "request_id": st.sampled_from(["up-1", "up-2"]) | frames,
        "external_request_id": st.sampled_from(["r-1", "r-2"]) | frames,
        "data": st.fixed_dictionaries(
            {},
            optional={
                "audio": st.binary(max_size=9).map(lambda b: base64.b64encode(b).decode()) | frames,
                "word": frames,
                "start": frames,
                "end": frames,
            },
        )
        | frames,
        "message": frames,
        "error": frames,
    },
)


@given(
    st.lists(
        st.one_of(
            odd_frames.map(json.dumps), frames.map(json.dumps), st.text(max_size=20), st.binary(max_size=9)
        ),
        max_size=12,
    )
)
def test_nothing_that_the_upstream_sends_raises_or_ends_a_request_twice(messages: list[str | bytes]) -> None:
    talk, r = Conversation(), request()
    talk.speak(r, ONE_SENTENCE, last=True)
    for message in messages:
        talk.raw(message)
        talk.wait(0.1)
    talk.wait(60)
    talk.close(1000)
    ends = [e for e in talk.heard if isinstance(e, RequestCompleted | RequestFailed)]
    assert len(ends) == 1
    assert r.ended
    after = talk.heard[talk.heard.index(ends[0]) + 1 :]
    assert not [e for e in after if isinstance(e, AudioReceived | WordReceived)]


# -- errors ------------------------------------------------------------------------------------------------------

ERROR_SHAPES = [
    pytest.param({"status": "error", "message": "Invalid voice_id"}, id="message"),
    pytest.param({"status": "error", "error": "Invalid voice_id"}, id="error"),
    pytest.param(
        {"status": "error", "error": {"message": "Invalid voice_id", "code": "400"}}, id="error object"
    ),
    pytest.param({"error": "Invalid voice_id"}, id="no status"),
    pytest.param({"error": {"message": "Invalid voice_id", "code": 400}}, id="no status, error object"),
]


@pytest.mark.parametrize("shape", ERROR_SHAPES)
def test_error_frames_of_every_shape_fail_the_request(shape: dict[str, Any]) -> None:
    talk, r = Conversation(), request()
    talk.speak(r, ONE_SENTENCE, last=True)
    (failed,) = talk.raw(json.dumps({**shape, "external_request_id": "r-1"}))
    assert isinstance(failed, RequestFailed)
    assert isinstance(failed.error, errors.UpstreamRejected)
    assert "Invalid voice_id" in failed.error.message
    assert talk.core.reusable, "the next request may be a better one"


def test_an_error_without_an_id_is_about_the_open_request() -> None:
    talk, r = Conversation(), request()
    talk.speak(r, ONE_SENTENCE, last=True)
    (failed,) = talk.raw('{"status": "error", "message": "text is too long"}')
    assert isinstance(failed, RequestFailed)


def test_an_error_about_what_is_over_ends_nothing() -> None:
    talk, old, new = Conversation(), request(1), request(2)
    talk.speak(old, "Old.")
    talk.audio(old)
    talk.cancel(old)
    talk.speak(new, ONE_SENTENCE, last=True)
    assert talk.frame("error", old, message="no such context") == []
    assert talk.frame("error", KEEPALIVE_ID, message="'text' must not be blank") == []
    assert not new.ended
    assert talk.core.reusable


def test_a_refused_keepalive_is_no_error() -> None:
    talk = Conversation()
    talk.core.keepalive(VOICE)
    assert talk.raw('{"status": "error", "message": "text must not be empty"}') == []
    assert talk.core.reusable


def test_a_bad_key_said_between_requests_ends_the_connection() -> None:
    talk = Conversation()
    (failed,) = talk.raw('{"status": "error", "error": {"message": "key revoked", "code": "401"}}')
    assert isinstance(failed, ConnectionFailed)
    assert isinstance(failed.error, errors.UpstreamCredential)
    assert not talk.core.reusable


IDLE = '{"status": "error", "message": "Connection timed out after 60 seconds of inactivity"}'


def test_an_announced_idle_timeout_between_requests_is_no_failure() -> None:
    talk = Conversation()
    assert talk.raw(IDLE) == []
    assert talk.core.announced_idle
    assert not talk.core.reusable
    assert [type(e) for e in talk.close(1000)] == [ConnectionFailed]


def test_an_announced_idle_timeout_over_an_open_request_can_be_mended() -> None:
    talk, r = Conversation(), request()
    talk.speak(r, "Hello there,")
    (failed,) = talk.raw(IDLE)
    assert isinstance(failed, RequestFailed)
    assert isinstance(failed.error, errors.UpstreamUnavailable)
    assert failed.error.retryable


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (1000, None),
        (1001, None),
        (None, errors.UpstreamUnavailable),
        (1006, errors.UpstreamUnavailable),
        (1008, errors.UpstreamCapacity),
        (1011, errors.UpstreamUnavailable),
        (1007, errors.UpstreamProtocol),
    ],
)
def test_a_close_between_requests(code: int | None, error: type[errors.WavegateError] | None) -> None:
    talk = Conversation()
    events = talk.close(code)
    assert not talk.core.reusable
    if error is None:
        assert events == []
    else:
        (failed,) = events
        assert isinstance(failed, ConnectionFailed)
        assert type(failed.error) is error


def test_giving_a_connection_up_fails_its_request() -> None:
    talk, r = Conversation(), request()
    assert talk.core.failed(errors.UpstreamStalled("took nothing")) == []
    talk, r = Conversation(), request()
    talk.speak(r, "Hello.")
    error = errors.UpstreamStalled("took nothing")
    assert talk.core.failed(error) == [RequestFailed(r, error)]
    assert not talk.core.reusable


def test_abandoning_a_request_says_nothing() -> None:
    talk, r = Conversation(), request()
    talk.speak(r, "Hello.")
    talk.core.abandon()
    assert r.ended
    assert not talk.core.reusable
    assert talk.wait(60) == []
