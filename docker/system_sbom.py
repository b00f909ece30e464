"""Print a CycloneDX bill of materials of the Debian packages of this image: those of the base it was built on."""

from __future__ import annotations

import json
import platform
import subprocess
from pathlib import Path
from urllib.parse import quote

FIELDS = "${Package}\t${Version}\t${Architecture}\t${Maintainer}\n"

release = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text("utf-8").splitlines() if "=" in line)
release = {key: value.strip('"') for key, value in release.items()}
listed = subprocess.run(["dpkg-query", "--show", f"--showformat={FIELDS}"], check=True, capture_output=True, text=True)
components = []
for name, version, architecture, maintainer in sorted(line.split("\t") for line in listed.stdout.splitlines()):
    purl = f"pkg:deb/{release['ID']}/{name}@{quote(version)}?arch={architecture}&distro={release['VERSION_CODENAME']}"
    components.append(
        {
            "type": "library",
            "bom-ref": purl,
            "name": name,
            "version": version,
            "supplier": {"name": maintainer},
            "purl": purl,
        }
    )
bill = {
    "bomFormat": "CycloneDX",
    "specVersion": "1.5",
    "version": 1,
    "metadata": {
        "component": {
            "type": "operating-system",
            "name": release["ID"],
            "version": Path("/etc/debian_version").read_text("utf-8").strip(),
            "description": f"{release['PRETTY_NAME']}, {platform.machine()}, Python {platform.python_version()}",
        }
    },
    "components": components,
}
print(json.dumps(bill, indent=2))
