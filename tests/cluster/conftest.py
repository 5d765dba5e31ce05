"""A cluster for the session, a namespace for each test, and the whole story of a test that fails."""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from call_limits import limit_calls
from chart_release import install, release_is_there
from cluster_job import STEPS, ClusterJob
from cluster_story import story
from harness.faults import Faults
from harness.report import step
from kube import Kube
from local_job import Job
from session_cluster import SessionCluster, session_cluster

from sternpost_operator.local_run.stored import ask_checkpoint

LOCAL_SECONDS = 300
LOCAL_STEPS = 150
"""At least those of any job that is compared with a local run; it saves every fifth step."""
TEST_SECONDS = 900
"""For a test that does not say otherwise; what it waits for has shorter limits, and so has what fixtures do."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    limit_calls(items, Path(__file__).parent, TEST_SECONDS)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    arguments: dict[str, Any] = getattr(item, "funcargs", {})
    if report.failed and "kube" in arguments and "namespace" in arguments:
        report.sections.append(("the cluster", story(arguments["kube"], arguments["namespace"])))
    return report


@pytest.fixture(scope="session")
def cluster(pytestconfig: pytest.Config) -> Iterator[SessionCluster]:
    """Making it takes minutes, so that what is being done is shown at once."""
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    assert capture is not None
    with ExitStack() as stack:
        with capture.global_and_fixture_disabled():
            made = stack.enter_context(session_cluster())
        yield made


@pytest.fixture(scope="session")
def kube(cluster: SessionCluster) -> Kube:
    """kubectl and helm for the cluster."""
    return cluster.kube


@pytest.fixture(scope="session")
def chart(cluster: SessionCluster, pytestconfig: pytest.Config) -> str:
    """The namespace in which the chart is installed; a release that is there already is used as it is."""
    if not release_is_there(cluster.kube):
        capture = pytestconfig.pluginmanager.getplugin("capturemanager")
        assert capture is not None
        with capture.global_and_fixture_disabled(), step("helm install"):
            install(cluster.kube)
    return "sternpost-system"


@pytest.fixture
def namespace(request: pytest.FixtureRequest, kube: Kube) -> Iterator[str]:
    """A namespace of the test's own; it must be deleted without help afterwards."""
    slug = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower())[:40].strip("-")
    name = f"{slug}-{secrets.token_hex(3)}"
    kube.kubectl("create", "namespace", name)
    yield name
    kube.kubectl("delete", "namespace", name, "--ignore-not-found", "--wait=false")
    kube.wait_gone("namespace", name, seconds=180)


@pytest.fixture
def faults(cluster: SessionCluster, namespace: str) -> Iterator[Faults]:
    """What can be done to the nodes and the control plane; whatever is left broken is repaired, before the namespace goes."""
    if cluster.own is None:
        pytest.skip("needs nodes of the harness: KUBECONFIG names a cluster that it did not make")
    result = Faults(cluster.own)
    yield result
    result.repair()


@pytest.fixture
def storage(cluster: SessionCluster, namespace: str) -> Iterator[Path]:
    """A folder that all nodes see and every user may write to, for the checkpoints of one test."""
    folder = cluster.storage / namespace
    folder.mkdir()
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def job(kube: Kube, chart: str, namespace: str, storage: Path) -> ClusterJob:
    """The tiny job on three workers, not applied yet."""
    return ClusterJob(kube, namespace, storage)


@pytest.fixture(scope="session")
def local_hash(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int, int], str]:
    """Weights of the tiny training when `sternpost run` does it on this machine, by workers and steps.

    One run for each number of workers: a shorter training has the weights that a longer one had at that step.
    """
    known: dict[int, dict[int, str]] = {}

    def run(workers: int, steps: int) -> dict[int, str]:
        local = Job(tmp_path_factory.mktemp("local"))
        local.command = [*local.command, f"--steps={steps}"]
        local.spec = {"workers": workers}
        # A cluster runs on the same processors.
        code = local.finish(local.start("--timeout", str(LOCAL_SECONDS), nodes=workers), LOCAL_SECONDS + 20)
        assert code == 0, local.output
        stored = ask_checkpoint(f"file://{local.state_dir / 'checkpoints'}")
        assert stored is not None, "the local run stored nothing"
        hashes = {row.step: row.weights_hash for row in stored.ledger if row.weights_hash}
        assert hashes[steps] == local.report["finalHash"]
        return hashes

    def of(workers: int = 3, steps: int = STEPS) -> str:
        if workers not in known:
            known[workers] = run(workers, LOCAL_STEPS)
        if steps not in known[workers]:  # a save is left out while the sidecar is behind
            known[workers] |= run(workers, steps)
        return known[workers][steps]

    return of
