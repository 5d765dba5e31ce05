"""Faults of nodes and ranks: named rightly, repaired, and without a trace in the weights."""

from __future__ import annotations

from local_job import Job


def causes(report: dict) -> list[str]:
    return [attempt["cause"] for attempt in report["attempts"]]


def test_a_killed_node_is_left_and_a_spare_takes_over(job: Job, undisturbed_hash: str) -> None:
    job.spec = {"spares": 1}
    report = job.run("--inject", "kill:worker=1,step=22", nodes=3)
    assert report["phase"] == "Succeeded"
    assert report["finalHash"] == undisturbed_hash
    assert causes(report) == ["NodeLost"]
    assert report["attempts"][0]["node"] == report["injections"][0]["node"]
    assert [entry["node"] for entry in report["excludedNodes"]] == [report["injections"][0]["node"]]
    assert set(report["attempts"][0]["stages"]) == {"detect", "decide", "terminate", "start", "restore", "firstStep"}
    assert 0 <= report["lostSteps"] <= 22


def test_a_hung_rank_is_restarted_in_place_and_its_node_only_suspected(job: Job, undisturbed_hash: str) -> None:
    job.spec = {"eagleEye": {"intervalSeconds": 0.5, "hang": {"factor": 5, "minSeconds": 5, "initSeconds": 60}}}
    report = job.run("--inject", "hang:worker=1,step=22")
    assert report["finalHash"] == undisturbed_hash
    assert causes(report) == ["Hang"]
    assert report["attempts"][0]["rung"] == "ranks"
    assert report["attempts"][0]["node"] == report["injections"][0]["node"]
    assert report["excludedNodes"] == []


def test_a_killed_rank_is_restarted_in_place(job: Job, undisturbed_hash: str) -> None:
    report = job.run("--inject", "exit:worker=0,step=18,signal=9")
    assert report["finalHash"] == undisturbed_hash
    assert causes(report) == ["RankFailed"]
    assert report["attempts"][0]["rung"] == "ranks"
    assert report["excludedNodes"] == []
