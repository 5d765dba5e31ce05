"""Hard faults, through replay: edges count, levels do not."""

from __future__ import annotations

import pytest

from sternpost_eagle_eye.replay import replay_vectors
from sternpost_eagle_eye.vector import ExporterVector, LogSign, PageState, RankVector, Vector

HEALTHY = {"gpus": 8, "ecc_double_bit": 3, "remap_failures": 0, "edac_uncorrectable": 1, "cpu_total": 5.0, "load": 1.0}


class Recorded:
    def __init__(self, workers=4):
        self.items, self.t, self.step = [], 1000.0, 10
        self.state = [dict(HEALTHY) for _ in range(workers)]
        self.stands = False

    def run(self, seconds, every=1):
        for second in range(seconds):
            self.t += 1
            self.step += 0 if self.stands else 2
            for worker, state in enumerate(self.state):
                rank = RankVector(
                    rank=worker,
                    page=PageState.OK,
                    step=self.step,
                    phase="train",
                    step_sum=self.step / 2,
                    step_count=self.step,
                    compute_sum=self.step * 0.4,
                    compute_count=self.step,
                    in_collective=self.stands,
                )
                exporters = ExporterVector(at=self.t, **state) if second % every == 0 and state else None
                self.items.append((self.t + worker / 100, self.vector(worker, ranks=(rank,), exporters=exporters)))
        return self

    def vector(self, worker, **fields):
        return Vector(attempt="recording", pod_uid="", boot="", sequence=0, worker=worker, node=f"n{worker}", **fields)

    def said(self):
        return [(v.kind, v.node, v.evict) for v in replay_vectors(self.items)]


@pytest.mark.parametrize(
    "change",
    [
        {"xids": (("GPU-a", 79),)},
        {"xids": (("GPU-a", 48),)},
        {"xid_counts": ((95, 1.0),)},
        {"ecc_double_bit": 4},
        {"remap_failures": 1},
        {"edac_uncorrectable": 2},
        {"gpus": 7},
    ],
)
def test_within_two_scrapes(change):
    job = Recorded().run(20)
    job.state[2] |= change
    started = job.t
    job.run(4)
    assert job.said() == [("hardware", "n2", True)]
    assert replay_vectors(job.items)[0].t <= started + 3


@pytest.mark.parametrize("code", [13, 31, 43, 45, 94, 63, 74, 1])
def test_an_applications_xid_blames_nobody(code):
    job = Recorded().run(20)
    job.state[1]["xids"] = (("GPU-a", code),)
    assert job.run(30).said() == []


def test_old_levels_blame_nobody():
    job = Recorded()
    job.state[1] |= {"xids": (("GPU-a", 79),), "xid_counts": ((79, 4.0),), "ecc_double_bit": 900}
    assert job.run(60).said() == []


def test_an_exporter_that_restarts_blames_nobody():
    job = Recorded()
    job.state[1] |= {"xids": (("GPU-a", 79),), "ecc_double_bit": 900}
    job.run(20)
    kept, job.state[1] = job.state[1], {"cpu_total": 9.0, "load": 1.0}
    job.run(10)
    job.state[1] = {**HEALTHY, "ecc_double_bit": 0}
    job.run(10)
    job.state[1] = kept
    assert job.run(20).said() == []


def test_a_level_after_a_restart_is_of_the_past():
    job = Recorded().run(20)
    job.items.append((job.t, None))
    job.state[1] |= {"xids": (("GPU-a", 79),), "ecc_double_bit": 4}
    assert job.run(30).said() == []


def test_one_short_scrape_is_no_missing_gpu():
    job = Recorded().run(20)
    job.state[1]["gpus"] = 5
    job.run(1)
    job.state[1]["gpus"] = 8
    assert job.run(20).said() == []


def test_an_xid_in_the_log_counts():
    job = Recorded().run(20)
    job.items.append((job.t, job.vector(3, logs=(LogSign(signature="xid", code=79, line="NVRM: Xid"),))))
    assert job.run(3).said() == [("hardware", "n3", True)]


def test_more_than_half_broken_evicts_nobody():
    job = Recorded().run(20)
    for state in job.state[:3]:
        state["edac_uncorrectable"] = 2
    assert not any(evict for _, _, evict in job.run(10).said())
