"""The power is lost at every moment of real saves: what may be on the disk then is a whole generation N or N-1, always."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from disk_model import Recording, Sync, recorded
from image_store import ImageStore

from sternpost_checkpoint.catalog import Catalog
from sternpost_checkpoint.errors import CheckpointError
from sternpost_checkpoint.format.names import RUNS
from sternpost_checkpoint.lineage import Generation, newest
from sternpost_checkpoint.store import file as file_store
from sternpost_checkpoint.store.file import FileStore
from sternpost_checkpoint.verify import verify_generation

Scenario = Callable[["Saves"], None]


@dataclass(frozen=True)
class Newest:
    """From here on the newest generation is one of these (None: there may be none)."""

    allowed: frozenset[Generation | None]


@dataclass(frozen=True)
class Kept:
    """From here on this object is there."""

    name: str


@dataclass
class Judge:
    """Looks at what a disk holds and at what had been promised by then. Remembers verdicts: few contents are new."""

    known: dict[frozenset[tuple[str, bytes]], tuple[Generation | None, list[str]]] = field(default_factory=dict)
    states: int = 0

    def problems(self, recording: Recording) -> Iterator[str]:
        for moment, content in recording.crashes():
            self.states += 1
            key = frozenset(content.items())
            if key not in self.known:
                self.known[key] = self._look(content)
            found, problems = self.known[key]
            marks = recording.marks(moment)
            newest_marks = [mark for mark in marks if isinstance(mark, Newest)]
            if newest_marks and found not in newest_marks[-1].allowed:
                problems = [*problems, f"the newest is {found}, promised was one of {set(newest_marks[-1].allowed)}"]
            problems = problems + [
                f"{mark.name} is gone" for mark in marks if isinstance(mark, Kept) and mark.name not in content
            ]
            yield from (f"after {moment} operations: {problem}" for problem in problems)

    @staticmethod
    def _look(content: dict[str, bytes]) -> tuple[Generation | None, list[str]]:
        catalog = Catalog(ImageStore(content))
        problems = []
        try:
            runs = catalog.runs()
        except CheckpointError as error:
            return None, [f"runs cannot be read: {error}"]
        complete = [files.generation for files in catalog.generations() if files.complete]
        # Not only the newest: whatever has a manifest is whole.
        for generation in complete:
            problems += verify_generation(catalog, generation)
        return newest(complete, runs), problems


@dataclass
class Saves:
    """What a scenario does with a store, and promises as it goes."""

    store: FileStore
    folder: Path
    recording: Recording
    helpers: Any
    last: Generation | None = None

    def register(self, number: int, restored: Generation | None = None) -> None:
        """A restart that goes on from `restored` gives up what lies beyond it, from the moment it is registered."""
        self.recording.mark(Newest(frozenset({self.last, restored})))
        self.helpers.register_run(self.store, number, restored_step=restored.step if restored else 0)
        self.recording.mark(Newest(frozenset({restored})))
        self.recording.mark(Kept(f"{RUNS}{number:06d}.json"))
        self.last = restored

    def commit(self, step: int, run: int = 1, **more: Any) -> None:
        generation = Generation(step, run)
        self.recording.mark(Newest(frozenset({self.last, generation})))
        self.helpers.commit_generation(self.store, self.folder, step, run=run, **more)
        self.recording.mark(Newest(frozenset({generation})))
        self.last = generation


def one_rank(saves: Saves) -> None:
    """The third save collects the first generation."""
    saves.register(1)
    for step in (1, 2, 3, 4):
        saves.commit(step, keep=2)


def two_ranks(saves: Saves) -> None:
    saves.register(1)
    for step in (1, 2, 3):
        saves.commit(step, keep=1, world=2)


def a_restart_from_an_older_step(saves: Saves) -> None:
    """Run 2 goes on from step 1: the generation of step 2 is abandoned, and collected with the next commit."""
    saves.register(1)
    for step in (1, 2):
        saves.commit(step, keep=3)
    saves.register(2, restored=Generation(1, 1))
    saves.commit(2, run=2, keep=3)


SCENARIOS = [one_rank, two_ranks, a_restart_from_an_older_step]


def record(scenario: Scenario, tmp_path: Path, helpers: Any) -> Recording:
    root = tmp_path / "disk"
    root.mkdir()
    with recorded(root) as recording:
        scenario(Saves(FileStore(root), tmp_path, recording, helpers))
    return recording


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
@pytest.mark.parametrize("links", [True, False], ids=["links", "no-links"])
def test_what_was_promised_is_there(
    scenario: Scenario, links: bool, tmp_path: Path, helpers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not links:
        monkeypatch.setattr(os, "link", refuse_link)
    recording, judge = record(scenario, tmp_path, helpers), Judge()
    assert list(judge.problems(recording)) == []
    assert judge.states > 100
    assert len(judge.known) > 10


def refuse_link(*_: Any, **__: Any) -> None:
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


@pytest.mark.parametrize(
    ("forgotten", "words"),
    [
        ("files", "runs cannot be read"),
        ("folders", "promised was one of"),
        ("deletes", "is not there"),  # a manifest came back, its shard did not
    ],
)
def test_the_model_finds_a_missing_fsync(
    forgotten: str, words: str, tmp_path: Path, helpers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the test above says something."""
    if forgotten == "folders":
        monkeypatch.setattr(file_store, "_sync_folder", lambda folder: None)
    if forgotten == "deletes":
        monkeypatch.setattr(FileStore, "delete", lambda store, name: (store.root / name).unlink(missing_ok=True))
    recording = record(one_rank, tmp_path, helpers)
    if forgotten == "files":
        drop_file_syncs(recording)
    assert any(words in problem for problem in Judge().problems(recording))


def drop_file_syncs(recording: Recording) -> None:
    recording.operations = [
        operation
        for operation in recording.operations
        if not isinstance(operation, Sync) or operation.object in recording.folders
    ]


@pytest.mark.parametrize("scenario", [one_rank, two_ranks], ids=lambda scenario: scenario.__name__)
def test_the_next_save_after_the_power_came_back_repairs_everything(
    scenario: Scenario, tmp_path: Path, helpers: Any
) -> None:
    recording = record(scenario, tmp_path, helpers)
    contents = {frozenset(content.items()) for _, content in recording.crashes() if f"{RUNS}000001.json" in content}
    chosen = sorted(contents, key=lambda items: sorted((name, len(data)) for name, data in items))
    for number, items in enumerate(chosen[:: max(len(chosen) // 60, 1)]):
        root = tmp_path / f"after-{number}"
        for name, data in items:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(data)
        store = FileStore(root)
        world = 2 if scenario is two_ranks else 1
        assert helpers.commit_generation(store, tmp_path, 9, keep=2, world=world) == Generation(9, 1)
        catalog = Catalog(store)
        found = catalog.generations()
        assert found[-1].generation == Generation(9, 1)
        assert [problem for files in found for problem in verify_generation(catalog, files.generation)] == []
