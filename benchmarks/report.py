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
_COMPARED = 20


def table(scenario: Scenario, runs: list[Run], variants: list[str]) -> str:
    """The rows of one scenario. Each column is compared with the base: the first gateway, or the direct way where
    there is only one, or what the scenario says."""
    middle = medians(runs)
    columns = list(middle)
    if scenario.base:
        base, others = scenario.base, [c for c in columns if c != scenario.base]
    elif len(variants) > 1:
        base, others = variants[0], variants[1:]
    else:
        base, others = DIRECT, variants
    compared = {other: pairs(runs, other, base) for other in others}
    head = f"{scenario.name:<{_LABEL}}" + "".join(f"{c:>{_COLUMN}}" for c in columns)
    lines = ["", head + "".join(f"   {f'{o} to {base}':<{_COMPARED}}" for o in others if compared[o])]
    lines.append(f"  {scenario.about}")
    for row in scenario.rows:
        line = f"  {row.label:<{_LABEL - 2}}" + "".join(
            f"{_cell(middle[c].get(row.key)):>{_COLUMN}}" for c in columns
        )
        for other in others:
            pair = compared[other].get(row.key)
            text = "" if pair is None else _compared(row, asdict(pair), base == DIRECT)
            line += f"   {text:<{_COMPARED}}"
        lines.append(line.rstrip())
    return "\n".join(lines)


def _cell(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _compared(row: Shown, pair: Mapping[str, float], with_direct: bool) -> str:
    if row.adds and with_direct:
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
        compared = {}
        present = list(dict.fromkeys(run.variant for run in runs))
        for base in dict.fromkeys([DIRECT, *present]):
            for variant in present[present.index(base) + 1 :] if base != DIRECT else present:
                if variant != DIRECT:
                    compared[f"{variant} to {base}"] = pairs(runs, variant, base)
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
