"""What is measured, in which order, and what of it is shown.

Every scenario runs its variants in turn, round after round — gateway, the other gateway if there is one, straight
to the upstream — so that whatever else the machine does hits all of them alike. What counts are the medians over the
rounds, and the ratios and differences within a round.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from benchmarks.processes import Collector, Gateway, Generator, Variant, collector, telemetry_alone
from benchmarks.wire import median, slope

DIRECT = "direct"
SETUP_S = 30.0
"""What a job may take beside the time that it measures."""
SETTLE_S = 0.5
"""How long ended sessions may take to be gone."""
SETTLE_WITHIN_S = 10.0
SAMPLES = 12
"""Times that memory is weighed while sessions of a kind come and go."""
ENDS = ("well", "heard", "waiting")
"""How sessions end whose memory is weighed; see `benchmarks.load.churn`."""
KEPT_SPANS = 20_000
"""That a gateway keeps for who asks it for a trace."""
RENEWAL = 200
"""Sessions that come and go at a time until the kept spans are theirs."""
MAX_LOAD_SHARE = 0.85
BRIEFLY_S = 5.0
"""The longest that is measured beside the chunks in real time."""
RATE = 2500
"""Chunks a second that the telemetry alone is given."""
MAX_WAITING_SPANS = 27_048
"""That wait for a collector: the exporter's queue, and the batch that is on its way."""
MAX_TRACING_MIB = 32.0
"""What spans that wait, and those that are kept, may add to a gateway."""


@dataclass(frozen=True, slots=True)
class Options:
    """How much is measured."""

    seconds: float = 3.0
    rounds: int = 3
    sessions: int = 50
    """Of the real-time scenarios."""
    held: int = 200
    warm_up: int = 400
    churn: int = 1200
    cancels: int = 240


@dataclass(frozen=True, slots=True)
class Run:
    """The figures of one variant in one round."""

    variant: str
    round: int
    figures: Mapping[str, float]


@dataclass
class Bench:
    """What scenarios work with."""

    gateways: list[Gateway]
    generator: Generator
    upstream_url: str
    options: Options
    another: Callable[[Variant], AbstractAsyncContextManager[Gateway]]
    """Starts one more gateway, in front of the same upstream."""
    problems: list[str] = field(default_factory=list)
    say: Callable[[str], None] = print


@dataclass(frozen=True, slots=True)
class Shown:
    """A row of the table."""

    key: str
    label: str
    adds: bool = False
    """Whether the gateway's part is what it adds to the direct way, rather than a multiple of it."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One scenario: `run` measures it, `rows` are shown of it."""

    name: str
    about: str
    rows: tuple[Shown, ...]
    run: Callable[[Bench], Awaitable[list[Run]]]
    base: str = ""
    """The variant that the others are compared with, where they are not the bench's own."""


_CPU_CHUNK = Shown("cpu_us_per_chunk", "CPU per chunk, µs")
_LAG = (
    Shown("loop_lag_ms_p50", "loop lag p50, ms"),
    Shown("loop_lag_ms_p99", "loop lag p99, ms"),
)


_SPANS = (
    Shown("spans_produced", "spans produced"),
    Shown("spans_sent", "spans sent"),
    Shown("spans_dropped", "spans dropped"),
    Shown("chunk_spans", "spans of chunks that came"),
    Shown("chunk_spans_missing", "chunks without one"),
)


def _spread(key: str, label: str, *, adds: bool = True) -> tuple[Shown, Shown]:
    return Shown(f"{key}_p50", f"{label} p50", adds), Shown(f"{key}_p99", f"{label} p99", adds)


def _left_by(end: str, label: str) -> tuple[Shown, Shown, Shown]:
    return (
        Shown(f"{end}_private_bytes", f"{label}: process, bytes"),
        Shown(f"{end}_native_bytes", f"{label}: libraries, bytes"),
        Shown(f"{end}_python_blocks", f"{label}: Python, blocks"),
    )


