"""What callers hand in is walked through in one way, whatever it is."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing

import pytest
from wavegate._iteration import iterate


async def collected(items: object) -> list[object]:
    return [item async for item in iterate(items)]  # type: ignore[arg-type]


async def test_any_kind_of_source() -> None:
    async def asynchronous() -> AsyncIterator[int]:
        yield 1
        yield 2

    assert await collected(asynchronous()) == [1, 2]
    assert await collected([1, 2]) == [1, 2]
    assert await collected((1, 2)) == [1, 2]
    assert await collected(n for n in (1, 2)) == [1, 2]
    assert await collected(iter(())) == []
    assert await collected(iter([None, False])) == [None, False]


async def test_an_ordinary_iterator_is_asked_in_another_thread() -> None:
    def threads() -> Iterator[int]:
        yield threading.get_ident()

    assert await collected(threads()) != [threading.get_ident()]


async def test_what_a_source_raises_comes_out() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise LookupError("gone")

    items = iterate(broken())
    assert await anext(items) == 1
    with pytest.raises(LookupError, match="gone"):
        await anext(items)


async def test_leaving_early_closes_the_source() -> None:
    closed = False

    async def source() -> AsyncIterator[int]:
        nonlocal closed
        try:
            yield 1
            yield 2
        finally:
            closed = True

    held = source()  # so that the garbage collector does not do it
    async with aclosing(iterate(held)) as items:
        async for _ in items:
            break
    assert closed
