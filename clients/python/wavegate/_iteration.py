"""One way to walk through what callers hand in: asynchronous or not, blocking or not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Iterator
from typing import TypeVar

ItemT = TypeVar("ItemT")


async def iterate(items: AsyncIterable[ItemT] | Iterable[ItemT]) -> AsyncGenerator[ItemT, None]:
    """The items in order. An ordinary iterator is asked in a worker thread, since it may block the loop.

    Closing this (see `contextlib.aclosing`) closes an asynchronous generator too: who is interrupted stops the source,
    and does not leave it to the garbage collector.
    """
    if isinstance(items, AsyncIterable):
        source = aiter(items)
        try:
            async for item in source:
                yield item
        finally:
            if isinstance(source, AsyncGenerator):
                await source.aclose()
    elif isinstance(items, list | tuple):
        for item in items:
            yield item
    else:
        iterator = iter(items)
        while (found := await asyncio.to_thread(_next, iterator)) is not None:
            yield found[0]


def _next(iterator: Iterator[ItemT]) -> tuple[ItemT] | None:
    # `StopIteration` cannot pass through a future.
    for item in iterator:
        return (item,)
    return None
