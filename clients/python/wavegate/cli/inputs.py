"""What comes in: standard input without blocking the event loop, and a flow of text cut into utterances."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import io
import os
import re
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import BinaryIO, TypeVar, cast

import click

ItemT = TypeVar("ItemT")

_WAITING_ITEMS = 64


async def from_thread(make: Callable[[], Iterable[ItemT]]) -> AsyncIterator[ItemT]:
    """The items of an iterator that blocks, read in a thread that an interrupt does not wait for."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[tuple[ItemT] | Exception | None] = asyncio.Queue()
    room = threading.Semaphore(_WAITING_ITEMS)

    def put(item: tuple[ItemT] | Exception | None) -> None:
        loop.call_soon_threadsafe(queue.put_nowait, item)

    def read() -> None:
        try:
            for item in make():
                room.acquire()
                put((item,))
            put(None)
        except RuntimeError:
            return  # the loop is closed; nobody waits any more
        except Exception as exc:
            put(exc)

    threading.Thread(target=read, name="standard input", daemon=True).start()
    while (item := await queue.get()) is not None:
        if isinstance(item, Exception):
            raise item
        room.release()
        yield item[0]


def is_live(file: str) -> bool:
    """True if what comes may be made while it is read, as from a pipe; a file lies there as a whole."""
    return file == "-" or not os.path.isfile(file)


def standard_input() -> BinaryIO:
    """Standard input, of which a thread may be reading when the process ends.

    Without Python's buffer around it: that has a lock, and who holds it at the end brings the interpreter down.
    """
    if sys.stdin is None or sys.stdin.closed:
        raise click.UsageError("standard input is closed")
    try:
        return cast(BinaryIO, io.FileIO(sys.stdin.fileno(), closefd=False))
    except io.UnsupportedOperation:  # something else has been put in its place
        return sys.stdin.buffer


def read_text(stream: BinaryIO) -> Iterator[str]:
    """UTF-8 as it comes, whatever pieces it comes in."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    read1: Callable[[int], bytes] = getattr(stream, "read1", stream.read)
    done = 0
    try:
        while content := read1(4096):
            if text := decoder.decode(content):
                yield text
            done += len(content)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as exc:
        raise click.UsageError(
            f"the text on standard input is not UTF-8 (near byte {done + exc.start})"
        ) from exc


_LONG_CHARS = 1000
"""From here on an utterance ends with its sentence."""

_LONGEST_CHARS = 2000
"""And from here on with its word."""

_RUNS = re.compile(r"\s+|\S+")
_PARAGRAPH = re.compile(r"\n[^\S\n]*\n")
_SENTENCE_END = re.compile(r"[.!?…।。]['\")\]’”]*$")


class Utterances:
    """Cuts a flow of text into utterances: at blank lines, and where one becomes too long to be made in one piece.

    Text goes through as it comes; only the blank space at its end waits for what follows.
    """

    def __init__(self) -> None:
        self._blank = ""
        self._length = 0
        self._after_sentence = False

    def feed(self, text: str) -> Iterator[tuple[str, bool]]:
        """Pieces of text, each with whether an utterance ends behind it."""
        piece = ""
        for run in _RUNS.findall(self._blank + text):
            if run.isspace():
                self._blank = run
                continue
            if self._length and self._ends():
                yield piece, True
                piece, self._blank, self._length = "", "", 0
            piece += self._blank + run if self._length else run
            self._length += len(self._blank) + len(run)
            self._blank = ""
            self._after_sentence = _SENTENCE_END.search(run) is not None
        if piece:
            yield piece, False

    def _ends(self) -> bool:
        return self._blank != "" and (
            _PARAGRAPH.search(self._blank) is not None
            or (self._length >= _LONG_CHARS and self._after_sentence)
            or self._length >= _LONGEST_CHARS
        )

    def end(self) -> Iterator[tuple[str, bool]]:
        """The end of the last utterance, if it has begun."""
        if self._length:
            self._length, self._blank = 0, ""
            yield "", True


async def in_thread(call: Callable[..., ItemT], *arguments: object) -> ItemT:
    """What a call gives that may block for ever, in a thread that nothing waits for once this wait is cancelled.

    A thread of asyncio's own pool would be waited for at the end of the loop.
    """
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[ItemT] = loop.create_future()

    def report(result: ItemT | None, failure: BaseException | None) -> None:
        if outcome.done():
            return
        if failure is not None:
            outcome.set_exception(failure)
        else:
            outcome.set_result(cast(ItemT, result))

    def run() -> None:
        result, failure = None, None
        try:
            result = call(*arguments)
        except BaseException as exc:
            failure = exc
        with contextlib.suppress(RuntimeError):  # the loop is closed; nobody waits any more
            loop.call_soon_threadsafe(report, result, failure)

    threading.Thread(target=run, name="output", daemon=True).start()
    return await outcome
