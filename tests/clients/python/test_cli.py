"""The command line: the pure parts, commands through click's runner, and real processes."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import itertools
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast

import click
import grpc
import numpy as np
import pytest
import soundfile
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from wavegate.audio import RawEncoding, RawFormat, wav_header
from wavegate.cli.app import app
from wavegate.cli.command import EXIT_CODES, Failure
from wavegate.cli.inputs import Utterances, from_thread, read_text
from wavegate.cli.output import Output
from wavegate.cli.plain_text import PlainText, sign_of_markdown
from wavegate.cli.playback import SpeakerSink, choose_sink, encoding_for, speakers_missing
from wavegate.cli.signals import SAME_S, Interruption
from wavegate.errors import WavegateError
from wavegate.events import SessionLimits, SessionMoved, SessionResumed, SessionStarted
from wavegate.recordings import open_audio
from wavegate.settings import AudioFormat

from tests.clients.python import fake_gateway
from tests.clients.python.fake_gateway import FakeGateway, audio_of, status, text_of


@pytest.fixture
def gateway(nowhere: Path, threaded_gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch) -> FakeGateway:
    """A fake gateway, as WAVEGATE_TARGET."""
    monkeypatch.setenv("WAVEGATE_TARGET", threaded_gateway.target)
    return threaded_gateway


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No gateway unless a test has one; files go to a directory of the test's own."""
    monkeypatch.setenv("WAVEGATE_TARGET", "127.0.0.1:1")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str, stdin: bytes | str | None = None) -> Result:
    return CliRunner().invoke(app, list(arguments), input=stdin)


