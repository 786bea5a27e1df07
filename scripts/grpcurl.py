"""grpcurl for the test of examples/grpcurl.md: the one on the PATH, else one built from its Go module, once a machine.

grpcurl.py path    print the folder that holds it
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import Final

from tool_cache import GoProgram, Say, ToolError, go_programs

MODULE: Final = GoProgram(
    name="grpcurl",
    module="github.com/fullstorydev/grpcurl",
    version="v1.9.4",
    checksum="h1:7bC3tlRwS7dPyfhBo0Xmigns8hWH/K4fg9NrafpY57k=",
    go=(1, 24),
    packages={"grpcurl": "./cmd/grpcurl"},
    takes="about two minutes on two cores",
)


def main() -> int:
    """Print where it is; 1 where it cannot be had."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("path",))
    parser.parse_args()
    say = Say("grpcurl")
    try:
        found = shutil.which("grpcurl")
        print(Path(found).parent if found else go_programs(MODULE, say))
    except ToolError as exc:
        say(str(exc))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
