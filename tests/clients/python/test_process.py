"""Clients in programs that fork, and in programs with one event loop after another."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
import wavegate
from wavegate import sync

from tests.clients.python.fake_gateway import FakeGateway, text_of

FORKING = """
import os, signal, sys
import wavegate
from wavegate.sync import Client

def child(*steps):
    "Take each step in a forked process, which a step that hangs ends by a signal; the exit code is 7."
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        for step in steps:
            try:
                print("child:", step(), flush=True)
            except Exception as exc:
                print(f"child: {type(exc).__name__}: {exc}", flush=True)
        sys.exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7

def voices(client):
    return len(list(client.list_voices()))

def speak(client):
    with client.synthesize(voice_id="magnus") as session:
        return session.say("Hello there").read().decode("utf-16-le")

target = sys.argv[1]
"""
REFUSAL = "RuntimeError: this process was forked after its parent had used wavegate"


@pytest.fixture
def gateway(threaded_gateway: FakeGateway) -> FakeGateway:
    return threaded_gateway


def run(gateway: FakeGateway, program: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", FORKING + program, gateway.target],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "never awaited" not in done.stderr
    return done.stdout.splitlines()


def test_a_client_that_was_not_used_before_the_fork_works_after_it(gateway: FakeGateway) -> None:
    program = "client = Client(target)\nchild(lambda: speak(client))\nprint(speak(client))"
    assert run(gateway, program) == ["child: Hello there", "Hello there"]


def test_closing_every_client_before_the_fork_does_not_help(gateway: FakeGateway) -> None:
    program = """
with Client(target) as client:
    print(speak(client))
child(lambda: speak(Client(target)), lambda: speak(client), client.close)
"""
    parents, *childs, closed = run(gateway, program)
    assert (parents, closed) == ("Hello there", "child: None")
    assert all(line.startswith(f"child: {REFUSAL}") for line in childs), childs


def test_forked_processes_do_not_crash(gateway: FakeGateway) -> None:
    """As one of four would in the fork handlers of gRPC's core, before it runs a line."""
    program = """
with Client(target) as client, client.synthesize(voice_id="magnus") as session:
    for _ in range(12):
        child()
    print(session.say("Hello there").read().decode("utf-16-le"))
"""
    assert run(gateway, program) == ["Hello there"]


def test_after_a_fork_in_mid_use_everything_is_a_sentence_and_the_parent_goes_on(
    gateway: FakeGateway,
) -> None:
    program = """
with Client(target) as client, client.synthesize(voice_id="magnus") as session:
    utterance = session.say("Hello there")
    child(
        lambda: voices(client),
        lambda: voices(Client(target)),
        utterance.read,
        lambda: session.say("x"),
        lambda: next(iter(session)),
        lambda: next(utterance.audio()),
        client.close,
    )
    print(utterance.read().decode("utf-16-le"), session.ended)
"""
    *childs, parents = run(gateway, program)
    assert parents == "Hello there None"
    assert childs.pop() == "child: None", "there is nothing that it could close"
    assert len(childs) == 6
    assert all(line.startswith(f"child: {REFUSAL}") for line in childs), childs
    assert "gunicorn: in post_fork" in childs[0]


def test_a_forked_process_leaves_its_parents_sessions_alone(gateway: FakeGateway) -> None:
    """Leaving the block in the child ends nothing, and does not wait."""
    program = """
import contextlib
stack = contextlib.ExitStack()
client = stack.enter_context(Client(target))
session = stack.enter_context(client.synthesize(voice_id="magnus"))
control = stack.enter_context(client.settings_stream())
child(stack.close)
print(session.say("Hello there").read().decode("utf-16-le"))
stack.close()
"""
    assert run(gateway, program) == ["child: None", "Hello there"]


def test_asynchronous_clients_say_the_same(gateway: FakeGateway) -> None:
    program = """
import asyncio

async def count(client):
    return len([v async for v in client.list_voices()])

client = wavegate.Client(target)
asyncio.run(count(client))
child(lambda: asyncio.run(count(client)), lambda: asyncio.run(count(wavegate.Client(target))))
print(asyncio.run(count(client)))
"""
    *childs, parents = run(gateway, program)
    assert parents == "5"
    assert len(childs) == 2
    assert all(line.startswith(f"child: {REFUSAL}") for line in childs), childs


async def count_voices(client: wavegate.Client) -> int:
    return len([voice async for voice in client.list_voices()])


def test_one_client_in_one_event_loop_after_another(gateway: FakeGateway) -> None:
    client = wavegate.Client(gateway.target)

    async def speak() -> str:
        async with client.synthesize(voice_id="magnus") as session:
            return text_of(await (await session.say("Hello there")).read())

    for _ in range(3):
        assert asyncio.run(count_voices(client)) == 5
        assert asyncio.run(speak()) == "Hello there"
    asyncio.run(client.close())
    assert asyncio.run(count_voices(client)) == 5, "a client that was closed connects again"
    asyncio.run(client.close())


@pytest.fixture
def other_loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


async def test_one_client_in_two_event_loops_at_once_is_a_sentence(
    gateway: FakeGateway, other_loop: asyncio.AbstractEventLoop
) -> None:
    client = wavegate.Client(gateway.target)
    theirs = asyncio.run_coroutine_threadsafe(count_voices(client), other_loop)
    assert await asyncio.wrap_future(theirs) == 5
    with pytest.raises(RuntimeError, match="belongs to another event loop, which is not closed"):
        await count_voices(client)
    with pytest.raises(RuntimeError, match=r"use wavegate\.sync"):
        async with client.synthesize(voice_id="magnus"):
            pass
    await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(client.close(), other_loop))


def test_blocking_clients_close_and_connect_again(gateway: FakeGateway) -> None:
    client = sync.Client(gateway.target)
    for _ in range(2):
        with client:
            assert len(list(client.list_voices())) == 5
