"""The voice catalogue as values."""

from __future__ import annotations

import json
from typing import Any

import pytest
from wavegate_server import errors
from wavegate_server.waves.voices import (
    VOICES_PATH,
    VOICES_V2_PATH,
    CatalogueVoice,
    merged,
    models_of,
    parse,
    path_of,
)


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


def test_a_voice_has_the_models_of_its_catalogue_unless_it_says_its_own() -> None:
    raw = json.dumps({"voices": [{"voiceId": "a"}, {"voiceId": "b", "model": "lightning-v3.1"}]}).encode()
    found = parse(raw, models_of(VOICES_PATH))
    assert [v.models for v in found] == [("lightning_v3.1", "lightning_v3.1_pro"), ("lightning_v3.1",)]


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("lightning_v3.1", VOICES_PATH),
        ("lightning_v3.1_pro", VOICES_PATH),
        ("lightning-v2", VOICES_V2_PATH),
        ("lightning_v4", "/waves/v1/lightning-v4/get_voices"),
        ("Other", "/waves/v1/other/get_voices"),
    ],
)
def test_each_model_has_its_catalogue(model: str, path: str) -> None:
    assert path_of(model) == path


@pytest.mark.parametrize("model", ["..", "../x", "a/b", "a?b", "ü", "x" * 65, " ", "a b", "a\n"])
def test_what_is_no_name_of_a_model_asks_for_no_catalogue(model: str) -> None:
    with pytest.raises(errors.InvalidInput):
        path_of(model)


def test_catalogues_are_merged_by_voice() -> None:
    first, second = (
        parse(b'{"voices":[{"voiceId":"b","displayName":"B"},{"voiceId":"c"}]}', ("x", "y")),
        parse(b'{"voices":[{"voiceId":"b"},{"voiceId":"a"}]}', ("z", "x")),
    )
    assert [(v.voice_id, v.display_name, v.models) for v in merged(first, second)] == [
        ("a", "a", ("z", "x")),
        ("b", "B", ("x", "y", "z")),
        ("c", "c", ("x", "y")),
    ]
    assert merged() == merged(()) == ()


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
