"""Hard faults, through replay: edges count, levels do not."""

from __future__ import annotations

import pytest

from sternpost_eagle_eye.replay import replay_vectors
from sternpost_eagle_eye.vector import LogSign


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
def test_within_two_scrapes(recorded, change):
    job = recorded().run(20)
    job.state[2] |= change
    started = job.t
    job.run(4)
    assert job.said() == [("hardware", "n2", True)]
    assert replay_vectors(job.items)[0].t <= started + 3


@pytest.mark.parametrize("code", [13, 31, 43, 45, 94, 63, 74, 1])
def test_an_applications_xid_blames_nobody(recorded, code):
    job = recorded().run(20)
    job.state[1]["xids"] = (("GPU-a", code),)
    assert job.run(30).said() == []


def test_old_levels_blame_nobody(recorded):
    job = recorded()
    job.state[1] |= {"xids": (("GPU-a", 79),), "xid_counts": ((79, 4.0),), "ecc_double_bit": 900}
    assert job.run(60).said() == []


def test_an_exporter_that_restarts_blames_nobody(recorded):
    job = recorded()
    job.state[1] |= {"xids": (("GPU-a", 79),), "ecc_double_bit": 900}
    job.run(20)
    kept, job.state[1] = job.state[1], {"cpu_total": 9.0, "load": 1.0}
    job.run(10)
    job.state[1] = {**recorded().state[0], "ecc_double_bit": 0}
    job.run(10)
    job.state[1] = kept
    assert job.run(20).said() == []


def test_a_level_after_a_restart_is_of_the_past(recorded):
    job = recorded().run(20)
    job.items.append((job.t, None))
    job.state[1] |= {"xids": (("GPU-a", 79),), "ecc_double_bit": 4}
    assert job.run(30).said() == []


def test_one_short_scrape_is_no_missing_gpu(recorded):
    job = recorded().run(20)
    job.state[1]["gpus"] = 5
    job.run(1)
    job.state[1]["gpus"] = 8
    assert job.run(20).said() == []


def test_an_xid_in_the_log_counts(recorded):
    job = recorded().run(20)
    job.items.append((job.t, job.vector(3, logs=(LogSign(signature="xid", code=79, line="NVRM: Xid"),))))
    assert job.run(3).said() == [("hardware", "n3", True)]


def test_more_than_half_broken_evicts_nobody(recorded):
    job = recorded().run(20)
    for state in job.state[:3]:
        state["edac_uncorrectable"] = 2
    assert not any(evict for _, _, evict in job.run(10).said())
