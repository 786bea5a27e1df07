"""Write the API reference of the Python client: one page a module, made from its docstrings by pdoc."""

import sys
from pathlib import Path

import pdoc

MODULES = (
    "wavegate",
    "wavegate.sync",
    "wavegate.settings",
    "wavegate.events",
    "wavegate.errors",
    "wavegate.recordings",
)


def main() -> None:
    """Write the pages into the folder that is given, `build/docs` without one."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "build/docs")
    pdoc.render.configure(docformat="markdown", show_source=False)
    pdoc.pdoc(*MODULES, output_directory=folder)
    print(folder / "index.html")


if __name__ == "__main__":
    main()
