"""What a disk may hold after the power was lost: pure, from a recording of the file operations.

What POSIX promises and no more: data is on the disk once the file was fsynced, a name once its folder was. Of everything
else any part may be there and any part missing, in any order: a rename without the create before it, a name whose file
is empty, half there, or full of zeros. Real file systems keep more order than that, so whatever survives here survives there.
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any
from unittest import mock

EXHAUSTIVE = 300
"""Up to so many states at one moment all are tried; beyond it the simple ones, and a random part of the rest."""
RANDOM_STATES = 40

ROOT = 0


@dataclass(frozen=True)
class Write:
    file: int
    offset: int
    data: bytes


@dataclass(frozen=True)
class Names:
    """One atomic change of names in one folder: a create, a link, an unlink, or both sides of a rename."""

    folder: int
    changes: tuple[tuple[str, int | None], ...]


@dataclass(frozen=True)
class Sync:
    object: int
    """A file or a folder."""


@dataclass(frozen=True)
class Mark:
    """Something that the caller was told at this moment."""

    what: Any


Operation = Write | Names | Sync | Mark


class Fate(Enum):
    """What became of an operation that was not synced."""

    LOST = 0
    DONE = 1
    HALF = 2
    """Of a write: its first half."""
    ZEROS = 3
    """Of a write: the file has grown, the data has not come."""


@dataclass
class Recording:
    """Operations below a folder, in their order."""

    operations: list[Operation] = field(default_factory=list)
    folders: set[int] = field(default_factory=lambda: {ROOT})

    def mark(self, what: Any) -> None:
        self.operations.append(Mark(what))

    def crashes(self, seed: int = 1) -> Iterator[tuple[int, dict[str, bytes]]]:
        """(operations before the power was lost, a possible content of the disk), each content once a moment.

        Names beginning with a dot are left out of the content, as readers leave them out.
        """
        shuffled = random.Random(seed)  # noqa: S311 # not a secret
        for moment in range(len(self.operations) + 1):
            open_ = self._not_synced(moment)
            seen: set[frozenset[tuple[str, bytes]]] = set()
            for fates in _fates([self.operations[number] for number in open_], shuffled):
                content = self._content(moment, dict(zip(open_, fates, strict=True)))
                key = frozenset(content.items())
                if key not in seen:
                    seen.add(key)
                    yield moment, content

    def marks(self, moment: int) -> list[Any]:
        """What the caller had been told by then."""
        return [operation.what for operation in self.operations[:moment] if isinstance(operation, Mark)]

    def _not_synced(self, moment: int) -> list[int]:
        synced: set[int] = set()
        open_: list[int] = []
        for number in range(moment - 1, -1, -1):
            match self.operations[number]:
                case Sync(object=target):
                    synced.add(target)
                case Write(file=target) | Names(folder=target):
                    if target not in synced:
                        open_.append(number)
        return open_[::-1]

    def _content(self, moment: int, fates: dict[int, Fate]) -> dict[str, bytes]:
        files: dict[int, bytearray] = {}
        folders: dict[int, dict[str, int]] = {folder: {} for folder in self.folders}
        for number, operation in enumerate(self.operations[:moment]):
            fate = fates.get(number, Fate.DONE)
            if fate is Fate.LOST:
                continue
            if isinstance(operation, Write):
                _write(files.setdefault(operation.file, bytearray()), operation, fate)
            elif isinstance(operation, Names):
                for name, target in operation.changes:
                    if target is None:
                        folders[operation.folder].pop(name, None)
                    else:
                        folders[operation.folder][name] = target
        found: dict[str, bytes] = {}
        waiting = [("", ROOT)]
        while waiting:
            path, folder = waiting.pop()
            for name, target in folders[folder].items():
                if name.startswith("."):
                    continue
                if target in folders:
                    waiting.append((f"{path}{name}/", target))
                else:
                    found[path + name] = bytes(files.get(target, b""))
        return found


def _write(file: bytearray, operation: Write, fate: Fate) -> None:
    end = operation.offset + len(operation.data)
    if len(file) < end:
        file.extend(bytes(end - len(file)))
    if fate is Fate.DONE:
        file[operation.offset : end] = operation.data
    elif fate is Fate.HALF:
        half = len(operation.data) // 2
        file[operation.offset : operation.offset + half] = operation.data[:half]
        del file[operation.offset + half :]


def _fates(operations: list[Operation], shuffled: random.Random) -> Iterator[tuple[Fate, ...]]:
    choices = [tuple(Fate) if isinstance(operation, Write) else (Fate.LOST, Fate.DONE) for operation in operations]
    total = 1
    for each in choices:
        total *= len(each)
    if total <= EXHAUSTIVE:
        yield from itertools.product(*choices)
        return
    for base, other in ((Fate.LOST, Fate.DONE), (Fate.DONE, Fate.LOST)):
        for end in range(len(choices) + 1):  # every prefix, and every rest
            yield tuple(other if place < end else base for place in range(len(choices)))
        for place, each in enumerate(choices):  # every single one apart from the others
            for fate in each:
                yield tuple(fate if here == place else base for here in range(len(choices)))
    for _ in range(RANDOM_STATES):
        yield tuple(shuffled.choice(each) for each in choices)


class _Recorder:
    """Stands in for functions of `os`, does what they do, and writes down what concerns the folder."""

    def __init__(self, root: Path, recording: Recording) -> None:
        self._root = str(root)
        self._recording = recording
        self._ids: dict[str, int] = {self._root: ROOT}
        """By path; a file that was unlinked and made again is another one."""
        self._descriptors: dict[int, tuple[int, int]] = {}
        """Descriptor to (object, position)."""
        self._next = 1
        self._real: dict[str, Callable[..., Any]] = {}

    @contextmanager
    def recording(self) -> Iterator[None]:
        with mock.patch.multiple(os, **{name: self._patched(name) for name in _PATCHED}):
            yield

    def _patched(self, name: str) -> Callable[..., Any]:
        self._real[name] = getattr(os, name)
        method: Callable[..., Any] = getattr(self, f"_{name}")
        return method

    def _open(self, path: Any, flags: int, mode: int = 0o777, **more: Any) -> int:
        known = os.path.lexists(path)
        descriptor: int = self._real["open"](path, flags, mode, **more)
        if self._inside(path):
            if not known and flags & os.O_CREAT:
                self._name(path, self._new(path))
            assert not flags & (os.O_TRUNC | os.O_APPEND), "the model knows neither"
            self._descriptors[descriptor] = (self._ids[str(path)], 0)
        return descriptor

    def _write(self, descriptor: int, data: Any) -> int:
        written: int = self._real["write"](descriptor, data)
        if descriptor in self._descriptors:
            target, position = self._descriptors[descriptor]
            self._recording.operations.append(Write(target, position, bytes(data)[:written]))
            self._descriptors[descriptor] = (target, position + written)
        return written

    def _fsync(self, descriptor: int) -> None:
        self._real["fsync"](descriptor)
        if descriptor in self._descriptors:
            self._recording.operations.append(Sync(self._descriptors[descriptor][0]))

    def _close(self, descriptor: int) -> None:
        self._descriptors.pop(descriptor, None)
        self._real["close"](descriptor)

    def _replace(self, source: Any, target: Any, **more: Any) -> None:
        self._real["replace"](source, target, **more)
        if self._inside(target):
            assert os.path.dirname(source) == os.path.dirname(target), "the model renames inside of a folder"  # noqa: PTH120
            moved = self._ids.pop(str(source))
            self._ids[str(target)] = moved
            changes = ((os.path.basename(source), None), (os.path.basename(target), moved))  # noqa: PTH119
            self._recording.operations.append(Names(self._folder(target), changes))

    def _link(self, source: Any, target: Any, **more: Any) -> None:
        self._real["link"](source, target, **more)
        if self._inside(target):
            self._ids[str(target)] = self._ids[str(source)]
            self._name(target, self._ids[str(source)])

    def _unlink(self, path: Any, **more: Any) -> None:
        self._real["unlink"](path, **more)
        if self._inside(path):
            self._ids.pop(str(path))
            self._name(path, None)

    def _mkdir(self, path: Any, mode: int = 0o777, **more: Any) -> None:
        self._real["mkdir"](path, mode, **more)
        if self._inside(path):
            new = self._new(path)
            self._recording.folders.add(new)
            self._name(path, new)

    def _rmdir(self, path: Any, **more: Any) -> None:
        self._real["rmdir"](path, **more)
        if self._inside(path):
            self._ids.pop(str(path))
            self._name(path, None)

    def _inside(self, path: Any) -> bool:
        return str(path) == self._root or str(path).startswith(self._root + "/")

    def _folder(self, path: Any) -> int:
        return self._ids[os.path.dirname(str(path))]  # noqa: PTH120

    def _new(self, path: Any) -> int:
        self._ids[str(path)] = self._next
        self._next += 1
        return self._ids[str(path)]

    def _name(self, path: Any, target: int | None) -> None:
        change = ((os.path.basename(str(path)), target),)  # noqa: PTH119
        self._recording.operations.append(Names(self._folder(path), change))


_PATCHED = ("open", "write", "fsync", "close", "replace", "link", "unlink", "mkdir", "rmdir")


@contextmanager
def recorded(root: Path) -> Iterator[Recording]:
    """Record what happens below `root`, an empty folder, until the end of the block."""
    recording = Recording()
    with _Recorder(root, recording).recording():
        yield recording
