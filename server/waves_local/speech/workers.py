"""Processes that are warm before they are needed.

A `WarmProcess` loads something slow once (a speech library with its models) and then, for each connection,
forks a child that has it at hand. Parent and child talk in frames over a socket pair:

    parent                         warm process                   child
    connect() --- one end ------>  fork() ---------------------->  serve(socket)
    Connection <============== frames, back-pressure by the socket ==============>

- A child is born in about 2 ms, shares the loaded pages, and begins in the state the warm process had: nothing
  leaks from one connection into the next, and equal input gives equal output.
- Closing the connection ends the child: its next read finds the end, its next write fails.
- A dead child is a `SpeechProcessError` for one connection. A dead warm process is started again.
- When the parent dies, the warm process finds its control socket closed, and ends as well.

The warm process stays single-threaded, because a fork copies one thread only.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import os
import signal
import socket
import struct
import subprocess
import sys
import traceback
import weakref
from collections.abc import Callable
from typing import BinaryIO

_ALIVE = b"+"
"""The frame kind of a child's first breath."""
ERROR = b"!"
"""The frame kind of a child that failed; its payload is the reason."""

_HEADER = struct.Struct("<cI")  # kind, length of the payload in bytes
# What may wait in each direction, about half a second of audio: nobody works far ahead of a slow reader, and many
# who begin at once take turns early.
_SOCKET_BUFFER_BYTES = 16 * 1024
_FULL_CONTROL_SOCKET_DELAY_S = 0.01

Serve = Callable[["Channel"], None]

_START = "import sys; from waves_local.speech.workers import main; main(sys.argv[1], int(sys.argv[2]))"


class SpeechProcessError(RuntimeError):
    """The process that does the speech work failed or ended. The request is lost; a new one may be made."""


class Channel:
    """The child's end of a connection: blocking reads and writes of frames."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._file: BinaryIO = sock.makefile("rb")

    def read(self) -> tuple[bytes, bytes] | None:
        """The next frame as (kind, payload); None when the parent has closed."""
        header = self._file.read(_HEADER.size)
        if len(header) < _HEADER.size:
            return None
        kind, length = _HEADER.unpack(header)
        payload = self._file.read(length)
        return (kind, payload) if len(payload) == length else None

    def write(self, kind: bytes, payload: bytes = b"") -> None:
        """Raises `BrokenPipeError` when the parent has closed. Blocks while the parent does not read."""
        self._socket.sendall(_HEADER.pack(kind, len(payload)) + payload)


class Connection:
    """The parent's end of a connection. One reader and one writer at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, kind: bytes, payload: bytes = b"") -> None:
        try:
            self._writer.write(_HEADER.pack(kind, len(payload)) + payload)
            await self._writer.drain()
        except ConnectionError as error:
            raise _ended() from error

    async def receive(self) -> tuple[bytes, bytes]:
        """The next frame. Raises `SpeechProcessError` where the child failed or ended."""
        try:
            kind, length = _HEADER.unpack(await self._reader.readexactly(_HEADER.size))
            payload = await self._reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise _ended() from error
        if kind == ERROR:
            raise SpeechProcessError(payload.decode())
        return kind, payload

    def close(self) -> None:
        """End the child. Safe to call twice."""
        self._writer.transport.abort()


def _ended() -> SpeechProcessError:
    return SpeechProcessError("The speech process ended unexpectedly; its last words are on standard error.")


class WarmProcess:
    """Forks children that serve connections.

    `module` is imported in the new process; its `load()` does the slow part and returns the function that serves
    one connection in a child.
    """

    def __init__(self, module: str) -> None:
        self._module = module
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._stop: Callable[[], object] | None = None

    def __repr__(self) -> str:
        state = "RUNNING" if self._process is not None and self._process.poll() is None else "STOPPED"
        return f"<WarmProcess {self._module} {state}>"

    def start(self) -> None:
        """Begin to load, unless it is loading or loaded. Returns at once."""
        if self._process is not None and self._process.poll() is None:
            return
        self.close()
        control, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                [sys.executable, "-c", _START, self._module, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # audio may go there
                # An interrupt typed at a terminal is for the parent, which may still want its last transcript.
                start_new_session=True,
                env=os.environ
                | {
                    "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
                    # numpy's thread pool would make the warm process multi-threaded.
                    "OPENBLAS_NUM_THREADS": "1",
                    "OMP_NUM_THREADS": "1",
                },
            )
        control.setblocking(False)
        self._control = control
        self._stop = weakref.finalize(self, _stop, self._process, control)

    async def connect(self) -> Connection:
        """A new child, which lives. While the process still loads, this waits for it.

        A process that has died is started again, once. Raises `SpeechProcessError` when that does not help.
        """
        for _attempt in range(2):
            self.start()
            process, control = self._process, self._control
            assert control is not None
            try:
                return await _connect(control)
            except (SpeechProcessError, ConnectionError):
                # Others may have noticed first and have started another.
                if self._process is process:
                    self.close()
        raise SpeechProcessError("The speech process cannot be started; standard error says why.")

    def close(self) -> None:
        """Stop forking. Connections that are open live on. Safe to call twice; `start` starts again."""
        if self._stop is not None:
            self._stop()
        self._process = self._control = self._stop = None


async def _connect(control: socket.socket) -> Connection:
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER_BYTES)
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER_BYTES)
            await _hand_over(control, theirs)
        reader, writer = await asyncio.open_unix_connection(sock=ours, limit=_SOCKET_BUFFER_BYTES)
    except BaseException:
        ours.close()
        raise
    connection = Connection(reader, writer)
    try:
        await connection.receive()
    except BaseException:
        connection.close()
        raise
    return connection


async def _hand_over(control: socket.socket, end: socket.socket) -> None:
    while True:
        if control.fileno() < 0:
            raise ConnectionResetError("The process was stopped meanwhile.")
        try:
            socket.send_fds(control, [_ALIVE], [end.fileno()])
            return
        except BlockingIOError:
            # Hundreds are waiting for it to load.
            await asyncio.sleep(_FULL_CONTROL_SOCKET_DELAY_S)


def _stop(process: subprocess.Popen[bytes], control: socket.socket) -> None:
    control.close()
    process.kill()  # it holds nothing that would have to be put away
    process.wait()


def main(module: str, control_fd: int) -> None:
    """The warm process: load, then fork a child for each socket that comes in."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children are reaped by the kernel
    control = socket.socket(fileno=control_fd)
    control.set_inheritable(False)
    serve: Serve = importlib.import_module(module).load()
    gc.collect()
    gc.freeze()  # the collector would otherwise write to pages that children share
    while True:
        message, fds, _flags, _address = socket.recv_fds(control, 1, 1)
        if not message:
            return
        # Where the machine has no room for another process, closing the socket tells the parent.
        with socket.socket(fileno=fds[0]) as sock, contextlib.suppress(BlockingIOError):
            if os.fork() == 0:
                control.close()
                _run_child(serve, sock)


def _run_child(serve: Serve, sock: socket.socket) -> None:
    """Never returns: a child must not go on as the warm process."""
    status = 1
    try:
        channel = Channel(sock)
        try:
            channel.write(_ALIVE)
            serve(channel)
            status = 0
        except (BrokenPipeError, ConnectionResetError):
            status = 0  # the parent has closed: the work is no longer wanted
        except Exception as error:
            traceback.print_exc()
            with contextlib.suppress(OSError):
                channel.write(ERROR, f"The speech process failed: {error}".encode())
    finally:
        sys.stderr.flush()
        os._exit(status)
