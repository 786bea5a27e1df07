"""Language tags of callers to the upstream's codes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wavegate_server.waves.languages import STT_CODES, TTS_CODES, is_tag, to_upstream


@pytest.mark.parametrize(
    ("tag", "code"),
    [
        ("en", "en"),
        ("en-US", "en"),
        ("en_GB", "en"),
        ("EN-us", "en"),
        ("hi-IN", "hi"),
        ("zh-Hans-CN", "zh"),
        ("cmn-Hans-CN", "zh"),
        ("pt-BR", "pt"),
        ("nb-NO", "no"),
        ("nn", "no"),
        ("no", "no"),
        ("in", "id"),
        ("eng", "en"),
        ("deu", "de"),
        ("arb", "ar"),
        ("auto", "auto"),
        ("AUTO", "auto"),
    ],
)
def test_speaking(tag: str, code: str) -> None:
    assert to_upstream(tag, TTS_CODES) == (code, True)


@pytest.mark.parametrize(
    ("tag", "code"),
    [
        ("en-US", "en"),
        ("zh-HK", "yue"),
        ("zh-yue", "yue"),
        ("zh-MO", "yue"),
        ("yue", "yue"),
        ("zh-TW", "zh"),
        ("north_indic", "north_indic"),
        ("north-indic", "north_indic"),
        ("North-Indic", "north_indic"),
        ("multi-asian", "multi-asian"),
        ("multi_asian", "multi-asian"),
        ("multi-south-indic", "multi-south-indic"),
        ("multi-eu", "multi-eu"),
        ("MULTI-INDIC", "multi-indic"),
        ("pa-IN", "pa"),
        ("pan", "pa"),
        ("ukr", "uk"),
        ("ces-CZ", "cs"),
    ],
)
def test_listening(tag: str, code: str) -> None:
    assert to_upstream(tag, STT_CODES) == (code, True)


@pytest.mark.parametrize(
    ("tag", "codes"),
    [("tlh", TTS_CODES), ("fil-PH", TTS_CODES), ("auto", STT_CODES), ("multi-xx", STT_CODES)],
)
def test_an_unknown_one_passes_as_it_was_written(tag: str, codes: frozenset[str]) -> None:
    assert to_upstream(tag, codes) == (tag, False)


@pytest.mark.parametrize("codes", [TTS_CODES, STT_CODES], ids=["speaking", "listening"])
def test_the_upstreams_own_codes_pass(codes: frozenset[str]) -> None:
    for code in codes:
        assert is_tag(code)
        assert to_upstream(code, codes) == (code, True)
        assert to_upstream(code.upper(), codes) == (code, True)


@given(st.from_regex(r"[A-Za-z]{2,8}([-_][A-Za-z0-9]{1,8}){0,3}", fullmatch=True))
def test_what_is_known_is_a_code_and_what_is_not_is_untouched(tag: str) -> None:
    for codes in (TTS_CODES, STT_CODES):
        code, known = to_upstream(tag, codes)
        assert (code in codes) is known
        assert known or code == tag


@pytest.mark.parametrize("tag", ["en", "en-GB", "zh_Hant_HK", "multi-south-indic", "de-DE-1996", "tlh"])
def test_tags(tag: str) -> None:
    assert is_tag(tag)


@pytest.mark.parametrize(
    "tag", ["", "e", "en-", "-en", "en--GB", "en GB", "en;", "日本", "en-" + "x" * 9, "en" * 18]
)
def test_what_is_no_tag(tag: str) -> None:
    assert not is_tag(tag)
