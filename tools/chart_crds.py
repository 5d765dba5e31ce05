"""Copy the CustomResourceDefinitions into the chart: `python -m tools.chart_crds [--check]`. Standard library only.

The chart has them among its templates, so that an upgrade upgrades them; an annotation tells Helm to leave them, and with
them all jobs, when the chart is uninstalled.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "crds"
TARGET = ROOT / "charts" / "sternpost" / "files" / "crds"
_HEADER = "# Generated from crds/ by `python -m tools.chart_crds`.\n"
_METADATA = "metadata:\n"
_KEEP = _METADATA + "  annotations:\n    helm.sh/resource-policy: keep\n"


class SourceError(ValueError):
    """A definition does not look as expected."""


def kept(definition: str) -> str:
    """A definition that Helm keeps; raises `SourceError` where there is no place for the annotation."""
    if definition.count(f"\n{_METADATA}") != 1 or "\n  annotations:" in definition:
        raise SourceError("needs one top-level `metadata:` without annotations")
    body = definition.split("\n", 1)[1] if definition.startswith("#") else definition
    return _HEADER + body.replace(_METADATA, _KEEP, 1)


def wanted(source: Path = SOURCE) -> dict[str, str]:
    """File name to content."""
    found = {}
    for path in sorted(source.glob("*.yaml")):
        try:
            found[path.name] = kept(path.read_text(encoding="utf-8"))
        except SourceError as error:
            raise SourceError(f"{path}: {error}") from error
    return found


def stale(files: dict[str, str], target: Path = TARGET) -> list[str]:
    """Names of files that are missing, different, or not generated any more."""
    there = {path.name: path.read_text(encoding="utf-8") for path in target.glob("*.yaml")}
    return sorted(name for name in files.keys() | there.keys() if files.get(name) != there.get(name))


def write(files: dict[str, str], target: Path = TARGET) -> None:
    """Make the folder hold these files."""
    target.mkdir(parents=True, exist_ok=True)
    for path in target.glob("*.yaml"):
        if path.name not in files:
            path.unlink()
    for name, content in files.items():
        (target / name).write_text(content, encoding="utf-8")


def main() -> None:
    """Parse the arguments; write, or check and exit with 1 where something is not up to date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file is not up to date")
    check: bool = parser.parse_args().check
    try:
        files = wanted()
    except SourceError as error:
        sys.exit(f"chart_crds: {error}")
    if not check:
        write(files)
    elif names := stale(files):
        sys.exit("\n".join([*(f"{TARGET / name}: is not what crds/ says" for name in names), "run: make generate"]))


if __name__ == "__main__":
    main()
