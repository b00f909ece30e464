"""Ask an address of this container: exit status 0 for an answer of 2xx. The answer, or why there is none, goes to the
engine's record of health checks (`docker inspect`). Use: healthcheck.py URL
"""

from __future__ import annotations

import sys
import urllib.error
import urllib.request

SHOWN = 1000  # bytes of the answer; a page of metrics is longer
SECONDS = 25  # a machine that is busy with everything else is slow, not ill

direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # whatever proxy the environment may name
try:
    with direct.open(sys.argv[1], timeout=SECONDS) as answer:
        print(answer.read(SHOWN).decode(errors="replace"))
except urllib.error.HTTPError as error:
    sys.exit(f"{error.code}: {error.read(SHOWN).decode(errors='replace')}")
except OSError as error:
    sys.exit(f"{sys.argv[1]} does not answer: {error}")
