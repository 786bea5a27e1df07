"""Generate the code of every language from protos/, by buf.gen.yaml, or check that it is what protos/ says.

The plugins of Go, Java and TypeScript come with the toolchain of their language. A language whose toolchain is not on
this machine is left out, with a line that says so; with `--all` that is an error.

Runs in `.tools` (see the Makefile), which has buf, and Python's generators.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
TOOLS = ROOT / ".tools"


@dataclass(frozen=True)
class Language:
    """What a language's generators are made with, and where their code goes."""

    name: str
    generated: Path
    needs: tuple[str, ...] = ()
    """Programs that have to be on the PATH."""
    pins: tuple[Path, ...] = ()
    """The files that pin its generators: where they change, the generators are fetched anew."""
    fetch: tuple[str, ...] = ()
    """What brings the generators into .tools, or where the language keeps its own."""
    fetched: tuple[Path, ...] = ()
    """The generators."""


LANGUAGES = (
    Language("Python", Path("clients/python/wavegate/speech/v1")),
    Language(
        "Go",
        Path("clients/go/gen"),
        needs=("go",),
        pins=(Path("clients/go/tools/go.sum"),),
        fetch=(
            *("go", "-C", "clients/go/tools", "install"),
            *(
                "google.golang.org/protobuf/cmd/protoc-gen-go",
                "google.golang.org/grpc/cmd/protoc-gen-go-grpc",
            ),
        ),
        fetched=(TOOLS / "go/protoc-gen-go", TOOLS / "go/protoc-gen-go-grpc"),
    ),
    Language(
        "Java",
        Path("clients/java/gen"),
        needs=("java", "mvn"),
        pins=(Path("clients/java/pom.xml"),),
        fetch=(
            *("mvn", "--quiet", "--batch-mode", "--file", "clients/java/pom.xml"),
            *("dependency:copy", f"-DoutputDirectory={TOOLS / 'java'}"),
        ),
        fetched=(TOOLS / "java/protoc", TOOLS / "java/protoc-gen-grpc-java"),
    ),
    Language(
        "TypeScript",
        Path("clients/typescript/src/gen"),
        needs=("node", "npm"),
        pins=(Path("clients/typescript/package-lock.json"),),
        fetch=("npm", "ci", "--prefix", "clients/typescript", "--ignore-scripts", "--no-audit", "--no-fund"),
        fetched=(ROOT / "clients/typescript/node_modules/.bin/protoc-gen-es",),
    ),
)


def prepare(language: Language) -> None:
    """Fetch a language's generators, unless the pinned ones are there. Raises `CalledProcessError`."""
    if not language.fetch:
        return
    stamp = TOOLS / f".{language.name.lower()}"
    pinned = b"".join((ROOT / pin).read_bytes() for pin in language.pins)
    if all(p.exists() for p in language.fetched) and stamp.exists() and stamp.read_bytes() == pinned:
        return
    print(f"Fetching the generators of {language.name}", flush=True)
    environment = {**os.environ, "GOBIN": str(TOOLS / "go")}
    subprocess.run(language.fetch, cwd=ROOT, env=environment, check=True)  # noqa: S603
    for program in language.fetched:
        program.chmod(0o755)  # Maven leaves that out
    stamp.write_bytes(pinned)


def template(languages: list[Language]) -> dict[str, Any]:
    """buf.gen.yaml with the plugins of these languages only."""
    whole: dict[str, Any] = yaml.safe_load((ROOT / "buf.gen.yaml").read_text())
    folders = [language.generated for language in languages]
    plugins = [p for p in whole["plugins"] if any(f.is_relative_to(p["out"]) for f in folders)]
    return {**whole, "plugins": plugins}


def differences(left: Path, right: Path) -> list[Path]:
    """The files that are not the same below two folders, as paths below them."""
    names = {
        path.relative_to(folder)
        for folder in (left, right)
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    return sorted(
        name
        for name in names
        if not ((left / name).exists() and (right / name).exists())
        or not filecmp.cmp(left / name, right / name, shallow=False)
    )


def main() -> int:
    """Generate or check; 1 where the generated code differs, or with `--all` a toolchain is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, and fail on a difference")
    parser.add_argument(
        "--all", action="store_true", help="fail where the toolchain of a language is missing"
    )
    arguments = parser.parse_args()
    languages = []
    for language in LANGUAGES:
        missing = [program for program in language.needs if shutil.which(program) is None]
        if not missing:
            prepare(language)
            languages.append(language)
            continue
        print(f"{language.name} is left out: no {' and no '.join(missing)} on the PATH", file=sys.stderr)
        if arguments.all:
            return 1
    with tempfile.TemporaryDirectory() as folder:
        command = ["buf", "generate", "--output", folder, "--template", json.dumps(template(languages))]
        subprocess.run(command, cwd=ROOT, check=True)  # noqa: S603
        changed = []
        for language in languages:
            fresh, committed = Path(folder, language.generated), ROOT / language.generated
            changed += [language.generated / name for name in differences(fresh, committed)]
            if not arguments.check:
                shutil.rmtree(committed, ignore_errors=True)
                shutil.copytree(fresh, committed)
    names = ", ".join(language.name for language in languages)
    if arguments.check and changed:
        print("not what protos/ says:", *changed, sep="\n  ", file=sys.stderr)
        print("Run: make protos", file=sys.stderr)
        return 1
    print(f"generated code: {'up to date' if arguments.check else f'{len(changed)} files changed'} ({names})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
