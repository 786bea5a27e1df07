"""Runs the real gateway, by its own command line, with a probe on its loop.

    python -m benchmarks.gateway SOCKET [FLAG …]    as  wavegate-server [FLAG …]

The probe answers each line on a Unix socket with one line of JSON: the tasks of the loop, how late its timers rang
since the last question, what spans of chunks have cost since then, and what became of them. `collect` has garbage given
back first and adds what memory is in use then.
It costs one timer every `LAG_EVERY_S` seconds. The gateway stops when its stdin is closed.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import os
import signal
import sys
import threading
import time
from array import array
from typing import Any

from wavegate_server import app, cli
from wavegate_server.telemetry import instruments

from benchmarks.wire import percentile

LAG_EVERY_S = 0.02


class Probe:
    """Watches the loop that it is started on."""

    def __init__(self, gateway: app.App) -> None:
        self._gateway = gateway
        self._encoding = [0, 0]
        """Nanoseconds of CPU that were spent on the spans and measurements of chunks, and how many chunks."""
        self._lags_ms: array[float] = array("d")
        self._due = 0.0

    async def start(self, path: str) -> asyncio.Server:
        self._tick()
        self._time_encoding()
        return await asyncio.start_unix_server(self._serve, path)

    def _tick(self) -> None:
        now = time.monotonic()  # the loop's own clock stands still while it is busy
        if self._due:
            self._lags_ms.append(1000 * (now - self._due))
        self._due = now + LAG_EVERY_S
        asyncio.get_running_loop().call_later(LAG_EVERY_S, self._tick)

    def _time_encoding(self) -> None:
        tracer: Any = getattr(self._gateway._telemetry, "tracer", None)  # another checkout may have none
        if tracer is None:
            return
        flush = tracer.flush

        def timed() -> None:
            self._encoding[1] += len(tracer._pending)
            began = time.thread_time_ns()
            flush()
            self._encoding[0] += time.thread_time_ns() - began

        tracer.flush = timed

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while question := await reader.readline():
            left = _left() if question.strip() == b"collect" else {}
            lags, self._lags_ms = self._lags_ms, array("d")
            answer: dict[str, Any] = {
                # Without the one that answers.
                "tasks": len(asyncio.all_tasks()) - 1,
                "threads": threading.active_count(),
                "loop_lag_ms_p50": round(percentile(lags, 0.50), 3),
                "loop_lag_ms_p99": round(percentile(lags, 0.99), 3),
                "loop_lag_ms_max": round(max(lags, default=0.0), 3),
            }
            spent_ns, chunks = self._encoding
            self._encoding[:] = 0, 0
            if chunks:
                answer["encoding_us_per_chunk"] = round(spent_ns / chunks / 1000, 3)
            writer.write(json.dumps(answer | left | self._spans()).encode() + b"\n")
            await writer.drain()
        writer.close()

    def _spans(self) -> dict[str, float]:
        """Spans produced, sent and dropped so far, by the gateway's own count."""
        metrics = getattr(self._gateway, "_metrics", None)  # another checkout may have none
        if metrics is None:
            return {}
        return {f"spans_{labels[0]}": value for labels, value in metrics.numbers(instruments.TRACE_SPANS)}


class _Mallinfo2(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    )


def _left() -> dict[str, int]:
    """What is in use once all that is garbage was given back.

    `python_blocks` are pieces of memory that Python's own allocator has given out; `native_bytes` what malloc has, on
    behalf of libraries mostly. Unlike the process's size, both are exact. 0 where the C library does not tell.
    """
    gc.collect()
    native = 0
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        libc.malloc_trim(0)
        if hasattr(libc, "mallinfo2"):
            libc.mallinfo2.restype = _Mallinfo2
            info = libc.mallinfo2()
            native = info.uordblks + info.hblkhd
    return {"python_blocks": sys.getallocatedblocks(), "native_bytes": native}


def _stop_with_stdin() -> None:
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    path = sys.argv[1]
    sys.argv = ["wavegate-server", *sys.argv[2:]]
    serve = app.App.serve

    async def probed(self: app.App) -> int:
        server = await Probe(self).start(path)
        try:
            return await serve(self)
        finally:
            server.close()

    app.App.serve = probed  # type: ignore[method-assign]
    threading.Thread(target=_stop_with_stdin, daemon=True).start()
    cli.main()


if __name__ == "__main__":
    main()
