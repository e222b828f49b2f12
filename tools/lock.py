"""Write requirements.lock: resolve pyproject.toml in a fresh environment and pin what came out."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
ELSEWHERE = {"uvloop": 'sys_platform != "win32"'}
"""Packages that some platforms do not have, with the marker that says so."""


def main() -> None:
    """Keep the comment at the head of the lock file and replace the pins."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [
        *project["build-system"]["requires"],
        *project["project"]["dependencies"],
        *(name for extra in project["project"]["optional-dependencies"].values() for name in extra),
    ]
    head = [line for line in LOCK.read_text().splitlines() if line.startswith("#")]
    # torch keeps its pin: left free, it may come as a build with gigabytes for a GPU that is not there.
    torch = next(line for line in LOCK.read_text().splitlines() if line.startswith("torch=="))
    with tempfile.TemporaryDirectory() as folder:
        python = Path(folder) / "bin" / "python"
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", torch, *wanted], check=True)
        freeze = [python, "-m", "pip", "freeze", "--all"]
        found = subprocess.run(freeze, check=True, text=True, stdout=subprocess.PIPE).stdout.splitlines()
    LOCK.write_text("\n".join([*head, *sorted(pin(line) for line in found if not line.startswith("pip=="))]) + "\n")


def pin(line: str) -> str:
    """A line of pip's freeze without the local suffix of a build, and with the marker that the package needs."""
    name, version = line.split("==")
    name = re.sub(r"[-_.]+", "-", name).lower()
    marker = f" ; {ELSEWHERE[name]}" if name in ELSEWHERE else ""
    return f"{name}=={version.partition('+')[0]}{marker}"


if __name__ == "__main__":
    main()
