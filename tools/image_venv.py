"""Make the virtual environment of an image, in two steps that a build can cache apart. Standard library only.

    python3 tools/image_venv.py requirements EXTRA   # what requirements.lock pins for the extra
    python3 tools/image_venv.py project              # the project's wheel on top

The environment gets no pip. What no service reads at run time is dropped: tests, sources and headers of extensions,
type stubs; in NumPy, SciPy and scikit-learn that is a large part. Everything is compiled beforehand, by hash and unchecked:
a registry or a runtime that changes file times would otherwise make Python compile anew at every start, and keep
nothing of it on a read-only file system.
"""

from __future__ import annotations

import argparse
import compileall
import py_compile
import shutil
import subprocess
import sys
import venv
from pathlib import Path

from locked import ROOT, closure, names_of_extra, parse_lock

VENV = Path("/opt/sternpost")
WHEELS = Path("/dist")
TESTED = ("joblib", "numpy", "scipy", "sklearn")
"""Packages that ship their tests and never import them; in others a folder `tests` may be part of the program."""
WITHOUT = ("rich",)
"""Typer draws its messages with it, unless TYPER_USE_RICH=0, which the image sets. With what it needs it is 15 MB."""
UNREAD = frozenset({".pyi", ".pyx", ".pxd", ".pxi", ".tp", ".h", ".hpp", ".c", ".cpp", ".f90", ".a", ".lib"})


def pip_install(python: Path, *arguments: str | Path) -> None:
    """Run pip for another environment; its failure ends the build with its exit code."""
    command = [
        *(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-compile", "--no-deps"),
        *arguments,
    ]
    result = subprocess.run([str(part) for part in command], check=False)
    if result.returncode:
        sys.exit(result.returncode)


def site_packages(folder: Path) -> Path:
    """Where the environment's packages lie."""
    (found,) = folder.glob("lib/python3.*/site-packages")
    return found


def prune(packages: Path) -> None:
    """Remove what no service reads."""
    for name in TESTED:
        for folder in [*(packages / name).rglob("tests"), *(packages / name).rglob("test")]:
            if folder.is_dir():
                shutil.rmtree(folder)
    for path in packages.rglob("*"):
        if path.suffix in UNREAD and path.is_file():
            path.unlink()


def byte_compile(packages: Path) -> None:
    """Compile all modules; one that does not compile ends the build."""
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    if not compileall.compile_dir(packages, quiet=1, workers=0, maxlevels=50, invalidation_mode=mode):
        sys.exit(f"image_venv: {packages}: the modules above do not compile")


def add_requirements(extra: str) -> None:
    """A new environment with what the extra needs, each file checked against its hash."""
    entries = parse_lock((ROOT / "requirements.lock").read_text(encoding="utf-8"))
    names = names_of_extra((ROOT / "pyproject.toml").read_text(encoding="utf-8"), extra)
    venv.create(VENV, symlinks=True, with_pip=False)
    listed = VENV / "requirements.txt"  # stays: it tells what the image holds
    listed.write_text("".join(entry.text for entry in closure(entries, names, WITHOUT)), encoding="utf-8")
    pip_install(VENV / "bin" / "python3", "--require-hashes", "--only-binary", ":all:", "--requirement", listed)
    prune(site_packages(VENV))
    byte_compile(site_packages(VENV))


def add_project() -> None:
    """The wheel that the build made."""
    (wheel,) = WHEELS.glob("sternpost-*.whl")
    pip_install(VENV / "bin" / "python3", "--no-index", wheel)
    byte_compile(site_packages(VENV))


def main() -> None:
    """Parse the arguments and do it."""
    parser = argparse.ArgumentParser(description="Make the virtual environment of an image.")
    steps = parser.add_subparsers(dest="step", required=True)
    steps.add_parser("requirements", help="what the lock pins for an extra").add_argument("extra")
    steps.add_parser("project", help="the wheel in /dist")
    options = parser.parse_args()
    if options.step == "requirements":
        add_requirements(options.extra)
    else:
        add_project()


if __name__ == "__main__":
    main()
