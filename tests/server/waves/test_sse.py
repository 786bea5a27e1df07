"""Whole texts over an event stream: the request's body, and both shapes of the answer."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wavegate_server import errors
from wavegate_server.waves import sse
from wavegate_server.waves.sse import Audio, Done, SseEvent, SseReader, Word

PCM = bytes(range(20))
BASE64 = base64.b64encode(PCM).decode()


def events(*data: Any, reader: SseReader | None = None) -> list[SseEvent]:
    """Events of a stream that sends each of `data` as one."""
    reader = reader or SseReader()
    found: list[SseEvent] = []
    for value in data:
        for line in (f"data: {value if isinstance(value, str) else json.dumps(value)}", ""):
            found += reader.line(line)
    return found


def test_the_body_has_all_settings_but_those_of_streamed_text() -> None:
    settings = {
        "voice_id": "magnus",
        "model": "lightning_v3.1",
        "speed": 1.5,
        "word_timings": True,
        "language_code": "en-US",
        "max_buffer_delay": 3.0,
        "completion_backoff": 0.1,
        "max_chunk_bytes": 100,
        "content_filter": "off",
        "extra": {"seed": 7},
    }
    assert json.loads(sse.body(settings, "Hello.", 24_000, "s-1", "r-1")) == {
        "text": "Hello.",
        "voice_id": "magnus",
        "model": "lightning_v3.1",
        "speed": 1.5,
        "word_timestamps": True,
        "language": "en",
        "content_filter": {"enabled": False},
        "seed": 7,
        "sample_rate": 24_000,
        "output_format": "pcm",
        "session_id": "s-1",
        "request_id": "r-1",
    }


def test_the_documented_shape() -> None:
    assert events(
        {"audio": BASE64, "done": False, "status": "206"},
        {"audio": BASE64, "done": False, "status": 206},
        {"status": "200", "done": True},
    ) == [Audio(PCM), Audio(PCM), Done()]


def test_the_shape_of_old_documents() -> None:
    reader = SseReader()
    frame = {"session_id": "up-s", "request_id": "up-r"}
    assert events(
        {**frame, "status": "chunk", "data": {"audio": BASE64}},
        {**frame, "status": "word_timestamp", "data": {"id": 0, "word": "Hi", "start": 0.1, "end": 0.4}},
        {**frame, "status": "complete", "message": "done", "done": True},
        reader=reader,
    ) == [Audio(PCM), Word("Hi", 0.1, 0.4), Done()]
    assert (reader.session_id, reader.request_id) == ("up-s", "up-r")


def test_audio_in_the_last_event_counts() -> None:
    assert events({"audio": BASE64, "done": True, "status": "200"}) == [Audio(PCM), Done()]


def test_lines_that_are_no_data_say_nothing() -> None:
    reader = SseReader()
    lines = [
        ": a comment",
        "event: audio",
        "id: 7",
        "retry: 100",
        f'data:{{"audio": "{BASE64}"}}',
        "data",
        "",
        "",
    ]
    assert [e for line in lines for e in reader.line(line)] == [Audio(PCM)]


def test_data_over_several_lines_is_one_event() -> None:
    reader = SseReader()
    lines = ['data: {"audio":', f'data: "{BASE64}",', 'data: "done": true}', ""]
    assert [e for line in lines for e in reader.line(line)] == [Audio(PCM), Done()]


def test_an_end_without_an_empty_line() -> None:
    reader = SseReader()
    assert reader.line('data: {"done": true}') == []
    assert reader.finish() == [Done()]
    assert reader.finish() == []


@pytest.mark.parametrize(
    "nothing",
    [
        {"status": "started"},
        {"audio": "", "done": False},
        {"audio": None},
        {"error": None, "status": "206"},
        {"status": None},
        {"data": 5},
        {"status": "word_timestamp", "data": {"word": "a", "start": "0", "end": 1}},
        {"status": "word_timestamp", "data": {"word": "a", "start": 0, "end": 1e300}},
        {"status": "word_timestamp", "data": {"word": "a", "start": -1, "end": 1}},
        {"status": "word_timestamp"},
        {"session_id": 5, "request_id": None},
    ],
)
def test_what_says_nothing_is_passed_over(nothing: Any) -> None:
    assert events(nothing, {"done": True}) == [Done()]


@pytest.mark.parametrize(
    ("frame", "kind"),
    [
        ({"status": "error", "message": "Invalid voice"}, errors.UpstreamRejected),
        ({"error": "Invalid voice"}, errors.UpstreamRejected),
        ({"status": "400", "message": "Invalid voice"}, errors.UpstreamRejected),
        ({"status": "401"}, errors.UpstreamCredential),
        ({"status": "410"}, errors.UpstreamGone),
        ({"status": 429, "message": "no"}, errors.UpstreamCapacity),
        ({"status": "503", "done": True}, errors.UpstreamUnavailable),
        ({"status": 500, "error": {"message": "no"}}, errors.UpstreamUnavailable),
        ({"status": "500", "error": {"message": "no", "code": "429"}}, errors.UpstreamCapacity),
        ({"status": "error", "error": {"message": "busy", "code": "429"}}, errors.UpstreamCapacity),
        ({"status": "error", "error": {"message": "broken", "code": 500}}, errors.UpstreamUnavailable),
    ],
)
def test_errors(frame: dict[str, Any], kind: type[errors.WavegateError]) -> None:
    with pytest.raises(errors.WavegateError) as caught:
        events(frame)
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    "garbage",
    [
        "{}",
        '{"foo": 1}',
        "nonsense",
        "[1]",
        "null",
        "[" * 100_000,
        '{"audio": "not base64!"}',
        '{"audio": 5}',
    ],
)
def test_garbage(garbage: str) -> None:
    with pytest.raises(errors.UpstreamProtocol):
        events(garbage)


@given(st.lists(st.binary(min_size=1, max_size=64), max_size=8), st.booleans())
def test_audio_comes_whole_and_in_order(pieces: list[bytes], old_shape: bool) -> None:
    frames: list[dict[str, Any]] = []
    for piece in pieces:
        audio = base64.b64encode(piece).decode()
        frames.append(
            {"status": "chunk", "data": {"audio": audio}} if old_shape else {"audio": audio, "done": False}
        )
    found = events(*frames, {"done": True})
    assert [e.pcm for e in found if isinstance(e, Audio)] == pieces
    assert found[-1] == Done()
