"""Install the locked packages and the project into the environment that runs this file.

On Linux the default index serves torch built for CUDA, several gigabytes that a machine without a GPU cannot use.
Where there is no GPU and pip would take that build, the CPU build of the pinned version is installed first: uv (a
locked package itself) knows where to get it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"


def main() -> None:
    """Install torch for this machine, then the lock file, then the project, editable."""
    pins = dict(line.split()[0].split("==") for line in LOCK.read_text().splitlines() if line and line[0] != "#")
    if sys.platform == "linux" and not has_nvidia_gpu() and torch_build(pins["torch"]) != "cpu":
        pip("install", "--quiet", f"uv=={pins['uv']}")
        cpu_torch = [f"torch=={pins['torch']}", "--torch-backend", "cpu", "--python", sys.executable]
        run([sys.executable, "-m", "uv", "pip", "install", *cpu_torch])
    pip("install", "--quiet", "--requirement", str(LOCK))
    pip("install", "--quiet", "--no-deps", "--no-build-isolation", "--editable", str(ROOT))


def has_nvidia_gpu() -> bool:
    """Whether an NVIDIA driver is loaded, here or below WSL."""
    return Path("/proc/driver/nvidia/version").exists() or Path("/dev/dxg").exists()


def torch_build(version: str) -> str:
    """The local suffix ("cpu", "cu130", or none) of the torch build that is installed, or that pip would install."""
    report = pip("install", "--quiet", "--dry-run", "--no-deps", "--report", "-", f"torch=={version}", capture=True)
    installs = json.loads(report)["install"]
    found = installs[0]["metadata"]["version"] if installs else installed_torch()
    return found.partition("+")[2]


def installed_torch() -> str:
    """The version of torch in this environment."""
    from importlib.metadata import version

    return version("torch")


def pip(*arguments: str, capture: bool = False) -> str:
    """Run this environment's pip; return what it printed if that is captured."""
    return run([sys.executable, "-m", "pip", *arguments], capture)


def run(command: list[str], capture: bool = False) -> str:
    """Run a command; leave with its exit code if it fails."""
    result = subprocess.run(command, text=True, stdout=subprocess.PIPE if capture else None, check=False)
    if result.returncode:
        sys.exit(f"set-up failed at: {' '.join(command)}")
    return result.stdout or ""


if __name__ == "__main__":
    main()
