"""What one part writes, the other reads: the formats of docs/contracts.md, each with its real writer and real reader."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from sternpost_eagle_eye.attempt import Attempt as AttemptOfEagleEye
from sternpost_eagle_eye.config import EagleEyePolicy as PolicyOfEagleEye
from sternpost_eagle_eye.progress import CheckpointReport, ProgressReport, WorkerReport
from sternpost_launcher.attempt_file import parse_attempt
from sternpost_operator.resources.attempt import Attempt, AttemptAction, AttemptMember, AttemptSpec, AttemptWorker
from sternpost_operator.resources.base import ObjectMeta
from sternpost_operator.resources.progress import LauncherState
from sternpost_operator.resources.progress import ProgressReport as ProgressOfOperator
from sternpost_operator.resources.training_job import EagleEyePolicy

NOW = datetime(2026, 1, 2, 3, 4, 5, 600_000, tzinfo=UTC)


def attempt(*, complete: bool) -> bytes:
    member = {"node": "n", "address": "127.0.0.1", "eagle_eye_port": 9470}
    spec = AttemptSpec(
        job="gpt",
        job_uid="u",
        number=3,
        id="3-abc",
        action=AttemptAction.RUN,
        world_size=2,
        workers=[AttemptWorker(index=i, pod=f"gpt-{i}", uid=f"uid-{i}", **member) for i in range(2)],
        spares=[AttemptMember(pod="gpt-2", uid="uid-2", **member)],
        master_address="127.0.0.1",
        master_port=29400,
        complete=complete,
        issued_at=NOW,
    )
    return json.dumps(Attempt(metadata=ObjectMeta(name="gpt"), spec=spec).to_wire()).encode()


def test_the_launcher_reads_the_attempt_that_the_operator_writes() -> None:
    for complete in (False, True):
        read = parse_attempt(attempt(complete=complete))
        assert (read.number, read.id, read.action.value, read.complete) == (3, "3-abc", "run", complete)
        assert read.worker_index("gpt-1", "uid-1") == 1
        assert read.is_spare("gpt-2", "uid-2")
        assert read.issued_at == NOW.timestamp()


def test_eagle_eye_reads_the_attempt_that_the_operator_writes() -> None:
    read = AttemptOfEagleEye.model_validate_json(attempt(complete=False))
    judge = read.judge()
    assert judge is not None
    assert judge.pod == "gpt-0"
    assert [index for index, _ in read.members()] == [0, 1, None]


def test_the_operator_reads_the_progress_that_eagle_eye_writes() -> None:
    worker = WorkerReport(index=0, pod="gpt-0", node="n", seen_at=1.5, attempt="3-abc", launcher="running", step=7)
    written = ProgressReport(
        attempt="3-abc",
        attempt_number=3,
        at=2.5,
        step=7,
        checkpoint=CheckpointReport(saves=1, committed_step=5, committed_at=2.0, problem="no space"),
        workers=(worker,),
    )
    read = ProgressOfOperator.model_validate_json(written.model_dump_json(by_alias=True))
    assert (read.attempt, read.step, read.at.timestamp()) == ("3-abc", 7, 2.5)
    assert read.checkpoint.problem == "no space"
    assert read.workers[0].launcher is LauncherState.RUNNING
    assert read.workers[0].seen_at.timestamp() == 1.5


def test_eagle_eye_reads_the_policy_that_the_manifest_holds() -> None:
    written = EagleEyePolicy.model_validate({"intervalSeconds": 0.5, "hang": {"minSeconds": 7}, "slow": {"ratio": 2}})
    read = PolicyOfEagleEye.model_validate_json(json.dumps(written.to_wire()))
    assert (read.interval_seconds, read.hang.min_seconds, read.slow.ratio) == (0.5, 7, 2)
