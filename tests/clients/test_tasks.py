"""Every block of docs/clients.md is compiled, and does what the page says, against a real gateway.

All blocks of a language become one program: a function a block, called one after the other, each behind a line that
names its task.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import textwrap
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Callable
from pathlib import Path

import pytest
import waves_local

from clients.conformance.judge.clients import build, missing
from tests.support.process import environment, running

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "clients.md"
HZ = 16_000
SAID = "hello there my friend"

SHOWN: dict[str, list[str]] = {
    "1 Connect": [r"the gateway is at 127\.0\.0\.1:\d+"],
    "2 Speak a text": [r"\d+ bytes to play"],
    "3 Speak while the text is being written": [r"\d+ bytes in all"],
    "4 Interrupt": [r"heard: A"],
    "5 Listen": [rf"said: {SAID} 4 words"],
    "6 See words while they are spoken": [rf"final: {SAID}"],
    "7 Change settings": [r"from within: speed", r"from outside: revision 3"],
    "8 Ask once": [r"once: \d+ bytes, Hello", r"a voice: \w+"],
    "9 Handle an error": [r"refused: FIELD_INVALID settings\.speed"],
    "10 See what happens": [r"spoken in", r"traced: \d+ spans"],
}
"""What each task prints, in every language."""


def blocks(language: str) -> list[tuple[str, str]]:
    """The tasks of the page, each with its block in a language."""
    found = []
    for part in PAGE.read_text().split("\n## ")[1:]:
        heading = part.partition("\n")[0]
        if not heading[0].isdigit():
            continue  # no task
        of_language = re.findall(rf"^```{language}\n(.*?)^```$", part, re.MULTILINE | re.DOTALL)
        assert len(of_language) == 1, f"{heading}: {len(of_language)} blocks in {language}"
        found.append((heading, of_language[0]))
    return found


PYTHON = """
import asyncio, pathlib, sys
from collections.abc import AsyncIterator
from wavegate import *

target = sys.argv[1]
recording = pathlib.Path(sys.argv[2]).read_bytes()

{functions}

async def main() -> None:
    async with Client(target) as client:
{calls}

asyncio.run(main())
"""

GO = """
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	wavegate "example.com/wavegate/clients/go"
)

var target string
var recording []byte

{functions}

func run(name string, err error) {{
	if err != nil {{
		fmt.Println(name, "failed:", err)
		os.Exit(1)
	}}
}}

func main() {{
	target = os.Args[1]
	recording, _ = os.ReadFile(os.Args[2])
	ctx := context.Background()
	client, err := wavegate.NewClient(target)
	run("connecting", err)
	defer client.Close()
	_, _, _ = errors.As, slices.Values[[]string], strings.Repeat
	_ = time.Second
{calls}
}}
"""

JAVA = """
import com.google.protobuf.ByteString;
import java.nio.file.*;
import java.time.Duration;
import java.util.*;
import java.util.stream.Stream;
import wavegate.*;
import wavegate.speech.v1.*;

public class Tasks {{
  static String target;
  static byte[] recording;

{functions}

  public static void main(String[] args) throws Exception {{
    target = args[0];
    recording = Files.readAllBytes(Path.of(args[1]));
    try (Client client = Client.connect(target)) {{
{calls}
    }}
  }}
}}
"""

TYPESCRIPT = """
import {{ readFileSync }} from "node:fs";
import {{ Client, WavegateError }} from "@wavegate/client";

const target = process.argv[2] ?? "";
const recording = readFileSync(process.argv[3] ?? "");

{functions}

const shared = new Client({{ targets: [target] }});
{calls}
shared.close();
"""

Wrap = Callable[[str, str], str]


def program(language: str, template: str, function: Wrap, call: Wrap, indents: tuple[str, str]) -> str:
    """The program of all blocks; `indents` are those of a function's body and of a call."""
    functions, calls = [], []
    for number, (heading, body) in enumerate(blocks(language), 1):
        functions.append(function(f"task{number}", textwrap.indent(body, indents[0])))
        calls.append(textwrap.indent(call(f"task{number}", heading), indents[1]))
    return template.format(functions="\n".join(functions), calls="\n".join(calls))


def test_the_page_has_each_task_in_each_language() -> None:
    for language in ("python", "go", "java", "ts"):
        assert [heading for heading, _ in blocks(language)] == [*SHOWN]


