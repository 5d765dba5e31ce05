"""Make `.venv` from the lock: the first step of every make target. Standard library only.

Needs Python >= 3.11 and nothing else. Where the system's Python comes without `venv` (Debian splits it off), it is
installed with apt-get when running as root; otherwise the message says what to install.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
LOCK = ROOT / "requirements.lock"


def run(*command: str | Path) -> None:
    """Run a command; its failure ends the setup with the same exit code."""
    print("+", *command, file=sys.stderr, flush=True)
    result = subprocess.run([str(part) for part in command], cwd=ROOT, check=False)
    if result.returncode:
        sys.exit(f"setup: the command above failed with exit code {result.returncode}")


def make_venv() -> None:
    """Create the virtual environment, with pip in it."""
    if (
        PYTHON.exists()
        and subprocess.run([PYTHON, "-m", "pip", "--version"], capture_output=True, check=False).returncode == 0
    ):
        return
    shutil.rmtree(VENV, ignore_errors=True)
    if subprocess.run([sys.executable, "-m", "venv", VENV], check=False).returncode == 0:
        return
    shutil.rmtree(VENV, ignore_errors=True)
    if os.geteuid() == 0 and shutil.which("apt-get"):
        run("apt-get", "update", "-q")
        run("apt-get", "install", "-qy", "--no-install-recommends", "python3-venv")
        run(sys.executable, "-m", "venv", VENV)
        return
    sys.exit(f"setup: {sys.executable} has no working venv module; on Debian: apt-get install python3-venv")


def locked(name: str) -> str:
    """The lock's own lines for one package, hashes included."""
    lines = LOCK.read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"{name}=="))
    end = next((number for number in range(start + 1, len(lines)) if not lines[number].startswith(" ")), len(lines))
    return "\n".join(lines[start:end]) + "\n"


def install_requirements() -> None:
    """Install exactly what the lock names, each file checked against its hash."""
    stamp = VENV / ".requirements"
    digest = hashlib.sha256(LOCK.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return
    uv_only = VENV / "uv-requirements.txt"
    uv_only.write_text(locked("uv"))
    run(PYTHON, "-m", "pip", "install", "-q", "--require-hashes", "-r", uv_only)
    # Compiled once: tests start hundreds of processes, and some of them where nothing may be written.
    install = (VENV / "bin" / "uv", "pip", "install", "--compile-bytecode", "--python", PYTHON)
    run(*install, "--require-hashes", "-r", LOCK)
    stamp.write_text(digest)


def install_project(*, editable: bool) -> None:
    """Install the project: as the wheel that users get, or linked to this folder for development."""
    uv = VENV / "bin" / "uv"
    if editable:
        run(uv, "pip", "install", "-q", "--python", PYTHON, "--no-deps", "--no-build-isolation", "-e", ROOT)
        return
    shutil.rmtree(ROOT / "dist", ignore_errors=True)
    run(PYTHON, "-m", "build", "--wheel", "--no-isolation", "--outdir", ROOT / "dist", ROOT)
    (wheel,) = (ROOT / "dist").glob("sternpost-*.whl")
    run(uv, "pip", "install", "-q", "--python", PYTHON, "--no-deps", "--reinstall", wheel)
    packages = sorted(VENV.glob("lib/python3.*/site-packages/sternpost_*/"))
    run(PYTHON, "-m", "compileall", "-q", *packages)


def main() -> None:
    """Parse the arguments and do it."""
    parser = argparse.ArgumentParser(description="Make .venv from requirements.lock and install Sternpost into it.")
    parser.add_argument("--editable", action="store_true", help="link the project instead of installing its wheel")
    editable: bool = parser.parse_args().editable
    if sys.version_info < (3, 11):  # noqa: UP036 -- this file runs before anything has checked the version
        sys.exit(
            f"setup: Python 3.11 or newer is needed, this is {sys.version.split()[0]}; set PYTHON=/path/to/python3"
        )
    make_venv()
    install_requirements()
    install_project(editable=editable)


if __name__ == "__main__":
    main()
