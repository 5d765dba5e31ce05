"""Into which spaces of the memory service the incidents of a job go. Pure.

The operator's token opens every space, so a job must not choose freely where the operator writes, nor to whom it shows the token:
the space is the job's namespace, or one that is shared on purpose, and the service is the operator's own.
"""

from __future__ import annotations

from dataclasses import dataclass

from sternpost_operator.resources.training_job import MemoryPolicy, TrainingJob

_UNSET = MemoryPolicy().space


@dataclass(frozen=True)
class MemorySpaces:
    """What the operator was set up with."""

    url: str = ""
    """Of its memory service; empty: there is none, and all incidents count as taken."""
    platform: str = ""
    """The space of all tenants' exclusions, from which a node's history is counted: the operator's own namespace."""
    shared: frozenset[str] = frozenset()
    """Spaces that jobs of any namespace may name."""

    def space(self, job: TrainingJob) -> str:
        """Where the job's incidents go."""
        wanted = job.spec.memory.space
        return job.metadata.namespace if wanted == _UNSET and wanted not in self.shared else wanted

    def problems(self, job: TrainingJob) -> tuple[str, ...]:
        """What the job asks for and does not get, each `FIELD: MESSAGE`."""
        found = []
        if job.spec.memory.url.rstrip("/") not in ("", self.url.rstrip("/")):
            found.append(
                "spec.memory.url: on a cluster incidents go to the memory service that the operator was set up with; leave it out"
            )
        space, namespace = self.space(job), job.metadata.namespace
        if space != namespace and space not in self.shared:
            found.append(
                f"spec.memory.space: {space} is not the job's own; leave it out ({namespace}), or have the space listed in the "
                "chart's memory.sharedSpaces"
            )
        return tuple(found)
