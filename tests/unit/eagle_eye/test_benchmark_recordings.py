"""The recordings of the benchmark: what is injected is what is labelled, and text says the same as vectors."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass

import numpy as np
import pytest

pytest.importorskip("benchmarks", reason="run from the repository's root")

from benchmarks.eagle_eye.injected import FAULTS, Label
from benchmarks.eagle_eye.recording import Restart, Scrape, record
from benchmarks.eagle_eye.scoring import by_fault, figures, judge_outcome
from benchmarks.eagle_eye.text import lines
from benchmarks.eagle_eye.vectors import vectors
from sternpost_eagle_eye.replay.recording import Recording as RecordingFile


def fault(name: str):
    return next(f for f in FAULTS if f.name == name)


def test_there_are_fifteen_faults_and_each_has_its_label():
    assert len(FAULTS) == 15
    kinds = {f.name: record(3, 8, f).label.kind for f in FAULTS}
    assert set(kinds.values()) == {"worker-gone", "hang", "hardware", "slow", "loss", "data-stall", "storage-stall"}


@pytest.mark.parametrize("name", ["node-gone", "uncorrectable-ecc", "full-disk", "nan"])
def test_the_text_says_what_the_vectors_say(name):
    recording = record(1, 8, fault(name))
    text = "".join(line + "\n" for line in lines(recording))
    read = RecordingFile(io.BytesIO(text.encode()))
    assert [repr(item) for item in read] == [repr(item) for item in vectors(recording)]
    assert not read.dropped
    assert all(json.loads(line)["t"] > 0 for line in text.splitlines())


def test_a_recording_is_always_the_same():
    first, second = record(5, 8, fault("slow-nic")), record(5, 8, fault("slow-nic"))
    assert list(lines(first)) == list(lines(second)) == list(lines(first))


def test_all_ranks_take_equally_long_and_the_slowest_waits_least():
    recording = record(4, 8, fault("cpu-steal"))
    training, label = recording.segments[-1].training, recording.label
    worker = recording.job.nodes.index(label.node)
    after = training.done > label.onset - recording.segments[-1].epoch + 5
    own = training.own.reshape(len(training.done), 8, -1).max(axis=2)
    assert np.all(training.took >= training.own.max(axis=1))
    assert np.median(own[after].argmax(axis=1) == worker) == 1
    assert np.median(training.took[after]) > 1.2 * np.median(training.took[~after])


def test_what_is_gone_says_nothing():
    recording = record(2, 8, fault("node-gone"))
    worker = recording.job.nodes.index(recording.label.node)
    late = [e for e in recording.events() if isinstance(e, Scrape) and e.t > recording.label.onset]
    assert late
    assert all(event.worker != worker for event in late)


def test_some_recordings_have_a_restart_and_steps_begin_anew():
    recordings = [record(seed, 8, fault("nan")) for seed in range(30)]
    restarted = [r for r in recordings if len(r.segments) > 1]
    assert 1 <= len(restarted) < 20
    assert sum(isinstance(event, Restart) for event in restarted[0].events()) == 1


@dataclass
class Said:
    t: float
    kind: str
    node: str | None
    confidence: float = 0.9
    evict: bool = False
    evidence: str = ""


LABEL = Label("thermal-throttling", "slow", "n3", 100.0, "2x", "slow-2")


def outcome(*said: Said, label: Label | None = LABEL):
    return judge_outcome("r", label, said, hours=1, every=15, longest=1, identical=None)


def test_a_true_finding_counts_once_from_the_onset_on():
    found = outcome(Said(112, "slow", "n3"), Said(115, "slow", "n3", evict=True), Said(140, "hang", None))
    assert (found.delay, found.false, found.first_node) == (12, (), "n3")  # the job was restarted before the hang


def test_what_is_said_too_early_or_of_others_is_false():
    found = outcome(Said(90, "slow", "n3"), Said(120, "hardware", "n3"), Said(121, "slow", "n4", evict=True))
    assert not found.found
    assert found.early
    assert found.false == (("n3", "slow"), ("n3", "hardware"), ("n4", "slow"))
    assert figures([found]).wrong_evictions == 1


def test_the_figures_count_healthy_recordings_too():
    healthy = outcome(Said(50, "slow", "n1", evict=True), label=None)
    total = figures([outcome(Said(112, "slow", "n3")), outcome(), healthy])
    assert (total.precision, total.recall, total.node_top1) == (0.5, 0.5, 0.5)
    assert (total.healthy_hours, total.healthy_evictions) == (1, 1)
    assert total.delays["slow-2"] == float("inf")
    assert by_fault([healthy])["healthy"]["false"] == {"slow on the wrong node": 1}


def test_the_end_of_the_attempt_before_is_neither_right_nor_wrong():
    said = [Said(50, "worker-gone", "n1"), Said(55, "worker-gone", "n2"), Said(70, "worker-gone", "n1")]
    found = judge_outcome(
        "r", LABEL, said, hours=1, every=15, longest=1, identical=None, earlier=(("n1", "worker-gone"), 60.0)
    )
    assert found.false == (("n2", "worker-gone"), ("n1", "worker-gone"))
