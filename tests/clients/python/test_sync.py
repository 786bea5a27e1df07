"""The blocking twin, from the point of view of a program that has no event loop."""
# ruff: noqa: PT012 - where in a session's block it fails is the gateway's to choose

from __future__ import annotations

import inspect
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
import wavegate
from wavegate import control, errors, sync, synthesis, transcription

from tests.clients.python.fake_gateway import FakeGateway, text_of


@pytest.fixture
def gateway(threaded_gateway: FakeGateway) -> FakeGateway:
    return threaded_gateway


@pytest.fixture
def client(gateway: FakeGateway) -> Iterator[sync.Client]:
    with sync.Client(gateway.target) as client:
        yield client


def test_speaks(client: sync.Client) -> None:
    with client.synthesize(voice_id="magnus") as session:
        utterance = session.say("Hello there")
        assert text_of(b"".join(utterance.audio())) == "Hello there"
        assert isinstance(utterance.wait(), wavegate.UtteranceCompleted)
        tokens = session.say(piece for piece in ("token ", "by ", "token"))
        assert text_of(tokens.read()) == "token by token"
        assert session.update_settings(speed=1.5).state == "APPLIED"
        assert session.session_id.startswith("s-")
    assert session.ended is not None


def test_listens(client: sync.Client) -> None:
    with client.transcribe(language_code="en") as session:
        session.stream_audio([bytes(640)])
        session.send_audio(bytes(320))
        assert session.finalize().text == "heard 0 to 960"
        session.end()
        assert [t.text for t in session.finals()] == ["heard 0 to 960", "heard 960 to 960"]


def test_interrupts_from_another_thread(gateway: FakeGateway, client: sync.Client) -> None:
    gateway.hold.clear()
    with client.synthesize(voice_id="magnus") as session:
        utterance = session.say("A long story that nobody wants to hear.")
        heard = []
        for audio in utterance.audio():
            heard.append(audio)
            threading.Thread(target=session.cancel).start()
        assert text_of(b"".join(heard)) == "A long s"
        gateway.hold.set()
        assert isinstance(utterance.wait(), wavegate.UtteranceCancelled)


def test_leaves_a_loop_early(client: sync.Client) -> None:
    with client.synthesize(voice_id="magnus") as session:
        utterance = session.say("Hello there, friend")
        for _ in utterance.audio():
            break
        assert text_of(utterance.read()) == "ere, friend"


def test_raises_what_the_gateway_says(client: sync.Client) -> None:
    with pytest.raises(errors.InvalidRequestError), client.synthesize(voice_id="magnus", speed=9):
        pytest.fail("it cannot open")
    with pytest.raises(errors.SessionNotFoundError):
        client.get_session("nowhere")
    with pytest.raises(errors.UpstreamError), client.synthesize(voice_id="magnus") as session:
        session.say("[break]")


def test_ends_at_once_after_an_exception(gateway: FakeGateway, client: sync.Client) -> None:
    gateway.hold.clear()
    with pytest.raises(ZeroDivisionError), client.synthesize(voice_id="magnus") as session:
        session.say("Never to be finished, this one.")
        raise ZeroDivisionError


def test_controls_and_asks(client: sync.Client) -> None:
    with client.synthesize(voice_id="magnus") as session, client.settings_stream() as control:
        assert control.update_synthesis(session.session_id, speed=1.5).state == "APPLIED"
        assert [s.session_id for s in client.list_sessions()] == [session.session_id]
        client.close_session(session.session_id)
    assert len(list(client.list_voices())) == 5
    assert text_of(client.synthesize_once("Hello", voice_id="magnus").audio) == "Hello"
    assert client.transcribe_once(b"1234").text == "4 bytes"


def test_a_recording_that_is_too_large_is_no_limit_that_passes(gateway: FakeGateway) -> None:
    options = [("grpc.max_send_message_length", 100)]
    with sync.Client(gateway.target, options=options) as client:
        with pytest.raises(errors.InvalidRequestError, match="stream") as caught:
            client.transcribe_once(bytes(101))
        assert not caught.value.retryable


@pytest.mark.parametrize(
    ("blocking", "asynchronous"),
    [
        (sync.Client, wavegate.Client),
        (sync.SynthesisSession, synthesis.SynthesisSession),
        (sync.TranscriptionSession, transcription.TranscriptionSession),
        (sync.Utterance, synthesis.Utterance),
        (sync.SettingsStream, control.SettingsStream),
    ],
)
def test_has_every_method_with_the_same_parameters(blocking: type, asynchronous: type) -> None:
    for name, method in inspect.getmembers(asynchronous, inspect.isfunction):
        if name.startswith("_"):
            continue
        twin = getattr(blocking, name, None)
        assert twin is not None, f"{blocking.__name__} has no {name}"
        assert list(inspect.signature(twin).parameters) == list(inspect.signature(method).parameters), name


def test_an_interrupted_call_is_cancelled_and_the_program_ends(gateway: FakeGateway) -> None:
    """Ctrl-C in the middle of blocking audio ends the session on the gateway, and the process."""
    gateway.hold.clear()
    program = """
import signal, sys, threading, os
from wavegate.sync import Client
with Client(sys.argv[1]) as client, client.synthesize(voice_id="magnus") as session:
    for audio in session.say("A story without an end, it seems.").audio():
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
"""
    done = subprocess.run(
        [sys.executable, "-c", program, gateway.target],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "KeyboardInterrupt" in done.stderr
    assert done.returncode != 0
    deadline = threading.Event()
    for _ in range(1200):
        if gateway.cancelled_calls:
            break
        deadline.wait(0.05)
    assert gateway.cancelled_calls == 1
