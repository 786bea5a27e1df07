"""Runs scenarios against a driver."""

from __future__ import annotations

import asyncio
import os
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from clients.conformance.judge.clients import REPOSITORY
from clients.conformance.judge.messages import Failed, Wrong
from clients.conformance.judge.process import Driver
from clients.conformance.judge.script import Case, NotApplicable, Scenario
from clients.conformance.judge.world import World

State = Literal["pass", "FAIL", "not implemented", "not applicable"]


@dataclass(frozen=True)
class Cell:
    """What came of one scenario with one client."""

    client: str
    scenario: str
    state: State
    what: str = ""
    """What differed, with the driver's last lines on standard error."""
    seconds: float = 0.0


def environment() -> dict[str, str]:
    """This process's without what configures clients and gateways."""
    left_out = ("WAVEGATE_", "WAVES_LOCAL_", "OTEL_", "SMALLEST_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    return {**kept, "PYTHONUNBUFFERED": "1"}


class Desk:
    """One driver of a client at a time; after a red cell another one."""

    def __init__(
        self,
        client: str,
        command: Sequence[str],
        world: World,
        more_environment: Mapping[str, str] | None = None,
    ) -> None:
        self._client = client
        self._command = command
        self._world = world
        self._environment = {**environment(), **(more_environment or {})}
        self._driver: Driver | None = None

    async def judge(self, scenario: Scenario) -> Cell:
        """Run a scenario; never raises, and never hangs."""
        began = time.monotonic()
        state: State = "FAIL"
        try:
            async with asyncio.timeout(scenario.within_s):
                state, what = await self._run(scenario)
        except TimeoutError:
            what = f"it was not over within {scenario.within_s:g} s"
        if state == "FAIL":
            what = "\n".join(filter(None, [what, await self._let_go()]))
        return Cell(self._client, scenario.name, state, what, time.monotonic() - began)

    async def _run(self, scenario: Scenario) -> tuple[State, str]:
        try:
            if self._driver is None:
                self._driver = await Driver.start(self._command, REPOSITORY, self._environment)
            case = Case(self._driver, self._world)
            try:
                try:
                    await scenario.run(case)
                except Failed as failed:
                    if failed.problem.kind != "NOT_IMPLEMENTED":
                        raise
                    await case.end()
                    return "not implemented", str(failed)
                await case.end()
            finally:
                await case.clear()
        except (Wrong, Failed) as wrong:
            return "FAIL", str(wrong)
        except NotApplicable as why:
            return "not applicable", str(why)
        except Exception:  # a defect of the judge's own, or a driver that says what nobody expects
            return "FAIL", traceback.format_exc()
        return "pass", ""

    async def _let_go(self) -> str:
        """End the driver by force; the last that it had to say."""
        driver, self._driver = self._driver, None
        if driver is None:
            return ""
        await driver.kill()
        return "\n".join(driver.last_words())

    async def close(self) -> Cell | None:
        """Have the driver quit; a cell where it does not do that well."""
        driver, self._driver = self._driver, None
        if driver is None:
            return None
        try:
            code = await driver.quit()
            what = "" if code == 0 else f"it ended with {code} after quit"
        except (Wrong, Failed) as wrong:
            what = str(wrong)
        return Cell(self._client, "quit", "FAIL", what) if what else None


async def judge(
    client: str,
    command: Sequence[str],
    scenarios: Iterable[Scenario],
    world: World,
    *,
    jobs: int = 2,
    tell: Callable[[Cell], None] = lambda _: None,
) -> list[Cell]:
    """Run scenarios against a client, `jobs` at a time, each with a driver of its own; the cells."""
    waiting = sorted(scenarios, key=lambda s: not s.is_long)[::-1]
    cells: list[Cell] = []

    def note(cell: Cell) -> None:
        cells.append(cell)
        tell(cell)

    async def work() -> None:
        desk = Desk(client, command, world)
        try:
            while waiting:
                note(await desk.judge(waiting.pop()))
        finally:
            if (cell := await desk.close()) is not None:
                note(cell)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(min(jobs, len(waiting))):
            tasks.create_task(work())
    return cells
