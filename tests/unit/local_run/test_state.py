from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sternpost_operator.local_run.snapshot import Injected
from sternpost_operator.local_run.state import (
    RunRecord,
    Start,
    StateDirectory,
    StateError,
    dead_nodes,
    decide_start,
    digest,
    resolve_storage,
)
from sternpost_operator.resources.training_job import TrainingJob
from sternpost_operator.resources.training_job_status import Phase

RECORD = RunRecord(job="gpt", uid="u", spec_digest="d", started_at=1.0)


def injected(number: int, kind: str = "kill", node: str | None = "node-1") -> Injected:
    return Injected(id=f"{number}", spec="s", kind=kind, at=float(number), node=node, what="w")


class TestDecideStart:
    def test_nothing_there_is_fresh(self) -> None:
        assert decide_start(None, None, job="gpt", spec_digest="d", fresh=False) is Start.FRESH

    @pytest.mark.parametrize("phase", list(Phase))
    def test_only_an_unfinished_job_is_resumed(self, phase: Phase) -> None:
        start = decide_start(RECORD, phase, job="gpt", spec_digest="d", fresh=False)
        assert start is (Start.FRESH if phase.terminal else Start.RESUME)
        assert decide_start(RECORD, phase, job="gpt", spec_digest="d", fresh=True) is Start.FRESH

    def test_a_run_that_died_before_it_had_a_job_is_fresh(self) -> None:
        assert decide_start(RECORD, None, job="gpt", spec_digest="d", fresh=False) is Start.FRESH

    def test_another_spec_is_refused_with_the_way_out(self) -> None:
        with pytest.raises(StateError, match="--fresh"):
            decide_start(RECORD, Phase.RUNNING, job="gpt", spec_digest="other", fresh=False)

    def test_another_job_is_refused_with_the_way_out(self) -> None:
        with pytest.raises(StateError, match=r"gpt.*--state-dir"):
            decide_start(RECORD, Phase.RUNNING, job="other", spec_digest="d", fresh=False)

    def test_a_finished_other_job_is_no_obstacle(self) -> None:
        assert decide_start(RECORD, Phase.FAILED, job="other", spec_digest="x", fresh=False) is Start.FRESH


def test_digest_depends_on_the_spec_alone(job: TrainingJob) -> None:
    same = TrainingJob.model_validate(job.to_wire())
    other = job.spec.model_copy(update={"spares": 0})
    assert digest(job.spec) == digest(same.spec) != digest(other)


class TestStorage:
    def test_relative_is_below_the_state_directory(self) -> None:
        assert resolve_storage("file://./a/b", Path("/s")) == "file:///s/a/b"

    @pytest.mark.parametrize("uri", ["file:///data/x", "s3://bucket/x"])
    def test_others_stay(self, uri: str) -> None:
        assert resolve_storage(uri, Path("/s")) == uri

    @pytest.mark.parametrize("uri", ["file://./../x", "file://./a/../..", "file://.", "file://./", "file://host/x"])
    def test_what_cannot_be_meant_is_refused(self, uri: str) -> None:
        with pytest.raises(StateError, match="file:///absolute/path"):
            resolve_storage(uri, Path("/s"))

    @given(st.text(alphabet="./ab", max_size=12))
    @settings(deadline=None, derandomize=True)
    def test_never_outside(self, path: str) -> None:
        try:
            resolved = resolve_storage(f"file://./{path}", Path("/s"))
        except StateError:
            return
        assert Path(os.path.normpath(resolved.removeprefix("file://"))).is_relative_to("/s")


class TestLock:
    def test_a_second_process_is_refused_with_the_pid(self, tmp_path: Path) -> None:
        script = (
            "import sys; from pathlib import Path; from sternpost_operator.local_run.state import *\n"
            "try:\n"
            "    with StateDirectory(Path(sys.argv[1])).hold(): pass\n"
            "except StateError as error: print(error); sys.exit(7)"
        )
        state = StateDirectory(tmp_path / "state")
        with state.hold():
            other = subprocess.run(
                [sys.executable, "-P", "-c", script, str(state.root)], capture_output=True, text=True, check=False
            )
        assert other.returncode == 7, other.stderr
        assert str(os.getpid()) in other.stdout
        with state.hold():
            pass

    def test_a_folder_that_cannot_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(StateError, match="cannot use"), StateDirectory(tmp_path / "file" / "state").hold():
            pass


class TestJournal:
    def test_it_is_read_as_it_was_written(self, tmp_path: Path) -> None:
        state = StateDirectory(tmp_path)
        assert state.read_journal() == []
        for number in range(3):
            state.append_journal(injected(number))
        assert [each.id for each in state.read_journal()] == ["0", "1", "2"]

    @given(cut=st.integers(1, 60))
    @settings(deadline=None, derandomize=True, max_examples=15)
    def test_a_torn_line_loses_itself_alone(self, tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
        state = StateDirectory(tmp_path_factory.mktemp("journal"))
        state.append_journal(injected(1))
        whole = state.journal.stat().st_size
        state.append_journal(injected(2))
        os.truncate(state.journal, max(whole, state.journal.stat().st_size - 1 - cut))
        state.append_journal(injected(3))
        assert [each.id for each in state.read_journal()] == ["1", "3"]

    def test_killed_nodes_stay_dead(self) -> None:
        journal = [injected(1), injected(2, "slow", "node-2"), injected(3, "kill", "node-0"), injected(4, node=None)]
        assert dead_nodes(journal) == ("node-0", "node-1")


class TestDiscard:
    def make(self, root: Path) -> StateDirectory:
        state = StateDirectory(root)
        (root / "checkpoints" / "g").mkdir(parents=True)
        (root / "report.json").write_text("{}")
        state.write_run(RECORD)
        return state

    def test_all_goes_but_the_lock(self, tmp_path: Path) -> None:
        outside = tmp_path / "outside"
        outside.mkdir()
        (outside / "precious").write_text("x")
        state = self.make(tmp_path / "state")
        (state.root / "link").symlink_to(outside)
        with state.hold():
            state.discard()
            assert {entry.name for entry in state.root.iterdir()} == {"run.lock", "logs"}
        assert (outside / "precious").exists()

    def test_a_folder_that_is_somebodys_is_not_touched(self, tmp_path: Path) -> None:
        (tmp_path / "thesis.txt").write_text("x")
        state = StateDirectory(tmp_path)
        with state.hold(), pytest.raises(StateError, match=r"thesis\.txt"):
            state.discard()
        assert (tmp_path / "thesis.txt").exists()

    def test_set_aside(self, tmp_path: Path) -> None:
        state = self.make(tmp_path / "state")
        (tmp_path / "state.1").mkdir()
        with state.hold():
            beside = state.set_aside()
            assert beside == tmp_path / "state.2"
            assert (beside / "checkpoints" / "g").is_dir()
            assert StateDirectory(beside).read_run() == RECORD
            assert state.set_aside() is None


def test_a_damaged_record_says_so(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path)
    assert state.read_run() is None
    state.run_file.write_text("{")
    with pytest.raises(StateError, match="--fresh"):
        state.read_run()
