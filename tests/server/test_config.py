"""The table of options, and what follows from them."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from wavegate_server import config
from wavegate_server.config import Address, Config, ConfigError, Watched
from wavegate_server.telemetry import logs
from wavegate_server.waves.regions import Regions

from tests.support.certificates import Certificates

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"
PARSE: dict[str, Callable[[str], Any]] = {o.name: o.parse for o in config.options() if o.parse is not None}
KEY = {"SMALLEST_API_KEY": "sk_test_0123456789"}


def expected_page() -> str:
    """The tables of `docs/configuration.md`, as the options say."""
    parts = []
    group = ""
    for option in config.options():
        if option.group != group:
            group = option.group
            parts.append(
                f"\n## {group}\n\n| flag | environment | default | meaning |\n| --- | --- | --- | --- |"
            )
        unit = f" {option.unit}".replace("|", "\\|").rstrip()
        parts.append(f"| `{option.flag}{unit}` | `{option.env}` | {option.shown_default} | {option.help} |")
    return "\n".join(parts).strip() + "\n"


def test_the_documentation_has_every_option() -> None:
    assert expected_page() in PAGE.read_text(encoding="utf-8")


def test_every_option_has_a_flag_an_environment_name_and_a_meaning() -> None:
    for option in config.options():
        assert re.fullmatch(r"--[a-z0-9-]+", option.flag)
        assert re.fullmatch(r"WAVEGATE_[A-Z0-9_]+", option.env)
        assert option.help.endswith(".")
        assert option.shown_default
        assert bool(option.unit) == (option.parse is not None)


def test_defaults_are_within_their_own_bounds() -> None:
    """What is shown as default parses to the default, where it is a value and no sentence."""
    for option in config.options():
        if option.parse is not None and option.default not in (None, ""):
            assert option.parse(option.shown_default) == option.default


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:50051", "127.0.0.1", 50051),
        ("localhost:0", "localhost", 0),
        ("[::1]:65535", "::1", 65535),
        (" gateway.example:443 ", "gateway.example", 443),
    ],
)
def test_addresses(text: str, host: str, port: int) -> None:
    assert Address.parse(text) == Address(host, port)
    assert Address.parse(str(Address(host, port))) == Address(host, port)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "50051",
        ":50051",
        "host:",
        "host:-1",
        "host:65536",
        "host:5 0",
        "host:٣",
        "::1:50051",
        "a b:1",
        "http://h:1",
    ],
)
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"must be HOST:PORT|port must be|is no host name"):
        Address.parse(text)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("LOCALHOST", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("localhost.example", False),
    ],
)
def test_what_only_this_machine_can_reach(host: str, loopback: bool) -> None:
    assert Address(host, 1).is_loopback is loopback


def test_a_wildcard_is_called_by_its_loopback() -> None:
    assert str(Address("0.0.0.0", 1).reachable) == "127.0.0.1:1"
    assert str(Address("::", 1).reachable) == "[::1]:1"
    assert str(Address("10.0.0.1", 1).reachable) == "10.0.0.1:1"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("local", "local"),
        ("wss://api.smallest.ai", "wss://api.smallest.ai"),
        ("http://127.0.0.1:8090/", "http://127.0.0.1:8090"),
        ("ws://[::1]:8090", "ws://[::1]:8090"),
    ],
)
def test_upstreams(text: str, value: str) -> None:
    assert PARSE["upstream"](text) == value


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("remote", "scheme is ws, wss, http or https"),
        ("ftp://host", "scheme is ws, wss, http or https"),
        ("api.smallest.ai:443", "scheme is ws, wss, http or https"),
        ("wss://", "must be 'local' or a URL"),
        ("wss://:443", "must be 'local' or a URL"),
        ("ws://host:99999", "malformed"),
        ("ws://host:0", "must be 'local' or a URL"),
        ("ws://[::1", "malformed"),
        ("wss://host/waves/v1", "so it has none"),
        ("wss://host?key=1", "so it has none"),
        ("wss://user:pass@host", "not into the URL"),
        ("wss://ho st", "must be 'local' or a URL"),
    ],
)
def test_upstreams_that_are_none(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as caught:
        PARSE["upstream"](text)
    assert "pass@" not in str(caught.value)


TIMES = ("idle_timeout", "drain_timeout", "start_timeout", "audio_history", "max_waiting_audio")


@pytest.mark.parametrize("name", TIMES)
@pytest.mark.parametrize("text", ["nan", "inf", "-1", "1e99", "ten", "", "5s"])
def test_times_that_are_none(name: str, text: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        PARSE[name](text)


@pytest.mark.parametrize(
    "name",
    [
        "max_sessions",
        "max_sessions_per_caller",
        "max_message_bytes",
        "max_recording_bytes",
        "max_queued_utterances",
    ],
)
@pytest.mark.parametrize("text", ["-1", "1.5", "nan", "many", "", "99999999999999999999"])
def test_numbers_that_are_none(name: str, text: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        PARSE[name](text)


@pytest.mark.parametrize("name", ["tts_protocol", "stt_keepalive", "local_engine", "log_format", "log_level"])
def test_unknown_choices_are_told_the_known_ones(name: str) -> None:
    with pytest.raises(ValueError, match=r"must be \w+.* or \w+, got 'other'"):
        PARSE[name]("other")


# -- which upstream -------------------------------------------------------------------------------------------


def test_a_key_alone_means_the_real_service() -> None:
    choice = config.choose_upstream(Config(), KEY)
    assert (choice.url, choice.keys(), choice.is_local) == (
        "wss://api.smallest.ai",
        ("sk_test_0123456789",),
        False,
    )
    everywhere = Config(listen=Address("0.0.0.0", 50051))
    assert config.choose_upstream(everywhere, KEY).url == "wss://api.smallest.ai"


def test_no_key_means_the_local_upstream_on_loopback_only() -> None:
    assert config.choose_upstream(Config(), {}).is_local
    with pytest.raises(ConfigError, match=r"could connect to 0\.0\.0\.0:50051.*--upstream local"):
        config.choose_upstream(Config(listen=Address("0.0.0.0", 50051)), {})


def test_the_local_upstream_can_be_asked_for() -> None:
    asked = Config(listen=Address("0.0.0.0", 50051), upstream="local")
    assert config.choose_upstream(asked, {}).is_local
    with_key = config.choose_upstream(asked, KEY)
    assert with_key.is_local
    assert with_key.keys() == (config.KEYLESS,), "the key is for the real service"


def test_another_upstream_needs_a_key_unless_it_is_on_this_machine() -> None:
    assert config.choose_upstream(Config(upstream="ws://127.0.0.1:8090"), {}).keys() == (config.KEYLESS,)
    assert config.choose_upstream(Config(upstream="ws://127.0.0.1:8090"), KEY).keys() == (
        "sk_test_0123456789",
    )
    with pytest.raises(ConfigError, match=r"wss://eu\.example needs an API key: set SMALLEST_API_KEY"):
        config.choose_upstream(Config(upstream="wss://eu.example"), {})


@pytest.mark.parametrize("key", ["two words", "new\nline", "schlüssel-0123"])
def test_a_key_that_is_none_is_refused_without_showing_it(key: str) -> None:
    with pytest.raises(ConfigError, match="SMALLEST_API_KEY cannot be used") as caught:
        config.choose_upstream(Config(), {"SMALLEST_API_KEY": key})
    assert key not in str(caught.value)


def test_a_blank_key_is_no_key() -> None:
    assert config.choose_upstream(Config(), {"SMALLEST_API_KEY": "  "}).is_local


def test_the_key_file_wins_and_is_read_again(tmp_path: Path) -> None:
    path = secret(tmp_path, "file-key-1\n")
    choice = config.choose_upstream(Config(api_key_file=path), KEY)
    assert choice.keys() == ("file-key-1",)
    path.write_text("# two accounts\nfile-key-22\n\n  file-key-333 \nfile-key-22\n")
    assert choice.keys() == ("file-key-22", "file-key-333")
    assert logs.redact("using file-key-22 now") == "using [hidden] now"
    assert "file-key" not in repr(choice)


def test_several_keys_in_the_environment_stand_between_commas() -> None:
    choice = config.choose_upstream(Config(), {"SMALLEST_API_KEY": "key-number-1, key-number-2,"})
    assert choice.keys() == ("key-number-1", "key-number-2")
    assert logs.redact("key-number-2") == "[hidden]"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("# nothing but a comment\n", "it holds no key"),
        ("good-key-1\ntwo words\n", "one API key a line and nothing else"),
        ("good-key-1,good-key-2", "one API key a line and nothing else"),
    ],
)
def test_a_key_file_that_holds_something_else(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=f"the API key file .* cannot be used: .*{problem}"):
        config.choose_upstream(Config(api_key_file=secret(tmp_path, text)), {})


def secret(folder: Path, text: str) -> Path:
    path = folder / "secret"
    path.write_text(text)
    path.chmod(0o600)
    return path


# -- regions --------------------------------------------------------------------------------------------------


def test_the_real_service_has_a_table_of_regions() -> None:
    real = config.region_table(Config(), "wss://api.us.smallest.ai")
    assert real.base_url("stt", "ta-IN", "wss://api.us.smallest.ai") == "wss://api.smallest.ai"
    assert config.region_table(Config(), "ws://127.0.0.1:8090") == Regions()
    assert config.region_table(Config(), "") == Regions(), "the local upstream"
    assert config.region_table(Config(regions="off"), "wss://api.smallest.ai") == Regions()


def test_a_file_of_regions_holds_for_any_upstream(tmp_path: Path) -> None:
    path = tmp_path / "regions.toml"
    path.write_text('[stt]\nja = "wss://east.example/"\n')
    table = config.region_table(Config(regions=str(path)), "ws://127.0.0.1:8090")
    assert table == Regions(stt={"ja": "wss://east.example"})


@pytest.mark.parametrize("url", ["local", "wss://east.example/path", "wss://key@east.example", "east"])
def test_a_region_must_be_a_url(tmp_path: Path, url: str) -> None:
    path = tmp_path / "regions.toml"
    path.write_text(f'[stt]\nja = "{url}"\n')
    with pytest.raises(ConfigError, match=r"--regions .*regions\.toml cannot be used: \[stt\] ja: must be"):
        config.region_table(Config(regions=str(path)), "")


def test_a_file_of_regions_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--regions .*nowhere cannot be read: no such file"):
        config.region_table(Config(regions=str(tmp_path / "nowhere")), "")


# -- files ----------------------------------------------------------------------------------------------------


def parse_number(text: str) -> int:
    return int(text)


def test_a_watched_file_keeps_its_last_good_value(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = secret(tmp_path, "1")
    watched = Watched(path, parse_number, "the number file")
    assert (watched(), watched()) == (1, 1)
    path.write_text("not yet whole")
    assert (watched(), watched()) == (1, 1)
    path.unlink()
    assert (watched(), watched()) == (1, 1)
    assert caplog.text.count("what it said before holds") == 2, "once a change, not once a call"
    path.write_text("2")
    assert watched() == 2


def test_a_watched_file_sees_a_replacement_of_equal_size(tmp_path: Path) -> None:
    """As Kubernetes changes mounted secrets: another file under the same name."""
    path = secret(tmp_path, "1")
    watched = Watched(path, parse_number, "the number file")
    config.write_atomically(path, "2")
    assert watched() == 2


def test_a_watched_file_must_be_good_at_first(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"the number file .*nowhere cannot be read: no such file"):
        Watched(tmp_path / "nowhere", parse_number, "the number file")
    with pytest.raises(ConfigError, match=r"the number file .* cannot be used"):
        Watched(secret(tmp_path, "x"), parse_number, "the number file")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        Watched(tmp_path / "binary", parse_number, "the number file")


def test_a_secret_that_others_may_read_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = secret(tmp_path, "1")
    Watched(path, parse_number, "the number file")
    assert caplog.text == ""
    path.chmod(0o640)
    with caplog.at_level(logging.WARNING):
        Watched(path, parse_number, "the number file")
    assert "others may read the number file" in caplog.text


def test_the_port_file_is_never_there_without_the_port(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script waits for it, and reads it at once."""
    made: list[tuple[str, str]] = []
    replace_file = Path.replace

    def replace_and_tell(draft: Path, path: Path) -> Path:
        made.append((path.name, draft.read_text()))
        return replace_file(draft, path)

    monkeypatch.setattr(Path, "replace", replace_and_tell)
    config.check_port_file(tmp_path / "port")
    assert os.listdir(tmp_path) == []
    config.write_atomically(tmp_path / "port", "50051\n")
    assert made == [("port", "50051\n")]


