"""The command line: `make bench ARGS="…"`. Exit codes: 0 measured, 1 a promise was broken, 2 it could not be run."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shlex
import signal
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

from benchmarks import report
from benchmarks.processes import BenchmarkError, Variant, gateway, generator, upstream
from benchmarks.scenarios import SCENARIOS, Bench, Options, Run

_OURS = ("WAVEGATE_", "OTEL_", "SMALLEST_")


def _arguments() -> argparse.Namespace:
    defaults = Options()
    parser = argparse.ArgumentParser(
        prog="make bench", description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add(
        "--only",
        default="",
        metavar="NAME[,NAME]",
        help=f"some of: {', '.join(s.name for s in SCENARIOS)}; empty: all",
    )
    add("--seconds", type=float, default=defaults.seconds, help="measured time of a run")
    add("--rounds", type=int, default=defaults.rounds, help="runs of each variant")
    add("--sessions", type=int, default=defaults.sessions, help="sessions of the real-time scenarios")
    add("--cancels", type=int, default=defaults.cancels, help="barge-ins")
    add("--held", type=int, default=defaults.held, help="idle sessions that are weighed")
    add("--warm-up", type=int, default=defaults.warm_up, help="sessions before memory is weighed")
    add("--churn", type=int, default=defaults.churn, help="sessions over which memory is weighed")
    add("--flags", default="", metavar="=FLAGS", help="flags of the gateway, of both where there are two")
    add(
        "--versus-tree", type=Path, help="another checkout, whose gateway is measured in turn with this one's"
    )
    add("--versus-flags", default="", metavar="=FLAGS", help="flags of the other gateway")
    add("--versus-env", default="", metavar="NAME=VALUE …", help="environment of the other gateway")
    add("--pin", action="store_true", help="gateways on the first core, everything else on the others")
    add("--json", type=Path, metavar="PATH", help="write everything that was measured")
    return parser.parse_args()


def _variants(given: argparse.Namespace) -> list[Variant]:
    flags = tuple(shlex.split(given.flags))
    variants = [Variant("gateway", flags=flags)]
    if given.versus_tree or given.versus_flags or given.versus_env:
        pairs = [item.partition("=") for item in shlex.split(given.versus_env)]
        other = Variant(
            "other",
            flags=(*flags, *shlex.split(given.versus_flags)),
            environment=tuple((name, value) for name, _, value in pairs),
        )
        if given.versus_tree:
            tree = given.versus_tree.resolve()
            if not (tree / "server" / "wavegate_server").is_dir():
                raise BenchmarkError(f"--versus-tree {given.versus_tree} holds no server/wavegate_server")
            other = Variant(other.name, tree, other.flags, other.environment)
        variants.append(other)
    return variants


async def _bench(given: argparse.Namespace) -> int:
    wanted = [name for name in given.only.split(",") if name]
    names = [s.name for s in SCENARIOS]
    if unknown := [name for name in wanted if name not in names]:
        raise BenchmarkError(f"--only {','.join(unknown)}: there are {', '.join(names)}")
    options = Options(
        given.seconds, given.rounds, given.sessions, given.held, given.warm_up, given.churn, given.cancels
    )
    variants = _variants(given)
    for name in [n for n in os.environ if n.startswith(_OURS)]:
        del os.environ[name]  # what is measured is what the flags say
    results: dict[str, list[Run]] = {}
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="wavegate-bench-") as scratch:
        async with AsyncExitStack() as stack:
            port = await stack.enter_async_context(upstream(Path(scratch)))
            gateways = [
                await stack.enter_async_context(gateway(variant, port, Path(scratch))) for variant in variants
            ]
            load = await stack.enter_async_context(generator())
            if given.pin:
                _pin([g.pid for g in gateways], load.pid)
            bench = Bench(
                gateways,
                load,
                f"ws://127.0.0.1:{port}",
                options,
                lambda variant: gateway(variant, port, Path(scratch)),
            )
            for scenario in SCENARIOS:
                if wanted and scenario.name not in wanted:
                    continue
                results[scenario.name] = runs = await scenario.run(bench)
                print(report.table(scenario, runs, [v.name for v in variants]), flush=True)
    problems = list(dict.fromkeys(bench.problems))
    print(f"\n{time.monotonic() - began:.0f} s; medians of {options.rounds} rounds, run in turn")
    for problem in problems:
        print(f"PROBLEM: {problem}", file=sys.stderr)
    if given.json is not None:
        found = report.as_json(results, options, [v.name for v in variants], problems)
        given.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 1 if problems else 0


def _pin(gateways: list[int], load: int) -> None:
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise BenchmarkError("--pin needs two cores")
    for pid in gateways:
        for task in os.listdir(f"/proc/{pid}/task"):
            os.sched_setaffinity(int(task), {cores[0]})
    for task in os.listdir(f"/proc/{load}/task"):
        os.sched_setaffinity(int(task), set(cores[1:]))


def main() -> None:
    given = _arguments()
    # As Ctrl-C, so that what was started is ended in good order.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        code = asyncio.run(_bench(given))
    except BenchmarkError as exc:
        print(f"bench: {exc}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)
