"""What a run says: a table for people, JSON for everything else."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from benchmarks.scenarios import DIRECT, Options, Run, Scenario, Shown, medians, pairs

_LABEL = 46
_COLUMN = 13


def table(scenario: Scenario, runs: list[Run], variants: list[str]) -> str:
    """The rows of one scenario. With two gateways the second is compared with the first, else with the direct way."""
    middle = medians(runs)
    columns = [*variants, *([DIRECT] if DIRECT in middle else [])]
    one, other = (variants[1], variants[0]) if len(variants) > 1 else (variants[0], DIRECT)
    compared = pairs(runs, one, other)
    head = f"{scenario.name:<{_LABEL}}" + "".join(f"{c:>{_COLUMN}}" for c in columns)
    lines = ["", head + (f"   {one} to {other}" if compared else ""), f"  {scenario.about}"]
    for row in scenario.rows:
        cells = "".join(f"{_cell(middle[c].get(row.key)):>{_COLUMN}}" for c in columns)
        line = f"  {row.label:<{_LABEL - 2}}{cells}"
        if (pair := compared.get(row.key)) is not None:
            line += "   " + _compared(row, asdict(pair), len(variants) > 1)
        lines.append(line)
    return "\n".join(lines)


def _cell(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _compared(row: Shown, pair: Mapping[str, float], gateways: bool) -> str:
    if row.adds and not gateways:
        return (
            f"{pair['difference']:+,.3g}" if abs(pair["difference"]) < 100 else f"{pair['difference']:+,.0f}"
        )
    return f"×{pair['ratio']:.2f} ({pair['lowest']:.2f} … {pair['highest']:.2f})"


def as_json(
    results: Mapping[str, list[Run]], options: Options, variants: list[str], problems: list[str]
) -> dict[str, Any]:
    """Everything that was measured, and where."""
    found: dict[str, Any] = {}
    for name, runs in results.items():
        compared = {f"{v} to {DIRECT}": pairs(runs, v, DIRECT) for v in variants}
        for variant in variants[1:]:
            compared[f"{variant} to {variants[0]}"] = pairs(runs, variant, variants[0])
        found[name] = {
            "medians": medians(runs),
            "pairs": {k: {key: asdict(p) for key, p in v.items()} for k, v in compared.items() if v},
            "runs": [asdict(run) for run in runs],
        }
    return {"machine": machine(), "options": asdict(options), "scenarios": found, "problems": problems}


def machine() -> dict[str, Any]:
    """What the figures depend on, beside the code."""
    libraries = ("grpcio", "protobuf", "websockets", "uvloop", "msgspec", "pybase64")
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load_average": [round(x, 2) for x in os.getloadavg()],
        "libraries": {name: version(name) for name in libraries},
    }