def test_the_port_file_of_an_earlier_run_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "port"
    path.write_text("1")
    config.check_port_file(path)
    assert os.listdir(tmp_path) == []
    with pytest.raises(ConfigError, match="cannot be written: no such file"):
        config.check_port_file(tmp_path / "nowhere" / "port")
    with pytest.raises(ConfigError, match="cannot be written: is a directory"):
        config.check_port_file(tmp_path)


def test_a_file_is_written_whole(tmp_path: Path) -> None:
    config.write_atomically(tmp_path / "port", "50051\n")
    assert os.listdir(tmp_path) == ["port"]
    assert (tmp_path / "port").read_text() == "50051\n"


# -- defaults of sessions -------------------------------------------------------------------------------------


def test_the_voice_goes_with_the_model() -> None:
    assert config.synthesis_defaults(Config()) == {"model": "lightning_v3.1", "voice_id": "magnus"}
    pro = Config(default_tts_model="lightning-v3.1-pro")
    assert config.synthesis_defaults(pro) == {"model": "lightning_v3.1_pro", "voice_id": "meher"}
    assert config.synthesis_defaults(Config(default_tts_model="lightning-v2")) == {"model": "lightning-v2"}
    chosen = replace(pro, default_voice="emily", default_tts_language="hi-IN")
    assert config.synthesis_defaults(chosen) == {
        "model": "lightning_v3.1_pro",
        "voice_id": "emily",
        "language_code": "hi-IN",
    }


