"""The voice catalogue as values."""

from __future__ import annotations

import json
from typing import Any

import pytest
from wavegate_server import errors
from wavegate_server.waves.voices import CatalogueVoice, parse


def voices(*entries: Any) -> tuple[CatalogueVoice, ...]:
    return parse(json.dumps({"voices": list(entries)}).encode())


def voice(**entry: Any) -> CatalogueVoice:
    (found,) = voices({"voiceId": "v", **entry})
    return found


def test_an_entry_as_documented() -> None:
    found = voice(
        voiceId="devansh",
        displayName="Devansh",
        tags={
            "language": ["hindi", "english"],
            "accent": "indian",
            "gender": "male",
            "age": "young",
            "emotions": [],
            "usecases": ["conversational", "narration"],
        },
    )
    assert found == CatalogueVoice(
        voice_id="devansh",
        display_name="Devansh",
        models=(),
        language_codes=("hi", "en"),
        tags={
            "accent": ("indian",),
            "gender": ("male",),
            "age": ("young",),
            "usecases": ("conversational", "narration"),
        },
        word_timings_supported=True,
    )


def test_an_entry_with_an_id_alone() -> None:
    found = voice()
    assert (found.voice_id, found.display_name, found.language_codes, dict(found.tags)) == ("v", "v", (), {})
    assert found.word_timings_supported, "nothing speaks against it"


@pytest.mark.parametrize(
    ("languages", "codes", "timed"),
    [
        (["english"], ("en",), True),
        (["English", "HINDI"], ("en", "hi"), True),
        (["german"], ("de",), False),
        (["mandarin", "chinese"], ("zh",), False),
        ("english", ("en",), True),
        (["klingon"], ("klingon",), False),
        ([], (), True),
        (None, (), True),
    ],
)
def test_languages(languages: Any, codes: tuple[str, ...], timed: bool) -> None:
    found = voice(tags={"language": languages})
    assert found.language_codes == codes
    assert found.word_timings_supported is timed


@pytest.mark.parametrize(
    ("entry", "model", "serves"),
    [
        ({}, "", True),
        ({}, "lightning_v3.1", True),  # the catalogue does not say
        ({"model": "lightning-v3.1"}, "lightning_v3.1", True),
        ({"model": "lightning-v3.1"}, "lightning_v3.1_pro", False),
        ({"models": ["lightning-v3.1", "lightning-v3.1-pro"]}, "lightning_v3.1_pro", True),
        ({"models": ["lightning-v2"]}, "lightning-v2", True),
    ],
)
def test_filter_by_model(entry: dict[str, Any], model: str, serves: bool) -> None:
    assert voice(**entry).serves(model, "") is serves


@pytest.mark.parametrize(
    ("language", "serves"),
    [("", True), ("en", True), ("en-IN", True), ("EN", True), ("eng", True), ("hi", False), ("tlh", False)],
)
def test_filter_by_language(language: str, serves: bool) -> None:
    assert voice(tags={"language": ["english"]}).serves("", language) is serves


def test_entries_without_an_id_are_left_out() -> None:
    found = voices({"voiceId": "a"}, {}, {"voiceId": 5}, {"voiceId": ""}, "b", None, {"voiceId": "c"})
    assert [v.voice_id for v in found] == ["a", "c"]


@pytest.mark.parametrize("tags", [None, 5, [], "x", {"language": 5, "accent": None, "age": {"x": 1}}])
def test_odd_tags_say_nothing(tags: Any) -> None:
    assert dict(voice(tags=tags, displayName=7, models=5).tags) == {}


@pytest.mark.parametrize(
    "raw",
    [b"", b"nonsense", b"[]", b"null", b"{}", b'{"voices": 5}', b'{"voices": {}}', b"[" * 100_000, b"\xff"],
)
def test_what_is_no_catalogue(raw: bytes) -> None:
    with pytest.raises(errors.UpstreamProtocol):
        parse(raw)
