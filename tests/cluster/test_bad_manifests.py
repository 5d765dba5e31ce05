"""500 bad manifests: each is refused, or its job says which field is wrong; nothing and nobody else notices."""

from __future__ import annotations

import pytest
from api_proxy import api_proxy
from bad_manifest_trial import Trial
from bad_manifests import bad_manifests
from cluster_job import ClusterJob
from kube import Kube
from operator_view import operator_metrics, operator_pods, restarts_of

ANSWER_SECONDS = 300
LONG = 20_000
"""Steps of the job that runs all the while."""


@pytest.mark.timeout(1500)
def test_bad_manifests_are_answered_and_harm_nobody(job: ClusterJob, kube: Kube) -> None:
    job.steps = LONG
    job.apply()
    job.wait_step(3)
    pods = {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in job.pods()}
    calm = restarts_of(operator_pods(kube))
    operators = {pod["metadata"]["uid"] for pod in operator_pods(kube)}
    errors = operator_metrics(kube).get('sternpost_operator_reconciles_total{result="error"}', 0)

    with api_proxy(kube.program, kube.kubeconfig) as api:
        trial = Trial(api, job.namespace)
        outcomes = trial.post_all(bad_manifests())
        odd = [outcome for outcome in outcomes if not outcome.refused and outcome.status not in (200, 201)]
        assert not odd, odd
        changed = [outcome.bad.name for outcome in outcomes if outcome.bad.update and not outcome.refused]
        assert not changed, f"not refused: {changed}"
        accepted = [outcome for outcome in outcomes if not outcome.refused]
        silent = trial.wait_told(accepted, ANSWER_SECONDS)
        assert not silent, "\n".join(trial.describe(outcome) for outcome in silent)
    print(f"{len(outcomes) - len(accepted)} refused by the API server, {len(accepted)} with a condition")  # noqa: T201

    step = job.step()
    job.wait_step(step + 2)
    status = job.object()["status"]
    assert (status["phase"], status["attempt"]["number"], status.get("restarts", 0)) == ("Running", 1, 0)
    assert {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in job.pods()} == pods
    assert restarts_of(operator_pods(kube)) == calm
    assert {pod["metadata"]["uid"] for pod in operator_pods(kube)} == operators
    assert operator_metrics(kube).get('sternpost_operator_reconciles_total{result="error"}', 0) == errors
