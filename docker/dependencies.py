"""Print what pyproject.toml wants to have installed, a line each, so that packages become a layer without the program.

Use: dependencies.py PYPROJECT EXTRA...
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path(sys.argv[1]).read_text("utf-8"))["project"]
extras = project["optional-dependencies"]
for extra in sys.argv[2:]:
    if extra not in extras:
        sys.exit(f"There is no extra {extra!r}; pyproject.toml has {', '.join(extras)}.")
print(*project["dependencies"], *(line for extra in sys.argv[2:] for line in extras[extra]), sep="\n")
