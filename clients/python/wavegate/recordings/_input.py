"""Bytes that come in order: a file and a pipe read in the same way, so that both know the same."""

from __future__ import annotations

import select
from typing import BinaryIO

__all__ = ["Input"]

_READ_BYTES = 64 * 1024


class Input:
    """A stream of bytes that is read forward only, whether it could seek or not.

    Reads block as long as the stream does. Raises `OSError` where the stream does.
    """

    def __init__(self, stream: BinaryIO) -> None:
        # A buffered stream waits until a read is complete, unless it is asked for what is there.
        self._read_once = getattr(stream, "read1", None) or stream.read
        self._stream = stream
        self._buffer = bytearray()
        self._kept: bytearray | None = None
        self._ended = False
        self.position = 0
        """Bytes consumed so far."""

    @property
    def waiting_bytes(self) -> int:
        """Bytes that can be read without asking the stream for more."""
        return len(self._buffer)

    @property
    def ended(self) -> bool:
        """True once every byte of the stream is consumed; asks the stream for one more if it has to."""
        return not self.peek(1)

    def peek(self, count: int) -> bytes:
        """Return the next `count` bytes without consuming them, fewer only at the end."""
        while len(self._buffer) < count and self._more():
            pass
        return bytes(self._buffer[:count])

    def find(self, wanted: bytes, start: int = 0) -> int:
        """Return where `wanted` is among the waiting bytes, from `start` on, or -1."""
        return self._buffer.find(wanted, start)

    def grow(self) -> bool:
        """Wait for more bytes to be there to peek at. False at the end of the stream."""
        return self._more()

    def read(self, count: int) -> bytes:
        """Return the next `count` bytes, fewer only at the end."""
        content = self.peek(count)
        self._consume(len(content))
        return content

    def read_some(self, limit: int = _READ_BYTES) -> bytes:
        """Return what is there, at most `limit` bytes; nothing only at the end."""
        return self.read(min(max(len(self._buffer), len(self.peek(1))), limit))

    def skip(self, count: int) -> int:
        """Consume `count` bytes and return how many there were."""
        left = count
        while left > 0 and (content := self.read_some(min(left, _READ_BYTES))):
            left -= len(content)
        return count - left

    def keep(self) -> None:
        """Remember what is consumed from here on, for `go_back`."""
        self._kept = bytearray()

    def go_back(self) -> None:
        """Give back what was consumed since `keep`."""
        assert self._kept is not None
        self.position -= len(self._kept)
        self._buffer[:0] = self._kept
        self._kept = None

    def forget(self) -> None:
        """Remember no longer what is consumed."""
        self._kept = None

    def _consume(self, count: int) -> None:
        if self._kept is not None:
            self._kept += self._buffer[:count]
        del self._buffer[:count]
        self.position += count

    def _more(self) -> bool:
        if self._ended:
            return False
        content: bytes | None
        while (content := self._read_once(_READ_BYTES)) is None:  # a pipe that does not block, and is empty
            select.select([self._stream], [], [])
        self._buffer += content
        self._ended = not content
        return not self._ended