def test_transcription_is_told_model_and_language() -> None:
    assert config.transcription_defaults(Config()) == {"model": "pulse", "language_code": "en"}


@pytest.mark.parametrize(
    ("changes", "flag"),
    [
        ({"default_stt_language": "no tag"}, "--default-stt-language"),
        ({"default_stt_model": "x" * 200}, "--default-stt-model"),
        ({"default_tts_language": "??"}, "--default-tts-language"),
        ({"default_voice": "bell\x07"}, "--default-voice"),
    ],
)
def test_defaults_that_no_session_could_have_are_refused(changes: dict[str, Any], flag: str) -> None:
    chosen = replace(Config(), **changes)
    with pytest.raises(ConfigError, match=flag):
        (config.synthesis_defaults(chosen), config.transcription_defaults(chosen))


# -- TLS ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (("tls_cert",), "TLS needs both"),
        (("tls_key",), "TLS needs both"),
        (("tls_client_ca",), "--tls-client-ca needs --tls-cert and --tls-key"),
        (("tls_cert", "tls_key"), "must be PEM files"),
    ],
)
def test_tls_files_that_do_not_fit(tmp_path: Path, names: tuple[str, ...], problem: str) -> None:
    path = secret(tmp_path, "no PEM")
    with pytest.raises(ConfigError, match=problem):
        config.tls_files(replace(Config(), **dict.fromkeys(names, path)))


