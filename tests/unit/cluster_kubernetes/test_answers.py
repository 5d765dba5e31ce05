from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from sternpost_operator.cluster.base import InvalidJobError, RefusedError
from sternpost_operator.cluster.kubernetes import errors
from sternpost_operator.cluster.kubernetes.acceptance import accept
from sternpost_operator.cluster.kubernetes.attempts import with_rendezvous
from sternpost_operator.cluster.kubernetes.paths import NODES, PODS, TRAINING_JOBS, kind_of
from sternpost_operator.cluster.kubernetes.session import Relists, asked
from sternpost_operator.resources import reserved
from sternpost_operator.resources.attempt import AttemptAction, AttemptSpec, AttemptWorker
from sternpost_operator.resources.training_job import TrainingJob


def status(code: int, reason: str, message: str, **more: Any) -> bytes:
    return json.dumps({"kind": "Status", "code": code, "reason": reason, "message": message, **more}).encode()


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        (404, "NotFound", errors.NotFoundError),
        (409, "AlreadyExists", errors.ExistsError),
        (409, "Conflict", errors.VersionConflictError),
        (403, "Forbidden", RefusedError),
        (422, "Invalid", RefusedError),
        (429, "TooManyRequests", errors.ApiError),
        (500, "InternalError", errors.ApiError),
        (401, "Unauthorized", errors.ApiError),
    ],
)
def test_what_an_answer_means(code: int, reason: str, kind: type[Exception]) -> None:
    error = errors.error_of(code, status(code, reason, "words"), "GET /x")
    assert isinstance(error, kind)
    assert isinstance(error, OSError), "whoever does not look closer tries again"
    assert "words" in str(error)


def test_fields_that_a_message_does_not_name_are_added() -> None:
    causes = {"details": {"causes": [{"field": "spec.a"}, {"field": "spec.b"}]}}
    error = errors.error_of(422, status(422, "Invalid", "spec.a is wrong", **causes), "POST /x")
    assert str(error) == "spec.a is wrong (fields: spec.b)"


def test_an_answer_that_is_no_status() -> None:
    error = errors.error_of(502, b"<html>bad gateway</html>", "GET /x")
    assert str(error) == "GET /x: HTTP 502"
    waiting = errors.error_of(429, b"", "GET /x", retry_after="3")
    assert isinstance(waiting, errors.ApiError)
    assert waiting.retry_after == 3


def test_paths() -> None:
    assert PODS.path("team", "gpt-0") == "/api/v1/namespaces/team/pods/gpt-0"
    assert TRAINING_JOBS.path("team", "gpt", "status") == (
        "/apis/sternpost.dev/v1alpha1/namespaces/team/trainingjobs/gpt/status"
    )
    assert NODES.path(None, "node/1") == "/api/v1/nodes/node%2F1"
    assert kind_of({"apiVersion": "v1", "kind": "Pod"}) is PODS
    with pytest.raises(ValueError, match="v1 Deployment"):
        kind_of({"apiVersion": "v1", "kind": "Deployment"})


def test_what_kopf_asks_for() -> None:
    jobs = asked("GET", "/apis/sternpost.dev/v1alpha1/namespaces/team/trainingjobs", watch=False)
    assert (jobs.verb, jobs.resource, jobs.kind, jobs.namespace) == ("list", "trainingjobs", TRAINING_JOBS, "team")
    assert asked("GET", "/api/v1/pods", watch=True).verb == "watch"
    assert asked("GET", "/api/v1/namespaces/team/pods/x", watch=False).verb == "get"
    assert asked("GET", "/apis", watch=False).resource == "discovery"
    assert asked("GET", "/api/v1/services", watch=False).kind is None


def test_only_a_second_list_is_one_after_an_interruption() -> None:
    told: list[tuple[str, str | None]] = []
    relists = Relists(lambda kind, namespace: told.append((kind.plural, namespace)))
    for kind, namespace in ((PODS, None), (NODES, None), (PODS, "team"), (PODS, None)):
        relists.listed(kind, namespace)
    assert told == [("pods", None)]


def test_a_job_that_can_be_run(job_manifest) -> None:
    assert accept(job_manifest()).metadata.uid == "uid-of-gpt"


def test_a_job_that_cannot_names_its_fields(job_manifest) -> None:
    with pytest.raises(InvalidJobError) as caught:
        accept(job_manifest(workers="three", spares=-1))
    assert any(problem.startswith("spec.workers: ") for problem in caught.value.problems)
    assert any(problem.startswith("spec.spares: ") for problem in caught.value.problems)


def test_what_a_newer_operator_wrote_into_the_status_is_left_out(job_manifest) -> None:
    manifest = job_manifest()
    manifest["status"] = {
        "phase": "Running",
        "novelty": {"a": 1},
        "attempt": {"number": 3, "id": "3-x", "mood": "good"},
        "conditions": [
            {"type": "A", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z", "shade": "blue"},
        ],
    }
    job = accept(manifest)
    assert (job.status.attempt.number, job.status.conditions[0].type) == (3, "A")


def test_a_status_that_means_something_else_is_no_job(job_manifest) -> None:
    manifest = job_manifest()
    manifest["status"] = {"phase": "Sleeping"}
    with pytest.raises(InvalidJobError, match=r"status\.phase"):
        accept(manifest)


def attempt(job: TrainingJob, number: int) -> AttemptSpec:
    worker = AttemptWorker(index=0, pod="gpt-3", uid="u", node="n", address="10.0.0.7", eagle_eye_port=9470)
    return AttemptSpec(
        job="gpt",
        job_uid=job.metadata.uid,
        number=number,
        id=f"{number}-x",
        action=AttemptAction.RUN,
        workers=[worker],
        issued_at="2026-01-01T00:00:00Z",
    )


def test_where_the_ranks_meet(job) -> None:
    ports = [with_rendezvous(job, attempt(job, number)).master_port for number in range(1, 200)]
    assert all(port in range(reserved.RENDEZVOUS_PORT, reserved.RENDEZVOUS_PORT + 64) for port in ports)
    assert all(first != second for first, second in itertools.pairwise(ports))
    assert with_rendezvous(job, attempt(job, 1)).master_address == "gpt-3.gpt-workers.team.svc"


def test_on_the_hosts_network_they_meet_at_the_address(job_manifest) -> None:
    manifest = job_manifest()
    manifest["spec"]["template"]["spec"]["hostNetwork"] = True
    job = TrainingJob.model_validate(manifest)
    assert with_rendezvous(job, attempt(job, 1)).master_address == "10.0.0.7"
