"""Which host serves which language."""

from __future__ import annotations

import pytest
from wavegate_server.waves.regions import EVERYWHERE, INDIA_URL, US_URL, Regions, built_in, parse

HOME = "wss://home.example"


@pytest.mark.parametrize(
    "language", ["zh", "zh-CN", "cmn-Hans-CN", "yue", "zh-HK", "ja-JP", "ko", "multi-asian"]
)
def test_east_asian_languages_are_heard_in_the_us(language: str) -> None:
    assert built_in(INDIA_URL).base_url("stt", language, INDIA_URL) == US_URL


@pytest.mark.parametrize("language", ["ta", "ta-IN", "te", "kn_IN", "ml", "tam", "multi-south-indic"])
def test_south_indian_languages_are_heard_in_india(language: str) -> None:
    assert built_in(US_URL).base_url("stt", language, US_URL) == INDIA_URL


@pytest.mark.parametrize("language", ["en", "hi-IN", "multi-eu", "multi-indic", "", "tlh"])
@pytest.mark.parametrize("url", [INDIA_URL, US_URL, "https://api.smallest.ai"])
def test_all_others_stay(url: str, language: str) -> None:
    assert built_in(url).base_url("stt", language, url) == url


def test_speech_is_made_everywhere() -> None:
    assert built_in(US_URL).base_url("tts", "ta", US_URL) == US_URL


@pytest.mark.parametrize("url", ["ws://127.0.0.1:8090", "wss://api.smallest.ai.example", "", HOME])
def test_other_upstreams_have_no_table(url: str) -> None:
    assert built_in(url) is EVERYWHERE
    assert EVERYWHERE.base_url("stt", "ja", url) == url


def test_a_table_of_ones_own() -> None:
    table = parse('[stt]\nja-JP = "wss://a"\nzh-HK = "wss://b"\n[tts]\nhi = "wss://c"\n', str)
    assert table == Regions(stt={"ja": "wss://a", "yue": "wss://b"}, tts={"hi": "wss://c"})
    assert table.base_url("stt", "zh-CN", HOME) == HOME
    assert table.base_url("tts", "hi-IN", HOME) == "wss://c"
    assert parse("", str) == EVERYWHERE


def no_url(text: str) -> str:
    raise ValueError("is no URL")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("ja = wss://a", "it is not TOML"),
        ('ja = "wss://a"', r"the sections \[stt\] and \[tts\], and nothing else, such as 'ja'"),
        ('[asr]\nja = "wss://a"', "nothing else, such as 'asr'"),
        ("[stt]\nja = 1", r"\[stt\] ja must be a URL in quotes"),
        ('[stt]\n"no tag" = "wss://a"', r"\[stt\] 'no tag' is no language tag"),
        ('[tts]\nja = "nonsense"', r"\[tts\] ja: is no URL"),
    ],
)
def test_what_is_no_table(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse(text, no_url)