def events(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


class TestUtterances:
    @staticmethod
    def cut(*pieces: str) -> list[str]:
        utterances = Utterances()
        fed = [part for piece in pieces for part in utterances.feed(piece)]
        whole, texts = "", []
        for text, ends in [*fed, *utterances.end()]:
            whole += text
            if ends:
                texts.append(whole)
                whole = ""
        assert not whole, "the last utterance ends"
        return texts

    def test_a_blank_line_ends_one(self) -> None:
        assert self.cut("One.\n", " \n", "\nTwo,\nstill ", "two.\n\n") == ["One.", "Two,\nstill two."]

    def test_pieces_go_through_as_they_come(self) -> None:
        assert list(Utterances().feed("Hel")) == [("Hel", False)]
        assert self.cut("Hel", "lo", " wor", "ld") == ["Hello world"]

    def test_nothing_is_nothing(self) -> None:
        assert self.cut() == self.cut("", "  ", "\n\n\n") == []

    def test_a_long_text_is_cut_behind_a_sentence(self) -> None:
        cut = self.cut("A sentence of some length. " * 200)
        assert len(cut) > 3
        assert all(text.endswith("length.") and 1000 <= len(text) < 1100 for text in cut[:-1])

    def test_a_text_without_sentences_is_cut_behind_a_word(self) -> None:
        cut = self.cut("word " * 1000)
        assert all(text.endswith("word") and 2000 <= len(text) < 2010 for text in cut[:-1])

    @given(st.lists(st.text(alphabet="ab .\n!"), max_size=30))
    def test_no_letter_is_lost_wherever_it_is_cut(self, pieces: list[str]) -> None:
        text = "".join(pieces)
        assert "".join("".join(self.cut(*pieces)).split()) == "".join(text.split())
        assert self.cut(*pieces) == self.cut(text), "how it arrives changes nothing"


class TestInputs:
    def test_text_is_decoded_across_reads(self) -> None:
        class Slow(io.BytesIO):
            def read1(self, size: int | None = -1) -> bytes:
                return self.read(1)

        assert "".join(read_text(Slow("héllo wörld €".encode()))) == "héllo wörld €"

    @pytest.mark.parametrize(("content", "at"), [(b"abc\xff", 3), (b"\xe2\x82", 0)])
    def test_what_is_no_utf8_is_a_sentence(self, content: bytes, at: int) -> None:
        with pytest.raises(click.UsageError, match="standard input is not UTF-8"):
            list(read_text(io.BytesIO(content)))

    async def test_a_thread_reads_what_blocks(self) -> None:
        assert [n async for n in from_thread(lambda: range(1000))] == list(range(1000))

        def broken() -> Iterator[int]:
            yield 1
            raise LookupError("gone")

        items = from_thread(broken)
        assert await anext(items) == 1
        with pytest.raises(LookupError, match="gone"):
            await anext(items)


class TestSay:
    def test_writes_a_wav_file(self, gateway: FakeGateway, nowhere: Path) -> None:
        result = run(
            "say", "Hello", "there", "-o", "a.wav", "--voice", "magnus", "--speed", "1.5", "--language", "en"
        )
        assert result.exit_code == 0, result.output
        assert result.stdout == ""
        assert "1 utterance, first audio after" in result.stderr
        assert "in a.wav" in result.stderr
        data, rate_hz = soundfile.read(nowhere / "a.wav", dtype="int16")
        assert (text_of(data.tobytes()), rate_hz) == ("Hello there", 24000)
        start = gateway.inputs("start")[0]
        assert (start.settings.voice_id, start.settings.speed, start.settings.language_code) == (
            "magnus",
            1.5,
            "en",
        )

    def test_text_from_stdin_is_cut_at_blank_lines(self, gateway: FakeGateway, nowhere: Path) -> None:
        result = run("say", "-o", "a.pcm", stdin="First one.\n\nSecond\none.\n")
        assert result.exit_code == 0, result.output
        assert text_of((nowhere / "a.pcm").read_bytes()) == "First one.Second\none."
        assert "2 utterances" in result.stderr

    @pytest.mark.parametrize(
        ("name", "option", "encoding"),
        [
            ("a.mp3", None, "MP3"),
            ("a.ulaw", None, "MULAW"),
            ("a.alaw", None, "ALAW"),
            ("a.wav", "mulaw", "MULAW"),
            ("a.raw", None, "LINEAR16"),
        ],
    )
    def test_the_name_says_the_encoding(
        self, gateway: FakeGateway, nowhere: Path, name: str, option: str | None, encoding: str
    ) -> None:
        options = ["--encoding", option] if option else []
        assert run("say", "abcd", "-o", name, "--rate", "8000", *options).exit_code == 0
        wanted = gateway.inputs("start")[0].audio_format
        assert wanted.sample_rate_hertz == 8000
        assert wanted.encoding == fake_gateway.types_pb2.AudioEncoding.Value(f"AUDIO_ENCODING_{encoding}")
        if name == "a.wav":
            assert soundfile.info(nowhere / name).subtype == "ULAW"
        else:
            assert (nowhere / name).read_bytes() == audio_of("abcd")

    def test_to_standard_output(self, gateway: FakeGateway) -> None:
        result = run("say", "Hello", "-o", "-")
        assert result.stdout_bytes[:4] == b"RIFF"
        assert result.stdout_bytes[44:] == audio_of("Hello")
        assert run("say", "Hello", "-o", "-", "--raw").stdout_bytes == audio_of("Hello")

    def test_without_speakers_or_a_name_it_is_speech_wav(self, gateway: FakeGateway, nowhere: Path) -> None:
        if speakers_missing() is None:
            pytest.skip("this machine has speakers")
        assert run("say", "Hello").exit_code == 0
        assert (nowhere / "speech.wav").exists()

    def test_json_carries_events_and_the_audio(self, gateway: FakeGateway) -> None:
        found = events(run("say", "Hello there", "--json"))
        assert [e["event"] for e in found] == [
            "session_started",
            "utterance_started",
            "audio_chunk",
            "audio_chunk",
            "utterance_completed",
            "session_ended",
        ]
        audio = b"".join(base64.b64decode(e["audio"]) for e in found if e["event"] == "audio_chunk")
        assert text_of(audio) == "Hello there"
        assert found[4]["metrics"]["time_to_first_audio_s"] == 0.005

    def test_json_beside_a_file_leaves_the_audio_out(self, gateway: FakeGateway) -> None:
        found = events(run("--json", "say", "Hello", "-o", "a.wav"))
        chunk = next(e for e in found if e["event"] == "audio_chunk")
        assert chunk["audio_bytes"] == 10
        assert "audio" not in chunk

    def test_other_settings_go_by_name(self, gateway: FakeGateway) -> None:
        assert (
            run("say", "x", "-o", "a.wav", "--set", "word_timings=on", "--set", 'extra={"a":1}').exit_code
            == 0
        )
        settings = gateway.inputs("start")[0].settings
        assert settings.word_timings
        assert settings.extra["a"] == 1

    def test_a_failed_utterance_is_a_failure_but_what_was_spoken_is_kept(
        self, gateway: FakeGateway, nowhere: Path
    ) -> None:
        result = run("say", "-o", "a.pcm", stdin="good\n\n[fail]\n\nbetter")
        assert result.exit_code == 5
        assert "the upstream is down" in result.stderr
        assert "try again in 3 s" in result.stderr
        assert "UPSTREAM_UNAVAILABLE" in result.stderr
        assert text_of((nowhere / "a.pcm").read_bytes()) == "goodbetter"

    @pytest.mark.parametrize(
        ("arguments", "sentence"),
        [
            (["x", "-o", "no/such/dir.wav"], "there is no directory no/such"),
            (["x", "-o", "."], "is a directory"),
            (["x", "-o", "a.txt"], "a.txt says nothing of its format"),
            (["x", "-o", "a.wav", "--encoding", "mp3"], "MP3 does not go into a WAV file"),
            (["x", "-o", "a.mp3", "--encoding", "alaw"], "a.mp3 stands for MP3, not ALAW"),
            (["x", "-o", "a.wav", "--play"], "choose one"),
            (["x", "-o", "-", "--json"], "either JSON or audio"),
            (["x", "--set", "sped=1"], "did you mean speed"),
            (["x", "--set", "speed=fast"], "speed cannot be 'fast'"),
            (["x", "--set", "speed=1", "--speed", "2"], "speed is given twice"),
            (["x", "--set", "content_filter=loud"], "content_filter is one of FLAG"),
            (["x", "--encoding", "opus"], "is not one of"),
            (["x", "--rate", "0"], "0 is not in the range"),
            (["  "], "there is nothing to say"),
            (["caf\udce9"], "the text is not UTF-8"),
            (["-5 degrees"], "goes behind --: wavegate say -- '-5 degrees'"),
            (["-5"], "goes behind --: wavegate say -- -5"),
            (["--vioce", "x", "hello"], "Did you mean '--voice'?"),
            (["x", "--target", "127.0.0.1"], "--target: '127.0.0.1' names no port: write 127.0.0.1:50051"),
            (["x", "--target", "http://a:1"], "--target: a target has no http:// in front: write a:1"),
            (["x", "--set", "speed"], "speed has no value: write speed=1.2"),
        ],
    )
    def test_wrong_use_is_a_sentence_before_anything_is_asked(
        self, arguments: list[str], sentence: str
    ) -> None:
        result = run("say", *arguments)
        assert result.exit_code == 2
        assert sentence in result.stderr.replace("\n", " ")

    def test_bad_text_on_stdin(self, gateway: FakeGateway) -> None:
        result = run("say", "-o", "a.wav", stdin=b"caf\xe9")
        assert result.exit_code == 2
        assert "standard input is not UTF-8" in result.stderr

    @pytest.mark.parametrize("text", ["", " \n\n "])
    def test_no_text_is_wrong_use_however_it_comes(
        self, gateway: FakeGateway, nowhere: Path, text: str
    ) -> None:
        for result in (run("say", "-o", "a.wav", stdin=text), run("say", "-o", "a.wav", text)):
            assert result.exit_code == 2
            assert "there is nothing to say" in result.stderr
        assert not (nowhere / "a.wav").exists()


def test_a_text_that_begins_with_a_dash_is_spoken_behind_two(gateway: FakeGateway, nowhere: Path) -> None:
    assert run("say", "-o", "a.pcm", "--", "-5 degrees").exit_code == 0
    assert text_of((nowhere / "a.pcm").read_bytes()) == "-5 degrees"


@pytest.mark.parametrize(
    "text",
    ["-hello there", "-h is aitch", "-o is an option", "-only joking", "-5 degrees", "- a\n- b", "-h\tx"],
)
def test_a_text_that_begins_with_a_dash_is_told_where_to_stand(text: str) -> None:
    for arguments in ([text], ["-o", "a.wav", text], ["-o", "a.wav", "--play", text]):
        result = run("say", *arguments)
        assert result.exit_code == 2
        assert f"a text that begins with a dash goes behind --: wavegate say -- '{text}'" in result.stderr


def test_what_is_no_text_may_begin_with_a_dash(gateway: FakeGateway, nowhere: Path) -> None:
    assert run("say", "-oa file.pcm", "--voice", "magnus", "one").exit_code == 0
    assert run("say", "-o", "-another file.pcm", "two").exit_code == 0
    assert text_of((nowhere / "a file.pcm").read_bytes()) == "one"
    assert text_of((nowhere / "-another file.pcm").read_bytes()) == "two"


@pytest.mark.parametrize("text", ["", " \n", "\x01", "\x7f \u200b"])
def test_a_text_of_nothing_that_is_heard_is_nothing_to_say(nowhere: Path, text: str) -> None:
    result = run("say", text, "-o", "n.wav")
    assert (result.exit_code, "there is nothing to say" in result.stderr) == (2, True)
    assert not (nowhere / "n.wav").exists()


def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAVEGATE_TARGET", "gateway")
    result = run("sessions")
    assert result.exit_code == 2
    assert "WAVEGATE_TARGET: 'gateway' names no port" in result.stderr


@pytest.mark.parametrize("token", ["a\nb", "gehéim"])
def test_a_token_that_no_header_takes_is_told(monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    monkeypatch.setenv("WAVEGATE_TOKEN", token)
    for arguments in (["voices"], ["say", "x", "-o", "a.wav"], ["demo"]):
        result = run(*arguments)
        assert result.exit_code == 2
        assert "WAVEGATE_TOKEN: the token holds a " in result.stderr
        assert token not in result.stderr


@pytest.mark.parametrize("content", ["", "# A page\n", "-----BEGIN PRIVATE KEY-----\n"])
def test_a_file_of_authorities_holds_a_certificate(nowhere: Path, content: str) -> None:
    (nowhere / "README.md").write_text(content)
    result = run("voices", "--ca-file", "README.md")
    assert (result.exit_code, "README.md holds no certificate (PEM)" in result.stderr) == (2, True)


class TestMarkdown:
    TEXT = """# Setup

This is **very** important: see the [docs](https://example.com/docs) and `make run`.
It goes
on.

- First item
- Second *item*, with text
1. One

```python
# no heading

x = 1
```
~~~
```
~~~

| name | value |
|---|---|
| a | 1 |

---

Really ![a logo](x.png)? 5 * 3 * 2, snake_case_name and <b>tags</b>."""
    SPOKEN = """Setup.

This is very important: see the docs and make run. It goes on.

First item.
Second item, with text.
1. One.

name, value.
a, 1.

Really a logo? 5 * 3 * 2, snake_case_name and tags.

"""

    def test_is_said_without_its_marks(self) -> None:
        plain = PlainText()
        assert "".join([*plain.feed(self.TEXT), *plain.end()]) == self.SPOKEN
        assert plain.blocks_of_code == 2

    @given(st.lists(st.integers(0, len(TEXT)), max_size=8).map(sorted))
    def test_however_it_comes(self, cuts: list[int]) -> None:
        plain = PlainText()
        ends = [0, *cuts, len(self.TEXT)]
        pieces = [self.TEXT[a:b] for a, b in itertools.pairwise(ends)]
        assert "".join([*itertools.chain(*map(plain.feed, pieces)), *plain.end()]) == self.SPOKEN

    @pytest.mark.parametrize(
        ("text", "spoken", "blocks_of_code"),
        [
            (
                "1. First\n\n    - nested a\n    - nested b\n\n2. Second\n",
                "1. First.\nnested a.\nnested b.\n\n2. Second.\n\n",
                0,
            ),
            ("- Item\n\n    Continuation paragraph.", "Item.\nContinuation paragraph.\n\n", 0),
            ("1.  **Install**\n\n    Run the installer", "1. Install.\nRun the installer.\n\n", 0),
            ("Do:\n- a\n\n\n\t- b\n\n  And c\n\nEnd\n", "Do:\na.\nb.\nAnd c.\n\nEnd\n\n", 0),
            ("1. Step\n\n    ```\n    ls\n\n    ls\n    ```\n\n    More\n", "1. Step.\nMore.\n\n", 1),
            ("- Item\n\n      code\n\nNo item\n\n    code\n", "Item.\n\nNo item\n\n", 2),
        ],
    )
    def test_indented_lines_belong_to_their_list_item(
        self, text: str, spoken: str, blocks_of_code: int
    ) -> None:
        for pieces in ([text], [*text]):
            plain = PlainText()
            assert "".join([*itertools.chain(*map(plain.feed, pieces)), *plain.end()]) == spoken
            assert plain.blocks_of_code == blocks_of_code

    def test_a_list_is_spoken_as_soon_as_another_block_begins(self) -> None:
        plain = PlainText()
        assert list(plain.feed("- Item\n\n")) == []
        assert list(plain.feed("N")) == ["Item.\n\n"]

    def test_a_line_break_parts_words(self) -> None:
        plain = PlainText()
        said = [*plain.feed("one<br>two<BR />three\n\n| a<br/>b | c |\n|---|---|\n"), *plain.end()]
        assert said == ["one two three\n\n", "a b, c.\n\n"]

    def test_a_line_break_takes_no_words_along(self) -> None:
        plain = PlainText()
        assert [*plain.feed("<br>\nHello **there**\n<br/>\n\n<br>\n\n"), *plain.end()] == ["Hello there\n\n"]

    @given(st.text(alphabet="ab *_`#[]()!|-\n~>1.", max_size=60))
    def test_nothing_breaks_it(self, text: str) -> None:
        plain = PlainText()
        said = "".join([*plain.feed(text), *plain.end()])
        assert set(said) <= set(text) | set(" .,\n")

    @pytest.mark.parametrize(
        ("text", "sign"),
        [
            ("# Setup", "a heading"),
            ("It is **very** late.", "emphasis"),
            ("See [the docs](https://example.com).", "a link"),
            ("Buy:\n- milk\n- bread\n", "a list"),
            ("1. One\n2. Two\n", "a list"),
            ("```\nx = 1\n```", "a block of code"),
            ("| a | b |\n|---|---|\n", "a table"),
            ("Run `make`.", "code"),
            ("Hello there. It is 5 * 3 * 2, or -1.", None),
            ("He left - as always - at 9.\n- Really?\n", None),
            ("#1 in the charts, and __init__ in snake_case_name.", None),
            ("", None),
        ],
    )
    def test_is_known_by_its_signs(self, text: str, sign: str | None) -> None:
        assert sign_of_markdown(text) == sign

    def test_an_option_leaves_its_marks_out(self, gateway: FakeGateway, nowhere: Path) -> None:
        result = run("say", "-o", "a.pcm", "--plain-text", stdin=self.TEXT)
        assert result.exit_code == 0, result.output
        spoken = text_of((nowhere / "a.pcm").read_bytes())
        assert spoken.split() == "".join(self.SPOKEN.split("\n\n")).split()
        assert "2 blocks of code left out" in result.stderr
        assert "looks like Markdown" not in result.stderr

    def test_without_the_option_a_line_says_that_there_is_one(
        self, gateway: FakeGateway, nowhere: Path
    ) -> None:
        for arguments, stdin in (([], "It is **very** late."), (["It is **very** late."], None)):
            result = run("say", "-o", "a.pcm", *arguments, stdin=stdin)
            assert "looks like Markdown (emphasis); --plain-text says it without" in result.stderr
            assert text_of((nowhere / "a.pcm").read_bytes()) == "It is **very** late."

    def test_a_text_of_marks_alone_is_nothing_to_say(self, gateway: FakeGateway) -> None:
        result = run("say", "-o", "a.pcm", "--plain-text", "```\nx = 1\n```")
        assert (result.exit_code, "there is nothing to say" in result.stderr) == (2, True)


class TestRecognize:
    def test_sends_the_file_as_it_is(self, gateway: FakeGateway, nowhere: Path) -> None:
        (nowhere / "a.mp3").write_bytes(b"12345")
        result = run("recognize", "a.mp3", "--model", "pulse-pro", "--set", "word_timings=true")
        assert (result.exit_code, result.stdout) == (0, "5 bytes\n")
        (request,) = gateway.recognized
        assert request.settings.model == "pulse-pro"
        assert request.settings.word_timings
        assert not request.HasField("audio_format")

    def test_takes_a_pipe_raw_samples_and_an_address(self, gateway: FakeGateway) -> None:
        result = run("recognize", "-", "--encoding", "mulaw", "--rate", "8000", stdin=b"123")
        assert result.stdout == "3 bytes\n"
        assert gateway.recognized[-1].audio_format.sample_rate_hertz == 8000
        assert run("recognize", "https://example.com/a.wav").exit_code == 0
        assert gateway.recognized[-1].uri == "https://example.com/a.wav"

    def test_what_nobody_can_hear_is_not_sent(self, gateway: FakeGateway, nowhere: Path) -> None:
        page, header = b"<!DOCTYPE html><html>", wav_header(AudioFormat("LINEAR16", 16000), 0)
        (nowhere / "page.mp3").write_bytes(page)
        result = run("recognize", "page.mp3")
        assert (result.exit_code, gateway.recognized) == (2, [])
        assert result.stderr.startswith("wavegate: page.mp3 is an HTML page, no recording")
        result = run("recognize", "-", stdin=header)
        assert (result.exit_code, gateway.recognized) == (2, [])
        assert result.stderr == "wavegate: standard input holds no audio\n"
        for content in (header + b"\1\1", b"\0\0\0\x20ftypM4A ", b"RIFF\x10\0\0\0AVI LIST", header[:20]):
            assert run("recognize", "-", stdin=content).stdout == f"{len(content)} bytes\n"
        described = run("recognize", "-", "--rate", "8000", stdin=page)  # samples may look like anything
        assert described.stdout == f"{len(page)} bytes\n"

    def test_tells_it_in_json(self, gateway: FakeGateway) -> None:
        (found,) = events(run("recognize", "-", "--json", stdin=b"123"))
        assert (found["event"], found["text"]) == ("recognition", "3 bytes")

    @pytest.mark.parametrize(
        ("arguments", "stdin", "sentence"),
        [
            (["missing.wav"], None, "missing.wav: No such file or directory"),
            ([""], None, "the name of the file is empty"),
            (["-"], b"", "standard input is empty"),
            (["http://a/b.wav", "--rate", "8000"], None, "leave --rate and --encoding out"),
        ],
    )
    def test_wrong_use(self, arguments: list[str], stdin: bytes | None, sentence: str) -> None:
        result = run("recognize", *arguments, stdin=stdin)
        assert result.exit_code == 2
        assert sentence in result.stderr


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class TestTerminal:
    @staticmethod
    def attached(monkeypatch: pytest.MonkeyPatch) -> Terminal:
        """Both streams, on a terminal of 40 columns. (Not a fixture: pytest takes the streams after those.)"""
        terminal = Terminal()
        monkeypatch.setattr(sys, "stdout", terminal)
        monkeypatch.setattr(sys, "stderr", terminal)
        monkeypatch.setenv("COLUMNS", "40")
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("NO_COLOR", "1")
        return terminal

    WORDS = "incomprehensible and unpronounceable words all over the place"

    def test_lines_break_between_words(self, monkeypatch: pytest.MonkeyPatch) -> None:
        terminal = self.attached(monkeypatch)
        output = Output(as_json=False)
        output.note(self.WORDS)
        output.line(self.WORDS)
        output.note(f"   spoken  {self.WORDS}", indent=11)
        Failure(f"no\n  {self.WORDS}", 1).show()
        lines = terminal.getvalue().splitlines()
        assert " ".join(" ".join(lines).split()) == (
            f"{self.WORDS} {self.WORDS} spoken {self.WORDS} wavegate: no {self.WORDS}"
        )
        assert max(map(len, lines)) <= 40
        step = lines.index(next(line for line in lines if "spoken" in line))
        assert lines[step + 1].startswith(" " * 11 + "unpron")

    def test_a_word_longer_than_a_line_stays_whole(self, monkeypatch: pytest.MonkeyPatch) -> None:
        terminal = self.attached(monkeypatch)
        word = "s-" + "8f14e45f" * 8
        Output(as_json=False).note(f"trace {word} of it")
        assert word in terminal.getvalue().splitlines()

    def test_the_first_column_of_a_table_is_whole(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is what other commands are given."""
        terminal = self.attached(monkeypatch)
        session = "s-ccfbc1fd675dad26404ddc3bdf4cf894"
        row = (session, "transcription", "active", "lightning_v3.1", "magnus", "12", "3 s")
        columns = ("session", "kind", "state", "model", "voice/language", "revision", "age")
        Output(as_json=False).table(columns, [row])
        plain = re.sub(r"\x1b\[[0-9;]*m", "", terminal.getvalue())
        assert plain.splitlines() == [
            session,
            "  kind transcription, state active,",
            "  model lightning_v3.1, voice/language",
            "  magnus, revision 12, age 3 s",
        ]
        terminal.truncate(0)
        monkeypatch.setenv("COLUMNS", "120")
        Output(as_json=False).table(columns, [row])
        head, body = re.sub(r"\x1b\[[0-9;]*m|\x00", "", terminal.getvalue()).splitlines()
        assert head.split() == [*columns]
        assert body.split()[:6] == [*row[:6]]

    def test_a_sentence_on_wrong_use_breaks_between_words_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        terminal = self.attached(monkeypatch)
        with pytest.raises(SystemExit) as ended:
            app(["sessions", "--target", "gateway"])
        assert ended.value.code == 2
        lines = terminal.getvalue().splitlines()
        assert lines[-3:] == [
            "Error: --target: 'gateway' names no",
            "port: write gateway:50051, or",
            "wherever it listens",
        ]


def test_whoever_watches_is_told_what_was_survived(capsys: pytest.CaptureFixture[str]) -> None:
    """On stderr, since stdout is data."""
    output = Output(as_json=False)
    output.event(SessionResumed("s-1", 0.43, 2, WavegateError("gone")))
    started = SessionStarted(
        "s-2", AudioFormat(), None, 1, SessionLimits(None, None, 30.0, 0, 0, 0, 0, 0), "", False, 0, ""
    )
    output.event(SessionMoved(started, "s-1", "b:50051", 0.0))
    output.event(SessionMoved(started, "s-1", "b:50051", 2.5))
    assert capsys.readouterr() == (
        "",
        "the connection was lost for 0.4 s; nothing is missing\n"
        "moved to another session at b:50051\n"
        "moved to another session at b:50051; 2.5 s of audio were lost\n",
    )


class TestExitCodes:
    @pytest.mark.parametrize(
        ("code", "reason", "exit_code"),
        [
            (grpc.StatusCode.UNAVAILABLE, "GATEWAY_DRAINING", 3),
            (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID", 4),
            (grpc.StatusCode.UNAUTHENTICATED, "CALLER_UNAUTHENTICATED", 4),
            (grpc.StatusCode.FAILED_PRECONDITION, "UPSTREAM_CREDENTIAL", 5),
            (grpc.StatusCode.RESOURCE_EXHAUSTED, "UPSTREAM_CAPACITY", 6),
            (grpc.StatusCode.INTERNAL, "GATEWAY_BUG", 1),
            (grpc.StatusCode.FAILED_PRECONDITION, "RECONNECT_REQUIRED", 4),
            (grpc.StatusCode.FAILED_PRECONDITION, "UPSTREAM_GONE", 5),
            (grpc.StatusCode.PERMISSION_DENIED, "CALLER_FORBIDDEN", 4),
            (grpc.StatusCode.RESOURCE_EXHAUSTED, "GATEWAY_CAPACITY", 6),
            (grpc.StatusCode.INTERNAL, "UPSTREAM_PROTOCOL", 5),
            (grpc.StatusCode.UNAVAILABLE, "UPSTREAM_STALLED", 5),
            (grpc.StatusCode.DEADLINE_EXCEEDED, "SESSION_IDLE", 1),
            (grpc.StatusCode.DEADLINE_EXCEEDED, "", 3),
            (grpc.StatusCode.UNIMPLEMENTED, "", 4),
        ],
    )
    def test_scripts_can_tell_failures_apart(
        self, gateway: FakeGateway, code: grpc.StatusCode, reason: str, exit_code: int
    ) -> None:
        gateway.refuse = status(code, reason, "so it is")
        gateway.refuse_all = True
        result = run("say", "x", "-o", "a.wav")
        assert result.exit_code == exit_code
        assert result.stderr.splitlines()[0] == "wavegate: so it is"

    def test_no_gateway(self) -> None:
        for arguments in (["say", "x"], ["voices"], ["sessions"], ["settings", "s"], ["demo"]):
            result = run(*arguments)
            assert result.exit_code == 3, arguments
            assert "no gateway at 127.0.0.1:1; start one with `make run`" in result.stderr

    def test_fields_are_told_one_by_one_and_in_json(self, gateway: FakeGateway) -> None:
        result = run("say", "x", "--speed", "9", "--json")
        assert result.exit_code == 4
        assert result.stderr == ("wavegate: --speed: must be between 0.5 and 2.0\n  reason: FIELD_INVALID\n")
        error = events(result)[-1]
        assert (error["event"], error["reason"]) == ("error", "FIELD_INVALID")
        assert error["field_violations"][0]["field"] == "start.settings.speed"

    def test_fields_are_named_as_they_were_given(self, gateway: FakeGateway) -> None:
        result = run("say", "x", "--set", "speed=9", "-o", "a.wav")
        assert (result.exit_code, result.stderr.splitlines()[0]) == (
            4,
            "wavegate: --set speed: must be between 0.5 and 2.0",
        )

    @pytest.mark.parametrize(
        ("field", "arguments", "named"),
        [
            ("start.settings.voice_id", ["--voice", "x"], "--voice"),
            ("start.settings.language_code", ["--language", "xx"], "--language"),
            ("start.settings.model", ["--model", "x"], "--model"),
            ("start.audio_format.sample_rate_hertz", ["--rate", "11"], "--rate"),
            ("start.audio_format.encoding", ["--encoding", "mulaw"], "--encoding"),
            ("start.settings.voice_id", [], "--set voice_id"),
            ("text.utterance_id", [], "text.utterance_id"),
        ],
    )
    def test_every_option_has_its_own_name(
        self, gateway: FakeGateway, field: str, arguments: list[str], named: str
    ) -> None:
        gateway.refuse = status(
            grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID", "no", fields={field: "is no good"}
        )
        result = run("say", "x", "-o", "a.wav", *arguments)
        assert result.stderr.splitlines()[0] == f"wavegate: {named}: is no good"

    def test_the_page_has_the_table(self) -> None:
        page = (Path(__file__).parents[3] / "docs" / "command-line.md").read_text(encoding="utf-8")
        rows = [f"| {code} | {text} |" for code, text in EXIT_CODES]
        assert "\n".join(["| code | meaning |", "| --- | --- |", *rows, ""]) in page

    def test_they_are_documented(self) -> None:
        assert "3    no gateway there" in run("--help").stdout
        assert run("--version").exit_code == 0


class TestListen:
    @pytest.fixture
    def recording(self, nowhere: Path) -> Path:
        path = nowhere / "a.flac"
        soundfile.write(path, np.zeros((48000, 2)), 48000)
        return path

    def test_prints_finals(self, gateway: FakeGateway, recording: Path) -> None:
        result = run("listen", str(recording), "--language", "en", "--set", "diarization=true")
        assert result.exit_code == 0, result.output
        assert result.stdout == "heard 0 to 32000\n"
        assert "first words after" in result.stderr
        assert gateway.inputs("start")[0].settings.diarization

    def test_converts_to_what_is_asked_for(self, gateway: FakeGateway, recording: Path) -> None:
        result = run("listen", str(recording), "--encoding", "mulaw", "--rate", "8000", "--paced")
        assert result.stdout == "heard 0 to 8000\n"

    def test_json_carries_partials_too(self, gateway: FakeGateway, recording: Path) -> None:
        found = events(run("listen", str(recording), "--json"))
        transcripts = [e for e in found if e["event"] == "transcript"]
        assert len(transcripts) > 5
        assert [t["is_final"] for t in transcripts[-2:]] == [False, True]
        assert found[-1]["event"] == "session_ended"

    def test_takes_a_container_from_a_pipe(self, gateway: FakeGateway, recording: Path) -> None:
        assert run("listen", "-", stdin=recording.read_bytes()).stdout == "heard 0 to 32000\n"

    def test_takes_raw_samples_from_a_pipe_as_they_are(self, gateway: FakeGateway) -> None:
        result = run("listen", "-", "--encoding", "mulaw", "--rate", "8000", stdin=b"\x7f" * 999)
        assert result.stdout == "heard 0 to 999\n"
        assert gateway.inputs("start")[0].audio_format.sample_rate_hertz == 8000

    @pytest.mark.parametrize(
        ("name", "content", "sentence"),
        [
            ("missing.wav", None, "missing.wav: No such file or directory"),
            ("letter.wav", b"Dear Sir or Madam", "letter.wav is text, no recording"),
            ("page.mp3", b"<!DOCTYPE html><html>", "page.mp3 is an HTML page, no recording"),
            ("empty.wav", b"", "empty.wav is empty"),
            (".", None, ".: Is a directory"),
            ("", None, "the name of the file is empty"),
            ("https://example.com/a.wav", None, "wavegate recognize https://example.com/a.wav"),
        ],
    )
    def test_bad_files_need_no_gateway(
        self, nowhere: Path, name: str, content: bytes | None, sentence: str
    ) -> None:
        if content is not None:
            (nowhere / name).write_bytes(content)
        result = run("listen", name)
        assert result.exit_code == 2
        assert sentence in result.stderr

    def test_bad_pipes(self, gateway: FakeGateway) -> None:
        result = run("listen", "-", stdin=bytes(range(256)))
        assert result.exit_code == 2
        assert result.stderr.splitlines() == [
            "wavegate: standard input is no recording of a known kind",
            "  known by their content are WAV, FLAC, Ogg (Opus, Vorbis, FLAC), MP3, AIFF, AU, CAF and W64",
            "  raw samples have to be described, as in: wavegate listen - --raw s16le,16000",
        ]
        result = run("listen", "-", stdin=b"")
        assert (result.exit_code, "standard input is empty" in result.stderr) == (2, True)

    def test_kinds_that_are_not_decoded_say_how_to_convert_them(
        self, gateway: FakeGateway, nowhere: Path
    ) -> None:
        video = b"\0\0\0\x20ftypM4A " + bytes(99)
        (nowhere / "my talk.m4a").write_bytes(video)
        result = run("listen", "my talk.m4a")
        assert result.exit_code == 2
        assert result.stderr.splitlines() == [
            "wavegate: my talk.m4a is an MP4 file (M4A, AAC), which is not decoded here",
            "  convert it first: ffmpeg -i 'my talk.m4a' 'my talk.wav' && wavegate listen 'my talk.wav'",
        ]
        assert "... | ffmpeg -i - -f wav - | wavegate listen -" in run("listen", "-", stdin=video).stderr
        (nowhere / "vm.gsm").write_bytes(bytes(range(200, 256)) * 9)
        assert "convert it first: ffmpeg -i vm.gsm vm.wav" in run("listen", "vm.gsm").stderr

    @pytest.mark.parametrize("name", ["a.wav", "a.raw", "a.pcm", "a.ulaw", "a.alaw"])
    @pytest.mark.parametrize("encoding", [None, "linear16", "mulaw", "alaw"])
    def test_what_say_writes_is_heard(
        self, gateway: FakeGateway, nowhere: Path, name: str, encoding: str | None
    ) -> None:
        """With what `say` tells to add where there is no header to tell it."""
        how = ["--encoding", encoding] if encoding else []
        said = run("say", "abcd" * 20, "-o", name, *how)
        if said.exit_code:
            assert "change one of the two" in said.stderr
            return
        audio = (nowhere / name).read_bytes()
        told = re.search(r"\(to hear it: wavegate listen (.*)\)", said.stderr)
        assert (told is None) == (name == "a.wav")
        result = run("listen", *(told[1].split() if told else [name]))
        assert result.exit_code == 0, result.output
        with open_audio(audio, AudioFormat("LINEAR16", 16000), raw=_described(told)) as source:
            assert result.stdout == f"heard 0 to {len(b''.join(source))}\n"
        if told:  # without it, a sentence
            assert "raw samples have to be described" in run("listen", name).stderr

    def test_raw_samples_may_be_described(self, gateway: FakeGateway, nowhere: Path) -> None:
        (nowhere / "a").write_bytes(bytes(48000 * 4 * 2))
        assert run("listen", "a", "--raw", "f32le,48000,2").stdout == "heard 0 to 32000\n"
        assert (
            run("listen", "-", "--raw", "F32LE,48000,2", stdin=bytes(48000 * 8)).stdout
            == "heard 0 to 32000\n"
        )
        result = run("listen", "a", "--raw", "mulaw,8000", "--encoding", "mulaw", "--rate", "8000")
        assert result.stdout == f"heard 0 to {48000 * 8}\n"
        for value, sentence in [
            ("s16", "it takes an encoding, a rate and perhaps a number of channels: s16le,44100,2"),
            ("s12,8000", "'s12' is no encoding of raw samples"),
            ("s16le,fast", "'fast' is no rate in Hz; write it as in s16le,44100,2"),
            ("s16le,16k", "'16k' is no rate in Hz"),
            ("s16le,8000,two", "'two' is no number of channels"),
            ("s16le,8000,", "'' is no number of channels"),
            ("s16le,-8000", "a rate of -8000 Hz cannot be"),
            ("s16le,0", "a rate of 0 Hz cannot be"),
        ]:
            result = run("listen", "a", "--raw", value)
            assert (result.exit_code, sentence in result.stderr) == (2, True), value

    def test_files_of_samples_need_no_conversion_where_they_are_as_asked_for(
        self, gateway: FakeGateway, nowhere: Path
    ) -> None:
        (nowhere / "call.ulaw").write_bytes(b"\x7f" * 999)
        assert (
            run("listen", "call.ulaw", "--encoding", "mulaw", "--rate", "8000").stdout == "heard 0 to 999\n"
        )

    def test_one_channel_may_be_chosen(self, gateway: FakeGateway, recording: Path) -> None:
        assert run("listen", str(recording), "--channel", "2").stdout == "heard 0 to 32000\n"
        result = run("listen", str(recording), "--channel", "3")
        assert (result.exit_code, "has 2 channels: there is no channel 3" in result.stderr) == (2, True)

    def test_what_is_left_out_is_told(self, gateway: FakeGateway, nowhere: Path, recording: Path) -> None:
        (nowhere / "cut.wav").write_bytes(wav_header(AudioFormat("LINEAR16", 16000), 64000) + bytes(32000))
        result = run("listen", "cut.wav")
        assert (result.exit_code, result.stdout) == (0, "heard 0 to 32000\n")
        assert (
            "warning: cut.wav is cut off: its header tells of 2.00 s of audio, 1.00 s are there"
            in result.stderr
        )

    def test_a_fifo_is_heard(self, gateway: FakeGateway, nowhere: Path, recording: Path) -> None:
        os.mkfifo(nowhere / "fifo.wav")
        writer = threading.Thread(target=lambda: (nowhere / "fifo.wav").write_bytes(recording.read_bytes()))
        writer.start()
        assert run("listen", "fifo.wav").stdout == "heard 0 to 32000\n"
        writer.join()

    def test_what_the_shell_calls_a_file_is_heard(self, gateway: FakeGateway, recording: Path) -> None:
        """Process substitution, and /dev/stdin of a pipe."""
        wavegate = f"{sys.executable} -m wavegate.cli"
        for script in (f"{wavegate} listen <(cat a.flac)", f"cat a.flac | {wavegate} listen /dev/stdin"):
            result = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
            assert result.stdout == "heard 0 to 32000\n", result.stderr

    def test_ogg_opus_cannot_be_paced(self) -> None:
        for options, sentence in [
            (["--paced"], "cannot be paced"),
            (["--raw", "s16le,8000"], "cannot be raw samples"),
            (["--channel", "1"], "cannot be taken apart"),
        ]:
            result = run("listen", "a.opus", "--encoding", "ogg_opus", *options)
            assert (result.exit_code, sentence in result.stderr) == (2, True)


def _described(told: re.Match[str] | None) -> RawFormat | None:
    """What `say` told of raw samples, as the client has it."""
    if told is None:
        return None
    encoding, rate_hz = told[1].split()[-1].split(",")
    return RawFormat(cast(RawEncoding, encoding), int(rate_hz))


class TestLiveSessions:
    @pytest.fixture
    def live(self, gateway: FakeGateway) -> Iterator[str]:
        """A session that somebody else has opened."""
        from wavegate.sync import Client

        with (
            Client() as client,
            client.synthesize(voice_id="magnus", speed=1.0, labels={"team": "a"}) as session,
        ):
            yield session.session_id

    def test_are_listed(self, live: str) -> None:
        line = run("sessions").stdout.rstrip("\n").split("\t")
        assert line == [live, "synthesis", "active", "-", "magnus", "1", "-"]
        assert events(run("sessions", "--json"))[0]["labels"] == {"team": "a"}
        assert run("sessions", "--label", "team=a").stdout.count("\n") == 1
        none = run("sessions", "--label", "team=b")
        assert (none.stdout, "no live sessions" in none.stderr) == ("", True)
        assert run("sessions", "--label", "team").exit_code == 2

    def test_settings_are_shown_and_changed(self, live: str) -> None:
        assert run("settings", live).stdout == "voice_id=magnus\nspeed=1\n"
        result = run("settings", live, "speed=1.25", "max_buffer_delay=300ms", "--immediate")
        assert result.stdout.splitlines() == [
            "speed: in place",
            "max_buffer_delay: in place",
            "applied at revision 2 (0 ms)",
        ]
        assert run("settings", live).stdout == "voice_id=magnus\nspeed=1.25\nmax_buffer_delay_s=0.3\n"
        assert run("settings", live, "--reset", "max_buffer_delay_s").exit_code == 0
        assert run("settings", live).stdout == "voice_id=magnus\nspeed=1.25\n"

    def test_validation_changes_nothing(self, live: str) -> None:
        result = run("settings", live, "speed=2", "--validate")
        assert "would be accepted at revision 1" in result.stdout
        assert "speed=1\n" in run("settings", live).stdout

    def test_refusals(self, live: str) -> None:
        result = run("settings", live, "speed=9")
        assert result.exit_code == 4
        assert result.stderr.startswith("wavegate: speed: must be between 0.5 and 2.0\n")
        assert run("settings", live, "speed=1", "--expect-revision", "7").exit_code == 4
        missing = run("settings", "nowhere", "speed=1")
        assert (missing.exit_code, "no session nowhere" in missing.stderr) == (4, True)

    @pytest.mark.parametrize(
        ("arguments", "sentence"),
        [
            (["sped=1"], "did you mean speed"),
            (["speed"], "speed has no value: write speed=1.2"),
            (["max_buffer_delay"], "max_buffer_delay has no value: write max_buffer_delay=0.3"),
            (["sped"], "did you mean speed"),
            (["now!"], "write NAME=VALUE"),
            (["diarization=true"], "there is no setting 'diarization'"),
            (["--reset", "sped"], "did you mean speed"),
            (["speed=1", "--immediate", "--no-reconnect"], "choose one"),
        ],
    )
    def test_wrong_use(self, live: str, arguments: list[str], sentence: str) -> None:
        result = run("settings", live, *arguments)
        assert result.exit_code == 2
        assert sentence in result.stderr.replace("\n", " ")


def test_voices(gateway: FakeGateway) -> None:
    lines = run("voices", "--model", "m1").stdout.splitlines()
    assert lines[0].split("\t") == ["voice-0", "Voice 0", "en hi", "m1", "gender:female"]
    assert len(lines) == 5
    assert events(run("voices", "--json"))[4]["voice_id"] == "voice-4"


class TestDemo:
    def test_goes_through_all_of_it(self, gateway: FakeGateway, nowhere: Path) -> None:
        result = run("demo", "--fast", "-o", "demo.wav")
        assert result.exit_code == 0, result.output
        for step in (
            "speaking",
            "first audio",
            "settings",
            "spoken",
            "interrupted",
            "listening",
            "understood",
        ):
            assert step in result.stderr
        rows = dict(line.split("\t") for line in result.stdout.splitlines())
        assert rows["  of that upstream"] == "4 ms"
        assert "listening: final transcript" in rows
        assert soundfile.info(nowhere / "demo.wav").frames > 200
        assert gateway.inputs("update_settings")[0].settings.voice_id == "voice-1"
        kinds = [
            (kind, request.text.utterance_id if kind == "text" else "")
            for request in gateway.requests
            if (kind := request.WhichOneof("input")) in ("text", "update_settings")
        ]
        before, after = kinds[: (at := kinds.index(("update_settings", "")))], kinds[at + 1 :]
        assert len({name for _, name in before}) == 1
        assert before[0] != after[0], "nothing of the second half is sent before the change of its voice"
        assert gateway.inputs("cancel")

    @pytest.mark.parametrize("name", ["demo.mp3", "demo.raw", "demo.pcm", "demo.ulaw"])
    def test_keeps_a_wav_file_under_no_other_name(
        self, gateway: FakeGateway, nowhere: Path, name: str
    ) -> None:
        result = run("demo", "--fast", "-o", name)
        assert result.exit_code == 2
        assert f"the demo keeps a WAV file: {name} does not end in .wav" in result.stderr
        assert not (nowhere / name).exists()

    def test_tells_it_in_json(self, gateway: FakeGateway) -> None:
        found = events(run("demo", "--fast", "--json"))
        assert found[-1]["event"] == "summary"
        assert found[-1]["first_audio_upstream_s"] == 0.004
        assert {e["event"] for e in found} >= {"audio_chunk", "settings_ack", "transcript"}


class TestSpeakers:
    class Device:
        """What sounddevice offers, without a device."""

        def __init__(self) -> None:
            self.played = bytearray()
            self.log: list[str] = []

        def check_output_settings(self, **_: Any) -> None:
            pass

        def RawOutputStream(self, **options: Any) -> TestSpeakers.Device:
            self.log.append(f"open {options['samplerate']} {options['dtype']}")
            return self

        def write(self, audio: bytes) -> None:
            self.played += audio

        def __getattr__(self, name: str) -> Any:
            return lambda: self.log.append(name)

    @pytest.fixture
    def device(self, monkeypatch: pytest.MonkeyPatch) -> TestSpeakers.Device:
        device = self.Device()
        monkeypatch.setitem(sys.modules, "sounddevice", device)
        return device

    def test_play(self, gateway: FakeGateway, device: Device) -> None:
        result = run("say", "Hello", "--play")
        assert result.exit_code == 0, result.output
        assert text_of(bytes(device.played)) == "Hello"
        assert device.log == ["open 24000 int16", "start", "stop", "close"]
        assert result.stderr.rstrip().endswith(", played")

    def test_fall_silent_at_a_failure(self, gateway: FakeGateway, device: Device) -> None:
        assert run("say", "--play", stdin="first\n\n[break]").exit_code == 5
        assert device.log[-2:] == ["abort", "close"]

    def test_are_the_default_where_there_are_any(self, device: Device) -> None:
        assert isinstance(choose_sink(None, play=False, raw=False, encoding=None), SpeakerSink)
        with pytest.raises(click.UsageError, match="MULAW cannot be played"):
            choose_sink(None, play=True, raw=False, encoding="MULAW")

    def test_are_missing_in_a_sentence(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "sounddevice", None)
        result = run("say", "x", "--play")
        assert result.exit_code == 2
        assert "playing needs the package sounddevice" in result.stderr


def test_a_name_without_an_encoding_leaves_the_choice() -> None:
    assert encoding_for("a.wav", None) is None
    assert encoding_for("-", "MULAW") == "MULAW"
    assert encoding_for(None, None) is None


class TestInterruption:
    """Signals as a person and as programs send them, at given times."""

    class Clock:
        now_s = 100.0

        def __call__(self) -> float:
            return self.now_s

    @pytest.fixture
    def clock(self) -> Clock:
        return self.Clock()

    @pytest.fixture
    async def interruption(self, clock: Clock) -> Interruption:
        return Interruption(Output(as_json=False), clock)

    async def test_signals_that_follow_each_other_at_once_are_one(
        self, interruption: Interruption, clock: Clock
    ) -> None:
        """`timeout` sends two, and a second one would cut."""
        interruption.watch()
        interruption.input_may_end()
        for _ in range(3):
            interruption.on_signal(signal.SIGTERM)
            clock.now_s += SAME_S / 4
        await interruption.until_told(asyncio.Event().wait())  # type: ignore[arg-type]
        assert interruption.signum == signal.SIGTERM
        clock.now_s += SAME_S
        interruption.on_signal(signal.SIGINT)
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(0)
        assert interruption.signum == signal.SIGTERM, "the first one counts"

    async def test_without_an_input_the_first_one_cuts(self, interruption: Interruption) -> None:
        interruption.watch()
        interruption.on_signal(signal.SIGINT)
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(0)

    async def test_what_fails_while_the_input_is_taken_is_raised(self, interruption: Interruption) -> None:
        async def fail() -> None:
            raise LookupError("gone")

        with pytest.raises(LookupError, match="gone"):
            await interruption.until_told(fail())

        async def items() -> AsyncIterator[int]:
            yield 1
            raise LookupError("gone")

        cut = interruption.cut(items())
        assert await anext(cut) == 1
        with pytest.raises(LookupError, match="gone"):
            await anext(cut)

    async def test_an_input_that_never_ends_is_cut(self, interruption: Interruption) -> None:
        interruption.watch()
        interruption.input_may_end()
        closed = []

        async def items() -> AsyncIterator[int]:
            try:
                for number in itertools.count():
                    if number == 3:
                        await asyncio.Event().wait()
                    yield number
            finally:
                closed.append(True)

        found = []
        async for item in interruption.cut(items()):
            found.append(item)
            if item == 2:
                interruption.on_signal(signal.SIGTERM)
        assert (found, closed) == ([0, 1, 2], [True])

    async def test_who_leaves_early_waits_for_nothing(self, interruption: Interruption) -> None:
        async def items() -> AsyncIterator[int]:
            for number in itertools.count():
                yield number

        async with contextlib.aclosing(interruption.cut(items())) as cut:
            assert await anext(cut) == 0
            assert await anext(cut) == 1


class TestProcesses:
    """What only a real process shows: streaming, signals, pipes that close."""

    @staticmethod
    def start(*arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "wavegate.cli", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ,
            **options,
        )

    @staticmethod
    def wait_for(condition: Any) -> None:
        deadline_s = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline_s
            time.sleep(0.02)

    @pytest.mark.parametrize(
        "command",
        [
            "voices",
            "voices --json",
            "listen hello.wav",
            "say hi -o -",
            "say hi -o hi.wav --json",
            "recognize hello.wav",
            "sessions",
            "demo --fast",
        ],
    )
    def test_a_closed_standard_output_is_a_sentence(
        self, gateway: FakeGateway, nowhere: Path, command: str
    ) -> None:
        recording = b"\1\0" * 1600
        (nowhere / "hello.wav").write_bytes(wav_header(AudioFormat("LINEAR16", 16000), 3200) + recording)
        done = subprocess.run(
            ["sh", "-c", f'"$0" -m wavegate.cli {command} >&-', sys.executable],
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, b"standard output is closed" in done.stderr) == (2, True), done.stderr
        assert b"Traceback" not in done.stderr

    def test_a_file_needs_no_standard_output(self, gateway: FakeGateway, nowhere: Path) -> None:
        command = ["sh", "-c", '"$0" -m wavegate.cli say hi -o hi.pcm >&-', sys.executable]
        subprocess.run(command, capture_output=True, timeout=60, check=True)
        assert text_of((nowhere / "hi.pcm").read_bytes()) == "hi"

    def test_text_streams_before_it_ends_and_audio_too(self, gateway: FakeGateway) -> None:
        process = self.start("say", "-o", "-")
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"Hello")
        process.stdin.flush()
        self.wait_for(lambda: gateway.inputs("text"))
        process.stdin.write(b" there\n\nand")
        process.stdin.flush()
        assert process.stdout.read(44 + 22)[44:] == audio_of("Hello there")
        out, err = process.communicate(b" more", timeout=60)
        assert (process.returncode, out) == (0, audio_of("and more"))
        assert b"2 utterances" in err

    def test_speaks_into_its_own_ears(self, gateway: FakeGateway) -> None:
        speaking = self.start("say", "What goes around comes around", "-o", "-")
        listening = subprocess.run(
            [sys.executable, "-m", "wavegate.cli", "listen", "-"],
            stdin=speaking.stdout,
            capture_output=True,
            timeout=60,
            check=True,
        )
        speaking.communicate(timeout=60)
        samples = len("What goes around comes around") * 16000 // 24000
        assert listening.stdout.decode().startswith("heard 0 to ")
        assert int(listening.stdout.split()[-1]) // 2 == pytest.approx(samples, abs=2)

    def test_an_interrupt_ends_it_quietly_with_130(self, gateway: FakeGateway) -> None:
        gateway.hold.clear()
        process = self.start("say", "A story without an end, it seems.", "-o", "a.pcm")
        self.wait_for(lambda: gateway.sent_chunks)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 130
        assert err.decode().splitlines()[-1] == "wavegate: interrupted"
        assert b"Traceback" not in err
        self.wait_for(lambda: gateway.cancelled_calls)

    def test_being_terminated_completes_the_file(self, gateway: FakeGateway, nowhere: Path) -> None:
        gateway.hold.clear()
        process = self.start("say", "A story without an end, it seems.", "-o", "a.wav")
        self.wait_for((nowhere / "a.wav").exists)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 143, err
        data, _ = soundfile.read(nowhere / "a.wav", dtype="int16")
        assert "A story without an end, it seems.".startswith(text_of(data.tobytes()))

    def test_an_interrupt_while_it_waits_for_text(self, gateway: FakeGateway) -> None:
        process = self.start("say", "-o", "a.pcm")
        self.wait_for(lambda: gateway.inputs("start"))
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130

    def test_a_signal_after_the_end_of_the_input_cuts_nothing_either(self, gateway: FakeGateway) -> None:
        gateway.hold.clear()
        process = self.start("listen", "-", "--rate", "16000")
        assert process.stdin is not None
        process.stdin.write(bytes(3200))
        process.stdin.close()
        self.wait_for(lambda: gateway.inputs("end_session"))
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert b"The input ends here" in process.stderr.readline()
        gateway.release()
        assert process.stdout is not None
        assert process.stdout.read() == b"heard 0 to 3200\n"
        assert process.wait(timeout=60) == 130

    def test_an_open_pipe_at_another_rate_ends_without_a_complaint(self, gateway: FakeGateway) -> None:
        """A thread still waits for the pipe then, and has a resampler in its hands."""
        process = self.start("listen", "-")
        assert process.stdin is not None
        process.stdin.write(wav_header(AudioFormat("LINEAR16", 24000), None) + bytes(48000))
        process.stdin.flush()
        self.wait_for(lambda: gateway.inputs("audio"))
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.wait(timeout=60) == 130
        assert process.stdout.read().startswith(b"heard 0 to ")
        err = process.stderr.read().decode().splitlines()
        assert err[0].startswith("The input ends here")
        assert (len(err), err[-1]) == (3, "wavegate: interrupted"), err
        process.stdin.close()

    def test_an_interrupt_while_a_fifo_is_read_for_recognition(
        self, gateway: FakeGateway, nowhere: Path
    ) -> None:
        os.mkfifo(nowhere / "fifo.wav")
        process = self.start("recognize", "fifo.wav")
        with (nowhere / "fifo.wav").open("wb"):  # opens once the other side reads
            process.send_signal(signal.SIGINT)
            try:
                assert process.wait(timeout=60) == 130
            finally:
                process.kill()

    def test_a_file_that_is_paced_ends_where_it_is(self, gateway: FakeGateway, nowhere: Path) -> None:
        soundfile.write(nowhere / "a.wav", np.zeros(16000 * 600), 16000)
        process = self.start("listen", "a.wav", "--paced")
        self.wait_for(lambda: gateway.inputs("audio"))
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 130
        assert out.startswith(b"heard 0 to ")

    def test_the_first_signal_ends_the_text_of_a_pipe_and_the_second_cuts(
        self, gateway: FakeGateway, nowhere: Path
    ) -> None:
        gateway.hold.clear()
        process = self.start("say", "-o", "a.pcm")
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(b"A story without an end,")
        process.stdin.flush()
        self.wait_for(lambda: gateway.inputs("text"))
        process.send_signal(signal.SIGTERM)
        assert b"The input ends here" in process.stderr.readline()
        self.wait_for((nowhere / "a.pcm").exists)
        time.sleep(SAME_S)  # sooner it would be taken for the first one
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 143, err
        assert err.decode().splitlines()[-1] == "wavegate: terminated"
        assert text_of((nowhere / "a.pcm").read_bytes()) == "A story "

    def test_text_that_came_before_the_signal_is_spoken_whole(
        self, gateway: FakeGateway, nowhere: Path
    ) -> None:
        process = self.start("say", "-o", "a.pcm")
        assert process.stdin is not None
        process.stdin.write(b"A story without an end,")
        process.stdin.flush()
        self.wait_for(lambda: gateway.inputs("text"))
        process.send_signal(signal.SIGINT)
        process.stdin.write(b" it seems.")
        process.stdin.flush()
        _, err = process.communicate(timeout=60)
        assert process.returncode == 130, err
        assert text_of((nowhere / "a.pcm").read_bytes()) == "A story without an end, it seems."

    def test_a_pipe_that_nobody_reads_does_not_hold_up_the_end(self, gateway: FakeGateway) -> None:
        gateway.chunk_chars = 2000
        process = self.start("say", "many words " * 9000, "-o", "-")
        assert process.stdout is not None
        process.stdout.read(1)
        sent = -1
        while sent != gateway.sent_chunks:  # until nothing moves any more
            sent = gateway.sent_chunks
            time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 143
        process.stdout.close()

    def test_a_fifo_that_nobody_opens_does_not_hold_up_the_end(
        self, gateway: FakeGateway, nowhere: Path
    ) -> None:
        os.mkfifo(nowhere / "a.wav")
        process = self.start("say", "Hello there", "-o", "a.wav")
        try:
            self.wait_for(lambda: gateway.sent_chunks)
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=60) == 130
        finally:
            process.kill()

    def test_a_fifo_that_is_no_longer_read_does_not_either(self, gateway: FakeGateway, nowhere: Path) -> None:
        gateway.chunk_chars = 2000
        os.mkfifo(nowhere / "a.wav")
        process = self.start("say", "many words " * 9000, "-o", "a.wav")
        try:
            with (nowhere / "a.wav").open("rb", buffering=0) as reader:
                assert reader.read(4) == b"RIFF"
                sent = -1
                while sent != gateway.sent_chunks:  # until nothing moves any more
                    sent = gateway.sent_chunks
                    time.sleep(0.3)
                process.send_signal(signal.SIGTERM)
                assert process.wait(timeout=60) == 143
        finally:
            process.kill()

    def test_a_fifo_gets_what_a_file_gets(self, gateway: FakeGateway, nowhere: Path) -> None:
        os.mkfifo(nowhere / "a.wav")
        process = self.start("say", "Hello there", "-o", "a.wav")
        with (nowhere / "a.wav").open("rb") as reader:
            content = reader.read()
        assert process.wait(timeout=60) == 0
        assert (content[:4], content[44:]) == (b"RIFF", audio_of("Hello there"))

    def test_a_reader_that_goes_ends_it_quietly(self, gateway: FakeGateway) -> None:
        gateway.chunk_chars = 2000
        process = self.start("say", "-o", "-")
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"many words " * 50_000)
        process.stdin.close()
        process.stdout.read(100)
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
        assert process.wait(timeout=60) == 141

    def test_a_session_closed_from_outside_does_not_wait_for_more_text(self, gateway: FakeGateway) -> None:
        from wavegate.sync import Client

        process = self.start("say", "-o", "a.wav")
        assert process.stdin is not None
        process.stdin.write(b"Hello")
        process.stdin.flush()
        self.wait_for(lambda: gateway.inputs("text"))
        with Client() as client:
            client.close_session(next(iter(gateway.sessions)))
        assert process.wait(timeout=60) == 1
        assert process.stderr is not None
        assert b"ended from outside" in process.stderr.read()

    def test_a_terminal_sees_partials_and_a_pipe_the_finals(
        self, gateway: FakeGateway, nowhere: Path
    ) -> None:
        soundfile.write(nowhere / "a.wav", np.zeros(16000), 16000)
        terminal, other_end = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-m", "wavegate.cli", "listen", "a.wav", "--paced"],
            stdout=subprocess.PIPE,
            stderr=other_end,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "80"},
        )
        os.close(other_end)
        seen = b""
        with contextlib.suppress(OSError):  # what a terminal says at its end
            while content := os.read(terminal, 4096):
                seen += content
        os.close(terminal)
        out, _ = process.communicate(timeout=60)
        assert (process.returncode, out) == (0, b"heard 0 to 32000\n")
        assert b"heard 0 to 16000" in seen
        assert b"first words after" in seen
        assert b"heard 0 to 32000\r\n" not in seen

    def test_data_goes_to_stdout_and_the_rest_does_not(self, gateway: FakeGateway) -> None:
        process = self.start("--json", "say", "Hello", "-o", "a.wav")
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        assert all(json.loads(line)["event"] for line in out.splitlines())
        assert err == b""


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("options", [[], ["--paced"]])
def test_the_first_signal_ends_the_input_of_listen_and_prints_what_comes(
    gateway: FakeGateway, signum: signal.Signals, options: list[str]
) -> None:
    """As `arecord … | wavegate listen -` needs it: Ctrl-C reaches both."""
    process = TestProcesses.start("listen", "-", "--rate", "16000", *options)
    assert process.stdin is not None
    process.stdin.write(bytes(3200))
    process.stdin.flush()
    TestProcesses.wait_for(lambda: gateway.inputs("audio"))
    process.send_signal(signum)
    process.stdin.write(bytes(640))  # what was on its way
    process.stdin.flush()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signum
    assert out == b"heard 0 to 3840\n"
    assert b"The input ends here" in err
    assert b"first words after" in err
    assert b"Traceback" not in err