# -- in turn ----------------------------------------------------------------------------------------------------


async def _in_turn(
    bench: Bench,
    job: Mapping[str, Any],
    *,
    seconds: float,
    direct: bool = True,
    rounds: int | None = None,
    probe: bool = True,
) -> list[Run]:
    """Run a job against each variant, round after round."""
    runs = []
    for number in range(bench.options.rounds if rounds is None else rounds):
        for gateway in bench.gateways:
            await gateway.ask()
            asked = {**job, "target": gateway.target, "pid": gateway.pid, "seed": number}
            figures = await bench.generator.do(asked, seconds + SETUP_S)
            if probe:
                probed = await gateway.ask()
                figures |= {k: v for k, v in probed.items() if k.startswith("loop_lag")}
            runs.append(Run(gateway.variant.name, number, figures))
            if figures.get("load_share", 0.0) > MAX_LOAD_SHARE:
                bench.problems.append(
                    f"the generator itself was busy for {figures['load_share']:.0%} of the time: use fewer sessions"
                )
        if direct:
            figures = await bench.generator.do({**job, "direct": bench.upstream_url}, seconds + SETUP_S)
            runs.append(Run(DIRECT, number, figures))
    return runs


def _chunks(
    job: str, *, chunk_bytes: int, interval_us: int, sessions: int | None
) -> Callable[[Bench], Awaitable[list[Run]]]:
    async def run(bench: Bench) -> list[Run]:
        seconds = bench.options.seconds
        asked = {
            "job": job,
            "sessions": sessions or bench.options.sessions,
            "chunk_bytes": chunk_bytes,
            "interval_us": interval_us,
            "warmup_s": min(1.0, seconds / 3),
            "seconds": seconds,
        }
        return await _in_turn(bench, asked, seconds=seconds)

    return run


async def _open(bench: Bench) -> list[Run]:
    seconds = bench.options.seconds
    asked = {"job": "open", "rate": 20, "warmup_s": 0.5, "seconds": seconds}
    return await _in_turn(bench, asked, seconds=seconds, probe=False)


async def _between(bench: Bench) -> list[Run]:
    asked = {
        "job": "between-utterances",
        "sessions": 4,
        "utterances": 20,
        "chunks": 5,
        "chunk_bytes": 2400,
        "interval_us": 10_000,
    }
    return await _in_turn(bench, asked, seconds=30, probe=False)


async def _barge_in(bench: Bench) -> list[Run]:
    cancels = bench.options.cancels
    asked = {"job": "barge-in", "sessions": 8, "cancels": cancels, "chunk_bytes": 2400, "interval_us": 10_000}
    # One round has all the cancels: a p99 needs them together.
    runs = await _in_turn(bench, asked, seconds=cancels, direct=False, rounds=1)
    for run in runs:
        if stale := run.figures["stale_chunks_after_cancelled"]:
            bench.problems.append(f"{run.variant}: {stale:.0f} stale chunks came after utterance_cancelled")
    return runs


# -- tracing ----------------------------------------------------------------------------------------------------

_OFF = "off"
_COLLECTORS = {"on": "grpc", "http": "http", "hanging": "hanging", "down": "down"}
"""Variants whose chunks are all traced, and the collector's endpoint that they send to."""
_ANSWER = frozenset({_OFF, "on", "http"})


async def _tracing(bench: Bench) -> list[Run]:
    """Every chunk traced against none: real time, flat out, and new sessions."""
    seconds = min(bench.options.seconds, BRIEFLY_S)
    speak = {"chunk_bytes": 4800, "interval_us": 0, "warmup_s": min(1.0, seconds / 3), "seconds": seconds}
    more = {
        "flat": {"job": "speak", "sessions": 8, **speak},
        "open": {"job": "open", "rate": 20, "warmup_s": 0.5, "seconds": seconds},
    }
    return await _traced(bench, ("on",), more)


