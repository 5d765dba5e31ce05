"""Print the part of `requirements.lock` that an extra or a package needs, hashes included. Standard library only.

An image installs its own extra and nothing else, at the versions everything was tested with. The lock tells of each
package who asked for it (`# via`), so the part is found without asking any registry.
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class LockError(ValueError):
    """The lock or the project file has not what was asked for."""


@dataclass(frozen=True)
class Entry:
    """One package of the lock."""

    name: str
    text: str
    """Its lines: version, marker, hashes; without the comments."""
    wanted_by: frozenset[str]


def normalized(name: str) -> str:
    """A distribution's name as the lock spells it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def parse_lock(text: str) -> dict[str, Entry]:
    """All entries by name; a package with several lines, one for each range of Pythons, is one entry."""
    entries: dict[str, Entry] = {}
    for block in re.split(r"\n(?=[A-Za-z0-9])", text):
        match = _NAME.match(block)
        if match is None:
            continue
        name = normalized(match.group())
        lines = block.splitlines()
        comments = [line.strip().removeprefix("#").strip() for line in lines if line.lstrip().startswith("#")]
        kept = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
        parents = (comment.removeprefix("via").strip() for comment in comments)
        wanted_by = frozenset(normalized(parent) for parent in parents if _NAME.fullmatch(parent))
        before = entries.get(name, Entry(name, "", frozenset()))
        entries[name] = Entry(name, before.text + "\n".join(kept) + "\n", before.wanted_by | wanted_by)
    return entries


def names_of_extra(project: str, extra: str) -> list[str]:
    """What `[project.optional-dependencies]` lists for the extra; raises `LockError` where there is none."""
    extras: dict[str, list[str]] = tomllib.loads(project)["project"]["optional-dependencies"]
    if extra not in extras:
        raise LockError(f"pyproject.toml has no extra {extra!r}; it has {', '.join(sorted(extras))}")
    return [match.group() for requirement in extras[extra] if (match := _NAME.match(requirement))]


def closure(entries: dict[str, Entry], names: Iterable[str], without: Iterable[str] = ()) -> list[Entry]:
    """The named packages and all they need, sorted, except `without` and what only those need.

    Raises `LockError` where the lock lacks one.
    """
    found: set[str] = set()
    left_out = set(without)
    waiting = [normalized(name) for name in names]
    while waiting:
        name = waiting.pop()
        if name in found or name in left_out:
            continue
        if name not in entries:
            raise LockError(f"requirements.lock has no {name}; run: make lock")
        found.add(name)
        waiting += [entry.name for entry in entries.values() if name in entry.wanted_by]
    return [entries[name] for name in sorted(found)]


def main() -> None:
    """Parse the arguments and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--extra", action="append", default=[], help="an extra of pyproject.toml")
    parser.add_argument("--package", action="append", default=[], help="a package of the lock")
    options = parser.parse_args()
    if not options.extra and not options.package:
        parser.error("nothing asked for; give --extra or --package")
    try:
        entries = parse_lock((ROOT / "requirements.lock").read_text(encoding="utf-8"))
        project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        names = [*options.package, *(name for extra in options.extra for name in names_of_extra(project, extra))]
        print("".join(entry.text for entry in closure(entries, names)), end="")
    except LockError as error:
        sys.exit(f"locked: {error}")


if __name__ == "__main__":
    main()