def test_tls_files_that_are_not_there(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere.pem"
    with pytest.raises(ConfigError, match=r"--tls-cert .*nowhere\.pem cannot be read: no such file"):
        config.tls_files(Config(tls_cert=nowhere, tls_key=nowhere))


def test_tls_files_that_fit(certificates: Certificates) -> None:
    folder = certificates.folder
    chosen = Config(
        tls_cert=folder / "server.pem", tls_key=folder / "server.key", tls_client_ca=folder / "ca.pem"
    )
    assert config.tls_files(chosen) == tuple(map(certificates.read, ("server.pem", "server.key", "ca.pem")))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"tls_key": "client.key"}, r"--tls-key \S+client\.key is not the key of --tls-cert \S+server\.pem"),
        ({"tls_key": "locked.key"}, r"--tls-key \S+locked\.key has a password"),
        ({"tls_client_ca": "server.key"}, r"--tls-client-ca \S+server\.key holds no PEM certificate"),
    ],
)
def test_tls_files_that_do_not_belong_together(
    certificates: Certificates, changes: dict[str, str], problem: str
) -> None:
    names = {"tls_cert": "server.pem", "tls_key": "server.key", **changes}
    chosen = replace(Config(), **{name: certificates.folder / file for name, file in names.items()})
    with pytest.raises(ConfigError, match=problem):
        config.tls_files(chosen)


def test_without_tls_there_are_none() -> None:
    assert config.tls_files(Config()) is None