async def _collectors(bench: Bench) -> list[Run]:
    """Every chunk traced, by ways to collectors of all sorts."""
    return await _traced(bench, tuple(_COLLECTORS), {})


async def _traced(bench: Bench, wanted: Sequence[str], more: Mapping[str, Mapping[str, Any]]) -> list[Run]:
    """Run everything against gateways with and without traces, in turn."""
    options, runs = bench.options, list[Run]()
    both = {
        "job": "both",
        "sessions": options.sessions,
        "speech_bytes": 2400,
        "heard_bytes": 1600,
        "interval_us": 50_000,
        "warmup_s": min(1.0, options.seconds / 3),
        "seconds": options.seconds,
    }
    within_s = 2 * options.seconds + SETUP_S
    async with AsyncExitStack() as stack:
        to = await stack.enter_async_context(collector())
        traced = []
        for plain in [g.variant for g in bench.gateways]:
            own = "" if plain is bench.gateways[0].variant else f"{plain.name} "
            for name, environment in {
                _OFF: (("OTEL_SDK_DISABLED", "true"),),
                **{name: to.environment(_COLLECTORS[name]) for name in wanted},
            }.items():
                quiet = () if name in _ANSWER else ("--log-level", "error")
                variant = replace(
                    plain,
                    name=own + name,
                    flags=(*plain.flags, *quiet),
                    environment=(*plain.environment, *environment),
                )
                traced.append((name, await stack.enter_async_context(bench.another(variant))))
        before = {gateway.pid: (await gateway.weigh())["private_bytes"] for _, gateway in traced}
        for number in range(options.rounds):
            grown: dict[str, float] = {}
            for name, gateway in traced:
                target = {"target": gateway.target, "pid": gateway.pid, "seed": number}
                had = await to.had()
                produced = await gateway.ask()
                figures = await bench.generator.do({**both, **target}, within_s)
                probed = await gateway.ask()
                figures |= {k: v for k, v in probed.items() if k.startswith(("loop_lag", "encoding"))}
                figures["memory_mib"] = round((await gateway.weigh())["private_bytes"] / 2**20, 1)
                grown[name] = figures["memory_mib"] - before[gateway.pid] / 2**20
                if name != _OFF:
                    answers = name in _ANSWER
                    figures |= await _spans(
                        bench, gateway, to, _COLLECTORS[name], produced, had, figures, answers
                    )
                    if grown[name] - grown.get(_OFF, 0.0) > MAX_TRACING_MIB:
                        bench.problems.append(
                            f"{gateway.variant.name}: tracing grew to {grown[name]:.0f} MiB"
                        )
                if more:
                    figures |= await telemetry_alone(gateway.variant, min(options.seconds, BRIEFLY_S), RATE)
                for prefix, job in more.items():
                    done = await bench.generator.do({**job, **target}, within_s)
                    figures |= {f"{prefix}_{key}": value for key, value in done.items()}
                runs.append(Run(gateway.variant.name, number, figures))
    return runs