async def run(*command: str | Path, cwd: Path = ROOT) -> str:
    """What a command prints on its standard output; it has to end well."""
    process = await asyncio.create_subprocess_exec(
        *command, cwd=cwd, env=environment(), stdin=DEVNULL, stdout=PIPE, stderr=PIPE
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), 300)
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, f"{out.decode()}\n{err.decode()}"
    return out.decode()


def check(printed: str) -> None:
    """Each task has shown what it has to."""
    parts = dict(re.findall(r"^== (.*)\n((?:(?!== ).*\n)*)", printed, re.MULTILINE))
    for heading, patterns in SHOWN.items():
        for pattern in patterns:
            assert re.search(pattern, parts.get(heading, "")), f"{heading}: no {pattern!r} in\n{printed}"


async def made(client: str, folder: Path) -> list[str | Path]:
    """Compile the program of a language; the command that runs it."""
    source = folder / "Tasks.java" if client == "java" else folder / "tasks"
    match client:
        case "python":
            source.write_text(
                program(
                    "python",
                    PYTHON,
                    lambda name, body: f"async def {name}(client: Client) -> None:\n{body}",
                    lambda name, heading: f"print('== {heading}')\nawait {name}(client)",
                    ("    ", "        "),
                )
            )
            return [sys.executable, source]
        case "go":
            source.write_text(
                program(
                    "go",
                    GO,
                    lambda name, body: (
                        f"func {name}(ctx context.Context, client *wavegate.Client) error {{\n{body}"
                        + (
                            ""
                            if body.rstrip().rpartition("\n")[2].strip().startswith("return")
                            else "\treturn nil\n"
                        )
                        + "}\n"
                    ),
                    lambda name, heading: (
                        f'fmt.Println("== {heading}")\nrun("{heading}", {name}(ctx, client))'
                    ),
                    ("\t", "\t"),
                )
            )
            # As if it stood in the module, whose pinned modules it uses.
            overlay = folder / "overlay.json"
            place = ROOT / "clients" / "go" / "cmd" / "tasks" / "main.go"
            overlay.write_text(json.dumps({"Replace": {str(place): str(source)}}))
            binary = folder / "tasks-go"
            await run("go", "build", "-C", "clients/go", "-overlay", overlay, "-o", binary, "./cmd/tasks")
            return [binary]
        case "java":
            source.write_text(
                program(
                    "java",
                    JAVA,
                    lambda name, body: (
                        f"  static void {name}(Client client) throws Exception {{\n{body}  }}\n"
                    ),
                    lambda name, heading: f'System.out.println("== {heading}");\n{name}(client);',
                    ("    ", "      "),
                )
            )
            target = ROOT / "clients" / "java" / "target"
            classpath = f"{target / 'classes'}:{(target / 'driver.classpath').read_text().strip()}"
            return ["java", "-cp", classpath, source]
    place = ROOT / "clients" / "typescript" / "build" / "tasks"
    place.mkdir(parents=True, exist_ok=True)
    typescript = place / "tasks.ts"  # within the package, which finds itself by its name
    typescript.write_text(
        program(
            "ts",
            TYPESCRIPT,
            lambda name, body: f"async function {name}(client: Client): Promise<void> {{\n{body}}}\n",
            lambda name, heading: f'console.log("== {heading}");\nawait {name}(shared);',
            ("  ", ""),
        )
    )
    strict = (
        "--ignoreConfig",
        "--strict",
        "--target",
        "es2022",
        "--module",
        "nodenext",
        "--types",
        "node",
        "--skipLibCheck",
    )
    package = ROOT / "clients" / "typescript"
    await run("node", "node_modules/typescript-7/bin/tsc", *strict, typescript, cwd=package)
    return ["node", typescript.with_suffix(".js")]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("client", ["python", "go", "java", "typescript"])
async def test_the_blocks_of_a_language_run(client: str, tmp_path: Path) -> None:
    if why := missing(client):
        pytest.skip(why)
    await asyncio.to_thread(build, client)
    command = await made(client, tmp_path)
    recording = tmp_path / "recording"
    recording.write_bytes(waves_local.speak([SAID], HZ, tail_s=0.5))
    async with running("--local-engine", "deterministic") as gateway:
        check(await run(*command, gateway.target, recording))
