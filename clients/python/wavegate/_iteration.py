"""One way to walk through what callers hand in: asynchronous or not, blocking or not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import TypeVar

ItemT = TypeVar("ItemT")


async def iterate(items: AsyncIterable[ItemT] | Iterable[ItemT]) -> AsyncIterator[ItemT]:
    """The items in order. An ordinary iterator is asked in a worker thread, since it may block the loop."""
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
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