async def _spans(
    bench: Bench,
    gateway: Gateway,
    to: Collector,
    endpoint: str,
    gateway_before: Mapping[str, float],
    had_before: Mapping[str, Mapping[str, int]],
    figures: Mapping[str, float],
    answers: bool,
) -> dict[str, float]:
    """What became of the spans of a job, once all is settled; whatever does not add up is a problem."""
    name, problems = gateway.variant.name, bench.problems
    kinds = ("spans_produced", "spans_sent", "spans_dropped")
    for _ in range(round(SETTLE_WITHIN_S / SETTLE_S)):
        await asyncio.sleep(SETTLE_S)
        now = await gateway.ask()
        if "spans_produced" not in now or now["spans_produced"] == now["spans_sent"] + now["spans_dropped"]:
            break
        if (
            not answers
            and now["spans_produced"] - now["spans_sent"] - now["spans_dropped"] <= MAX_WAITING_SPANS
        ):
            break
    else:
        problems.append(f"{name}: spans are neither sent nor dropped: {now}")
    spans = {kind: now.get(kind, 0.0) - gateway_before.get(kind, 0.0) for kind in kinds}
    if not answers:
        return spans
    had = (await to.had())[endpoint]
    got = {key: value - had_before[endpoint][key] for key, value in had.items()}
    if got["malformed"]:
        problems.append(f"{name}: {got['malformed']} requests that no collector would understand")
    if got["spans"] != spans["spans_sent"]:
        problems.append(f"{name}: {spans['spans_sent']:.0f} spans were sent, {got['spans']} came")
    for direction in ("in", "out"):
        missing = figures[f"chunks_{direction}"] - got[f"chunks_{direction}"]
        if missing and not spans["spans_dropped"]:
            problems.append(f"{name}: {missing:.0f} spans of chunks {direction} are missing")
    return {
        **spans,
        "spans_came": got["spans"],
        "chunk_spans": got["chunks_in"] + got["chunks_out"],
        "chunk_spans_missing": figures["chunks_in"]
        + figures["chunks_out"]
        - got["chunks_in"]
        - got["chunks_out"],
        "spans_parsed": got["parsed"],
        "bytes_per_span": round(got["size_bytes"] / got["spans"], 1) if got["spans"] else 0.0,
    }


# -- memory -----------------------------------------------------------------------------------------------------


async def _memory(bench: Bench) -> list[Run]:
    """Of gateways that send spans of every chunk to a collector."""
    runs = []
    async with collector() as to:
        for plain in [gateway.variant for gateway in bench.gateways]:
            environment = (*to.environment("grpc"), *plain.environment)
            variant = replace(plain, name=f"{plain.name}, traced", environment=environment)
            async with bench.another(variant) as gateway:
                runs.append(Run(plain.name, 0, await _weigh(bench, gateway)))
    return runs


