"""What a user does first: install the chart, apply the example, look at it, and have the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster_job import TRAINER_IMAGE, ClusterJob
from harness.trainer import torch_environment
from kube import Kube, Object
from local_job import Job

EXAMPLE = Path(__file__).parents[2] / "examples" / "gpt"
LOCAL_SECONDS = 240
"""For the local run, with a cluster on the same processors."""


class ExampleJob(ClusterJob):
    """`examples/gpt/cluster.yaml` as it is, but that torch and the script are mounted, and so is the claim's folder."""

    def manifest(self) -> Object:
        """The TrainingJob."""
        manifest: Object = yaml.safe_load((EXAMPLE / "cluster.yaml").read_text())
        torch = torch_environment()
        torch.add("example", EXAMPLE, "/example")
        torch.add("checkpoints", self.storage, "/checkpoints", read_only=False)
        spec = manifest["spec"]["template"]["spec"]
        (container,) = spec["containers"]
        container |= {"image": TRAINER_IMAGE, "imagePullPolicy": "Never"}
        container["env"] = merged(torch.variables(), container["env"])
        container["volumeMounts"] = merged(torch.mounts, container["volumeMounts"])
        spec["volumes"] = merged(spec["volumes"], torch.volumes)
        return manifest


def merged(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """By name; the second list's entries win."""
    return list({entry["name"]: entry for entry in (*first, *second)}.values())


def local_weights(folder: Path, workers: int, arguments: list[str]) -> str:
    """What `sternpost run` makes of the same script on this machine."""
    local = Job(folder, command=["python3", str(EXAMPLE / "train.py"), *arguments], spec={"workers": workers})
    code = local.finish(local.start("--timeout", str(LOCAL_SECONDS), nodes=workers), LOCAL_SECONDS + 20)
    assert code == 0, local.output
    return str(local.report["finalHash"])


def test_the_example_trains_over_three_nodes_to_the_weights_of_a_local_run(
    kube: Kube, chart: str, namespace: str, storage: Path, tmp_path: Path
) -> None:
    job = ExampleJob(kube, namespace, storage, name="gpt")
    job.apply()
    job.wait_phase("Running")
    placed = job.nodes()
    assert len(set(placed.values())) == 3, placed
    done = job.wait_succeeded()
    assert done["status"]["restarts"] == 0, done["status"]
    _, _, *arguments = done["spec"]["template"]["spec"]["containers"][0]["command"]
    assert job.final_hash() == local_weights(tmp_path, job.workers, arguments)

    # kubectl tells the whole story.
    header, row = kube.kubectl("get", "tj", job.name, namespace=job.namespace).splitlines()
    shown = dict(zip(header.split(), row.split(), strict=True))
    assert shown["PHASE"] == "Succeeded", shown
    assert f"--steps={shown['STEP']}" in arguments, shown
    assert shown["WORKERS"] == "3", shown
    story = kube.kubectl("describe", "tj", job.name, namespace=job.namespace)
    for words in ("AttemptIssued", "RanksRunning", "Succeeded", str(done["status"]["attempt"]["id"])):
        assert words in story, f"{words} is not in the story:\n{story}"


@pytest.mark.parametrize("name", ["claim.yaml", "cluster.yaml"])
def test_the_api_server_takes_the_example_as_it_is(kube: Kube, chart: str, namespace: str, name: str) -> None:
    kube.kubectl("apply", "--dry-run=server", "--filename", str(EXAMPLE / name), namespace=namespace)
