"""Nothing but the gateway's telemetry, in a process of its own: chunks at a steady rate through its lanes.

    python -m benchmarks.lanes --seconds 3 --rate 2500

The environment says, as it does for the gateway, where spans go, or that there are none (`OTEL_SDK_DISABLED`). The
last line on stdout is the CPU of the whole process per chunk, with all threads, as JSON. What a gateway with traces
uses more than one without disappears in the noise of a gateway: here there is nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time

import uvloop
from wavegate_server.telemetry import otel
from wavegate_server.telemetry.metrics import Metrics
from wavegate_server.telemetry.tracer import RECENT_SPANS

METHOD = "wavegate.speech.v1.SynthesisService/SynthesizeStream"
TICK_S = 0.01
SESSIONS = 50
CHUNK_S = 0.05
WARM_UP_S = 1.5


async def _run(seconds: float, rate: int) -> None:
    telemetry = otel.from_environment("bench", numbers=Metrics())
    telemetry.start()
    lanes = []
    for _ in range(SESSIONS):
        root = telemetry.server_span(METHOD, ())
        root.set({"session.id": "s-" + root.trace_id})
        span = telemetry.span(root, "text_to_speech lightning", client=True)
        lanes.append(telemetry.lane(span, "tts", "out", {"speech.generation": 1}))
    sent = 0

    def send(until: float) -> None:
        nonlocal sent
        now = time.time_ns()
        while sent < until:
            number = sent // SESSIONS
            lanes[sent % SESSIONS].chunk(
                number, 2400, now - 500_000, now - 300_000, now, number * CHUNK_S, CHUNK_S
            )
            sent += 1

    send(RECENT_SPANS)  # from then on as many old ones go as new ones come
    await asyncio.sleep(WARM_UP_S)
    began, cpu_s, before = time.monotonic(), time.process_time(), sent
    while (passed := time.monotonic() - began) < seconds:
        send(before + passed * rate)
        await asyncio.sleep(TICK_S)
    cpu_s, chunks = time.process_time() - cpu_s, sent - before
    await telemetry.shutdown(5.0)
    print(json.dumps({"alone_us_per_chunk": round(1e6 * cpu_s / chunks, 3)}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="What the telemetry of a chunk costs.")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--rate", type=int, required=True, help="chunks a second")
    given = parser.parse_args()
    uvloop.run(_run(given.seconds, given.rate))


if __name__ == "__main__":
    main()