async def _weigh(bench: Bench, gateway: Gateway) -> dict[str, float]:
    """Idle sessions, then sessions that come and go."""
    options = bench.options
    base = {"target": gateway.target, "pid": gateway.pid, "chunk_bytes": 2400}

    async def churn(sessions: int, end: str) -> None:
        job = {**base, "job": "churn", "sessions": sessions, "end": end}
        await bench.generator.do(job, sessions + SETUP_S)

    await churn(options.warm_up, "mixed")
    await renew_spans(gateway, lambda: churn(RENEWAL, "mixed"))
    before = await settled(gateway, None)
    figures: dict[str, float] = {}
    for kind in ("tts", "stt"):
        held = {**base, "job": "hold", "kind": kind, "sessions": options.held}
        empty = await gateway.weigh()
        await bench.generator.do(held, options.held + SETUP_S)
        await asyncio.sleep(SETTLE_S)
        full = await gateway.weigh()
        rest = await bench.generator.do({**base, "job": "rest", "seconds": 1.0}, SETUP_S)
        await bench.generator.do({**base, "job": "release"}, SETUP_S)
        await settled(gateway, before)
        each = (full["private_bytes"] - empty["private_bytes"]) / options.held
        figures[f"idle_{kind}_kib"] = round(each / 1024, 1)
        figures[f"idle_{kind}_tasks"] = round((full["tasks"] - empty["tasks"]) / options.held, 2)
        figures[f"idle_{kind}_cpu_us_per_s"] = round(1e6 * rest["cpu_share"] / options.held, 2)
    step = -(-options.churn // (SAMPLES * len(ENDS)))
    for end in ENDS:
        await renew_spans(gateway, partial(churn, RENEWAL, end))
        weighed = [await settled(gateway, before)]
        for _ in range(SAMPLES):
            await churn(step, end)
            weighed.append(await settled(gateway, before))
        for what in ("private_bytes", "native_bytes", "python_blocks"):
            points = [(float(number * step), w[what]) for number, w in enumerate(weighed)]
            figures[f"{end}_{what}"] = round(slope(points), 3)
    after = await settled(gateway, before)
    for what in ("descriptors", "tasks", "threads"):
        left = after[what] - before[what]
        figures[f"{what}_left"] = left
        if left > 0 and what != "threads":
            bench.problems.append(f"{gateway.variant.name}: {left:.0f} {what} are left of ended sessions")
    return figures


async def renew_spans(gateway: Gateway, churn: Callable[[], Awaitable[None]]) -> None:
    """Run sessions until all the spans that the gateway keeps are of such sessions: from then on as many old ones go
    as new ones come, and what grows is not them."""
    first = made = (await gateway.ask()).get("spans_produced", 0)
    before = None
    while made != before and made - first < KEPT_SPANS:
        await churn()
        made, before = (await gateway.ask()).get("spans_produced", 0), made


async def settled(gateway: Gateway, base: Mapping[str, float] | None) -> dict[str, float]:
    """What the gateway holds once ended sessions are gone: no more tasks and descriptors than `base`, or, without
    one, the same twice. What it holds in the end where that does not come."""
    last: dict[str, float] | None = None
    for _ in range(round(SETTLE_WITHIN_S / SETTLE_S)):
        await asyncio.sleep(SETTLE_S if last is None or base is None else SETTLE_S / 2)
        now = await gateway.weigh()
        if base is None:
            if last is not None and (now["tasks"], now["descriptors"]) == (
                last["tasks"],
                last["descriptors"],
            ):
                return now
        elif now["tasks"] <= base["tasks"] and now["descriptors"] <= base["descriptors"]:
            return now
        last = now
    assert last is not None
    return last


# -- all of them ------------------------------------------------------------------------------------------------

SCENARIOS = (
    Scenario(
        "tts-flat-out",
        "8 sessions, chunks of 4800 bytes as fast as they go",
        (_CPU_CHUNK, Shown("chunks_per_s", "chunks a second")),
        _chunks("speak", chunk_bytes=4800, interval_us=0, sessions=8),
    ),
    Scenario(
        "tts-realtime",
        "sessions of 20 chunks/s of 2400 bytes",
        (
            _CPU_CHUNK,
            *_spread("chunk_us", "a chunk's way down, µs"),
            *_spread("first_audio_ms", "first audio, ms"),
            *_LAG,
        ),
        _chunks("speak", chunk_bytes=2400, interval_us=50_000, sessions=None),
    ),
    Scenario(
        "stt-realtime",
        "sessions of 20 chunks/s of 1600 bytes, a transcript for every fifth",
        (
            _CPU_CHUNK,
            *_spread("chunk_us", "a chunk's way up, µs"),
            *_spread("transcript_us", "a transcript's way down, µs"),
            *_LAG,
        ),
        _chunks("listen", chunk_bytes=1600, interval_us=50_000, sessions=None),
    ),
    Scenario(
        "open",
        "20 new synthesis sessions a second, two utterances each",
        (
            Shown("cpu_us_per_session", "CPU per session, µs"),
            *_spread("open_ms", "open, ms"),
            *_spread("cold_first_audio_ms", "open to first audio, ms"),
            *_spread("first_audio_ms", "text to first audio, ms"),
        ),
        _open,
    ),
    Scenario(
        "between-utterances",
        "4 sessions, 20 utterances each that wait for each other: two sentences and more",
        (*_spread("gap_ms", "last chunk of one to first of the next, ms"),),
        _between,
    ),
    Scenario(
        "barge-in",
        "8 sessions at 5 times real time; a listener that reads at once, and one that plays",
        (
            *_spread("stale_ms", "cancel to last stale chunk, ms", adds=False),
            *_spread("cancelled_ms", "cancel to utterance_cancelled, ms", adds=False),
            *_spread("player_stale_ms", "the same, player: stale, ms", adds=False),
            *_spread("player_cancelled_ms", "the same, player: cancelled, ms", adds=False),
            *_spread("next_first_audio_ms", "next text to its first audio, ms", adds=False),
            Shown("stale_chunks_after_cancelled", "stale chunks afterwards"),
        ),
        _barge_in,
    ),
    Scenario(
        "tracing",
        "every chunk traced, against none: sessions of both kinds in real time; 8 flat out; 20 new ones a second",
        (
            _CPU_CHUNK,
            *_spread("chunk_us", "a chunk's way, µs"),
            *_spread("first_audio_ms", "first audio, ms"),
            *_LAG,
            Shown("alone_us_per_chunk", "the telemetry alone: CPU per chunk, µs"),
            Shown("encoding_us_per_chunk", "making spans, in the gateway: CPU per chunk, µs"),
            Shown("flat_cpu_us_per_chunk", "flat out: CPU per chunk, µs"),
            Shown("flat_chunks_per_s", "flat out: chunks a second"),
            Shown("open_cpu_us_per_session", "CPU per session, µs"),
            *_spread("open_first_audio_ms", "text to first audio, ms"),
            *_SPANS,
        ),
        _tracing,
        _OFF,
    ),
    Scenario(
        "collectors",
        "every chunk traced, to a collector by gRPC or HTTP, to one that hangs, to one that is down",
        (
            _CPU_CHUNK,
            *_spread("chunk_us", "a chunk's way, µs"),
            *_spread("first_audio_ms", "first audio, ms"),
            *_LAG,
            *_SPANS,
            Shown("memory_mib", "memory afterwards, MiB"),
        ),
        _collectors,
        _OFF,
    ),
    Scenario(
        "memory",
        "idle sessions; then sessions that come and go",
        (
            Shown("idle_tts_kib", "an idle synthesis session, KiB"),
            Shown("idle_stt_kib", "an idle transcription session, KiB"),
            Shown("idle_tts_cpu_us_per_s", "its CPU per second, synthesis, µs"),
            Shown("idle_stt_cpu_us_per_s", "its CPU per second, transcription, µs"),
            *_left_by("well", "one that ended leaves"),
            *_left_by("heard", "one cancelled while heard"),
            *_left_by("waiting", "one cancelled while audio waits"),
            Shown("descriptors_left", "descriptors left"),
            Shown("tasks_left", "tasks left"),
        ),
        _memory,
    ),
)


# -- figures of all rounds --------------------------------------------------------------------------------------


def medians(runs: list[Run]) -> dict[str, dict[str, float]]:
    """Per variant, the median of each figure over the rounds."""
    found: dict[str, dict[str, list[float]]] = {}
    for run in runs:
        for key, value in run.figures.items():
            found.setdefault(run.variant, {}).setdefault(key, []).append(value)
    return {variant: {k: round(median(v), 3) for k, v in keys.items()} for variant, keys in found.items()}


@dataclass(frozen=True, slots=True)
class Pairs:
    """How one variant compares with another, round by round."""

    ratio: float
    lowest: float
    highest: float
    difference: float


def pairs(runs: list[Run], one: str, other: str) -> dict[str, Pairs]:
    """For each figure, `one` against `other` within the rounds: median ratio, its range, median difference."""
    by_round: dict[int, dict[str, Run]] = {}
    for run in runs:
        by_round.setdefault(run.round, {})[run.variant] = run
    both = [(r[one].figures, r[other].figures) for r in by_round.values() if one in r and other in r]
    found = {}
    for key in both[0][0] if both else ():
        values = [(a[key], b[key]) for a, b in both if key in a and key in b]
        ratios = [a / b for a, b in values if b]
        if not ratios:
            continue
        found[key] = Pairs(
            round(median(ratios), 3),
            round(min(ratios), 3),
            round(max(ratios), 3),
            round(median([a - b for a, b in values]), 3),
        )
    return found
