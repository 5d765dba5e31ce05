"""Signals of several families, through replay: what is said of whom."""

from __future__ import annotations

import math

import pytest

from sternpost_eagle_eye.vector import LogSign


def test_a_throttled_gpu_is_the_slow_node(recorded):
    job = recorded(8).run(90)
    job.compute[3] = 0.56
    job.state[3] |= {"sm_clock_least": 1150.0}
    assert job.run(40).said() == [("slow", "n3", False)]
    assert ("slow", "n3", True) in job.run(60).said()


def test_where_waits_are_not_measured_hardware_tells(recorded):
    job = recorded(8).run(90)
    job.compute = [0.7] * 8
    job.rates[5]["cpu_steal"] = 20.0
    assert job.run(30).said() == [("slow", "n5", False)]


def test_two_nodes_with_signs_are_no_suspects(recorded):
    job = recorded(8).run(90)
    job.compute = [0.55] * 8
    for worker in (1, 5):
        job.rates[worker]["cpu_steal"] = 20.0
    assert job.run(60).said() == []


def test_a_sign_without_slowness_is_nothing(recorded):
    job = recorded(8).run(90)
    job.rates[5]["cpu_steal"] = 20.0
    assert job.run(120).said() == []


def test_all_wait_for_input(recorded):
    job = recorded(8).run(90)
    job.compute = [0.9] * 8
    for state in job.state:
        state["gpu_util"] = 0.4
    assert job.run(40).said() == [("data-stall", None, False)]


def test_longer_sequences_are_no_stall(recorded):
    job = recorded(8).run(90)
    job.compute = [0.5] * 8
    assert job.run(200).said() == []


@pytest.mark.parametrize("workers", [1, 8])
def test_a_full_disk_is_a_storage_stall(recorded, workers):
    job = recorded(8).run(40)
    for state in job.state[:workers]:
        state["filesystem_free"] = 0.0
    assert job.run(10).said() == [("storage-stall", None, False)]


def test_one_that_was_full_from_the_start_is_somebody_elses(recorded):
    job = recorded(8)
    job.state[2]["filesystem_free"] = 0.0
    assert job.run(60).said() == []


def test_no_space_in_a_log(recorded):
    job = recorded(8).run(20)
    job.items.append((job.t, job.vector(3, logs=(LogSign(signature="no-space", line="No space left"),))))
    assert job.run(5).said() == [("storage-stall", None, False)]


def test_saves_that_block_longer(recorded):
    job = recorded(8)
    for seconds in (1.0, 1.1, 0.9, 1.0, 6.0):
        for rank in job.ranks:
            rank["blocked_count"] = rank.get("blocked_count", 0) + 1
            rank["blocked_sum"] = rank.get("blocked_sum", 0.0) + seconds
        job.run(20)
    assert job.said() == [("storage-stall", None, False)]


@pytest.mark.parametrize("change", [{"loss": math.nan}, {"loss": -math.inf}, {"grad_norm": math.nan}, {"loss": 60.0}])
def test_a_loss_that_is_none(recorded, change):
    job = recorded(8).run(60)
    for rank in job.ranks:
        rank.update(change)
    assert job.run(10).said() == [("loss", None, False)]


def test_one_bad_batch_is_no_divergence(recorded):
    job = recorded(8).run(60)
    for loss in (60.0, 2.5):
        for rank in job.ranks:
            rank["loss"] = loss
        job.run(1 if loss > 3 else 60)
    assert job.said() == []


def test_a_process_killed_for_memory(recorded):
    job = recorded(8)
    for state in job.state:
        state["container_oom_events"] = 4.0
    job.run(40)
    job.state[6]["container_oom_events"] = 5.0
    job.stands = True
    job.ranks[6]["in_collective"] = False
    assert job.run(6).said() == [("worker-gone", "n6", False)]


def test_a_node_that_differs_for_minutes_is_only_suspected(recorded):
    job = recorded(8).run(90)
    job.rates[2] |= {"cpu_steal": 20.0, "disk_io_time": 0.95}
    assert job.run(200).said() == []
    assert job.run(100).said() == [("outlier", "n2", False)]
