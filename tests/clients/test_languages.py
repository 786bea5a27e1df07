"""The Go, Java and TypeScript clients and their examples, linted and tested by their own tools, against a real gateway.

A language whose toolchain is not on this machine is left out with a sentence; where `CI` is set that is a failure.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.process import environment

ROOT = Path(__file__).parents[2]
PATIENCE_S = 1500.0
"""The first build of a machine fetches and compiles some hundred modules."""


@dataclass(frozen=True)
class Check:
    """What is run, where, and with what on the PATH."""

    folder: str
    command: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.folder}: {' '.join(self.command)}"


MAVEN = ("mvn", "--batch-mode", "--quiet")

CHECKS: dict[str, list[Check]] = {
    "go": [
        Check("clients/go/tools", ("go", "build", "-o", "{build}/", "honnef.co/go/tools/cmd/staticcheck")),
        Check("clients/go", ("go", "vet", "./...")),
        Check("clients/go", ("{build}/staticcheck", "./...")),
        Check("clients/go", ("go", "test", "-race", "./...")),
        Check("examples/go", ("go", "vet", "./...")),
        Check("examples/go", ("{build}/staticcheck", "./...")),
        Check("examples/go", ("go", "test", "./...")),
    ],
    "java": [
        Check("clients/java", (*MAVEN, "install")),
        Check("examples/java", (*MAVEN, "verify")),
        Check("examples/java/springboot", (*MAVEN, "verify")),
    ],
    "typescript": [
        Check("clients/typescript", ("npm", "ci", "--no-audit", "--no-fund")),
        Check("clients/typescript", ("npm", "run", "build")),
        Check("clients/typescript", ("npm", "run", "lint")),
        Check("clients/typescript", ("npm", "test")),
    ],
}
NEEDS = {"go": ["go"], "java": ["java", "mvn"], "typescript": ["node", "npm"]}


@pytest.mark.timeout(PATIENCE_S + 60)
@pytest.mark.parametrize("language", CHECKS)
async def test_a_client_passes_the_checks_of_its_own_language(language: str, tmp_path: Path) -> None:
    if missing := [program for program in NEEDS[language] if shutil.which(program) is None]:
        why = f"there is no {' and no '.join(missing)} on the PATH"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    server = Path(sys.executable).with_name("wavegate-server")
    assert server.exists(), "the project is not installed: make setup"
    named = environment({"WAVEGATE_SERVER": str(server)})
    async with asyncio.timeout(PATIENCE_S):
        for check in CHECKS[language]:
            process = await asyncio.create_subprocess_exec(
                *(part.format(build=tmp_path) for part in check.command),
                cwd=ROOT / check.folder,
                env=named,
                stdin=DEVNULL,
                stdout=PIPE,
                stderr=STDOUT,
            )
            try:
                printed = (await process.communicate())[0].decode(errors="replace")
            finally:
                if process.returncode is None:
                    process.kill()
            assert process.returncode == 0, f"{check}\n{printed[-20_000:]}"
