"""Every panel of the dashboards, without exception, shows something of a job on a real cluster."""

from __future__ import annotations

import time
from pathlib import Path

from chart_release import SYSTEM
from cluster_job import ClusterJob
from cluster_prometheus import ClusterTargets
from kube import Kube, Object
from operator_view import leader
from panel_queries import Window, load, unanswered
from prometheus_server import prometheus

SCRAPE_SECONDS = 2
LIMIT_SECONDS = 720
"""Three starts of torch, on processors that run a cluster, too."""


class ReportingJob(ClusterJob):
    """A training that reports everything; in its first attempt a rank exits, which excludes the node, in its second one hangs."""

    def manifest(self) -> Object:
        """The TrainingJob."""
        manifest = super().manifest()
        (container,) = manifest["spec"]["template"]["spec"]["containers"]
        container["command"] = ["python3", "/jobs/reporting.py"]
        container["args"] = [f"--steps={self.steps}", "--exit-at=30", "--hang-at=60"]
        manifest["spec"]["recovery"]["rules"] = [{"exitCodes": [42], "action": "ExcludeNode"}]
        manifest["spec"]["eagleEye"]["hang"] |= {"factor": 5, "minSeconds": 10}
        return manifest


def test_every_panel_annotation_and_variable_answers(
    job: ClusterJob, kube: Kube, namespace: str, tmp_path: Path
) -> None:
    watched = ReportingJob(kube, namespace, job.storage, name="watched", steps=140)
    targets = ClusterTargets(kube, tmp_path, f"{SCRAPE_SECONDS}s")
    with prometheus(tmp_path / "prometheus", {"scrape_configs": targets.configs}) as server:
        start = time.time()
        watched.apply()
        deposed = False
        while (phase := watched.object().get("status", {}).get("phase")) not in ("Succeeded", "Failed"):
            assert time.time() < start + LIMIT_SECONDS, f"not done after {LIMIT_SECONDS} s"
            if phase == "Running" and not deposed:
                # A new leader is an annotation, too.
                kube.kubectl("delete", "pod", leader(kube), "--wait=false", namespace=SYSTEM)
                deposed = True
            targets.refresh()
            time.sleep(SCRAPE_SECONDS)
        done = watched.object()
        assert done["status"]["phase"] == "Succeeded"
        assert [each["cause"] for each in done["status"]["attempts"]] == ["RankFailed", "Hang"]
        end = server.client.last_time(f'count(sternpost_step{{namespace="{namespace}"}}) == {watched.workers}', start)
        window = Window(start, end, rate_interval="20s", step=SCRAPE_SECONDS)
        problems = unanswered(load(), server.client, window, {"namespace": namespace, "job": watched.name})
        assert not problems, "\n".join(problems)
