"""A training job on a cluster: its manifest, and what a test asks about it."""

from __future__ import annotations

import json
import random
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.commands import CommandError
from harness.images import TRAINER_IMAGE
from harness.trainer import torch_environment
from kube import Kube, NotInTimeError, Object, condition_of
from local_job import JOBS

from sternpost_operator.local_run.report import Stored
from sternpost_operator.local_run.stored import ask_checkpoint

STEPS = 60
"""Of the tiny training; a local run of the same length has the same weights."""
NOBODY = 65532
START_SECONDS = 240
"""Importing torch on a machine whose few processors run a whole cluster takes its time."""


@dataclass
class ClusterJob:
    """The tiny job of the local tests, as a TrainingJob whose trainers have this machine's torch mounted."""

    kube: Kube
    namespace: str
    storage: Path
    """A folder that all nodes see."""
    name: str = "tiny"
    workers: int = 3
    steps: int = STEPS
    step_seconds: float = 0.3
    spec: dict[str, Any] = field(default_factory=dict)
    command: list[str] = field(default_factory=lambda: ["python3", "/jobs/tiny.py"])
    spread: str = "ScheduleAnyway"
    """`whenUnsatisfiable` of the topology spread constraint."""

    def manifest(self) -> Object:
        """The TrainingJob."""
        torch = torch_environment()
        torch.add("jobs", JOBS, "/jobs")
        torch.add("storage", self.storage, "/checkpoints", read_only=False)
        container = {
            "name": "trainer",
            "image": TRAINER_IMAGE,
            "imagePullPolicy": "Never",
            "command": self.command,
            "args": [f"--steps={self.steps}", f"--step-seconds={self.step_seconds}"],
            "env": torch.variables(),
            "volumeMounts": torch.mounts,
            "resources": {"requests": {"cpu": "50m", "memory": "256Mi"}},
            "securityContext": {
                "readOnlyRootFilesystem": True,
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            },
        }
        spread = {
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": self.spread,
            "labelSelector": {"matchLabels": {"sternpost.dev/job": self.name}},
        }
        template = {
            "spec": {
                "containers": [container],
                "volumes": torch.volumes,
                "topologySpreadConstraints": [spread],
                "securityContext": {
                    "runAsNonRoot": True,
                    "runAsUser": NOBODY,
                    "fsGroup": NOBODY,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
            }
        }
        return {
            "apiVersion": "sternpost.dev/v1alpha1",
            "kind": "TrainingJob",
            "metadata": {"name": self.name, "namespace": self.namespace},
            "spec": {
                "workers": self.workers,
                "recovery": {
                    "settleSeconds": 1,
                    "nodeLostSeconds": 5,
                    "graceSeconds": 3,
                    "startSeconds": START_SECONDS,
                },
                "eagleEye": {
                    "intervalSeconds": 1,
                    # Longer than a busy machine may stand still.
                    "hang": {"factor": 10, "minSeconds": 30, "initSeconds": START_SECONDS},
                },
                "checkpoint": {"storage": "file:///checkpoints", "sharedMemory": "64Mi"},
                "template": template,
                **self.spec,
            },
        }

    def apply(self) -> None:
        """`kubectl apply` it."""
        self.kube.apply(self.manifest(), namespace=self.namespace)

    def patch(self, spec: dict[str, Any]) -> None:
        """Change fields of the spec."""
        self.kube.kubectl(
            *("patch", "tj", self.name, "--type=merge", "-p", json.dumps({"spec": spec})), namespace=self.namespace
        )

    def object(self) -> Object:
        """The job as it is; fails when it is gone."""
        found = self.kube.get("trainingjob", self.name, self.namespace)
        assert found is not None, f"{self.namespace}/{self.name} is gone"
        return found

    def wait_phase(self, *phases: str, seconds: float = START_SECONDS) -> Object:
        """Wait for one of these phases; a job that ends in another fails at once."""
        ended = {"Succeeded", "Failed"} - set(phases)

        def reached(job: Object) -> bool:
            phase = (job.get("status") or {}).get("phase")
            if phase in ended:
                raise NotInTimeError(f"{self.name} ended as {phase} where {' or '.join(phases)} was waited for")
            return phase in phases

        return self.kube.wait_for(
            *("trainingjob", self.name, reached, f"in phase {' or '.join(phases)}"),
            namespace=self.namespace,
            seconds=seconds,
        )

    def wait_succeeded(self, seconds: float = 2 * START_SECONDS) -> Object:
        """Wait for the end."""
        return self.wait_phase("Succeeded", seconds=seconds)

    def wait_condition(self, kind: str, status: str = "True", *, seconds: float) -> Object:
        """Wait until a condition has this status."""
        return self.kube.wait_for(
            "trainingjob",
            self.name,
            lambda job: (condition_of(job, kind) or {}).get("status") == status,
            f"{kind}={status}",
            namespace=self.namespace,
            seconds=seconds,
        )

    def pods(self) -> list[Object]:
        """Its Pods, by name."""
        return self.kube.items("pods", self.namespace, "--selector", f"sternpost.dev/job={self.name}")

    def nodes(self) -> dict[str, str]:
        """Where its Pods are: node by Pod."""
        return {pod["metadata"]["name"]: pod["spec"].get("nodeName", "") for pod in self.pods()}

    def step(self) -> int:
        """The last step of any rank, as its own metrics page says; 0 while none answers."""
        steps = [0]
        for pod in self.pods():
            try:
                page = self.kube.metrics(pod["metadata"]["name"], "9400", self.namespace)
            except CommandError:
                continue
            steps += [int(value) for name, value in page.items() if re.match(r"sternpost_step(\{|$)", name)]
        return max(steps)

    def wait_step(self, step: int, seconds: float = START_SECONDS) -> int:
        """Wait until a rank has done this step; returns the one that it has done by then."""
        deadline = time.monotonic() + seconds
        while (now := self.step()) < step:
            phase = (self.object().get("status") or {}).get("phase")
            if phase in {"Succeeded", "Failed"} or time.monotonic() > deadline:
                raise NotInTimeError(f"{self.name} is {phase} at step {now}, where step {step} was waited for")
            time.sleep(0.2)
        return now

    def stored(self) -> Stored:
        """What its storage holds."""
        found = ask_checkpoint(f"file://{self.storage}")
        assert found is not None, f"nothing to read in {self.storage}"
        return found

    def final_hash(self) -> str:
        """Of the weights of the newest checkpoint."""
        found = self.stored().final_hash
        assert found, "no committed checkpoint"
        return found


IDLE = ["python3", "-c", "import signal; signal.pause()"]
"""A trainer that is there at once, makes no steps and does not end."""


def random_step(low: int = 8, high: int = STEPS - 15) -> int:
    """A step that differs each time; a test says in its output which it was."""
    return random.Random(time.time_ns()).randint(low, high)  # noqa: S311 -- the moments shall differ
