"""The ring's key material of a job on this machine: an object with mode 0600, from which its Pods' files are made."""

from __future__ import annotations

from datetime import UTC, datetime

from sternpost_operator.cluster.local.object_store import ObjectStore
from sternpost_operator.cluster.ring_keys import new_ring_keys
from sternpost_operator.manifests.ring_secret import has_ring
from sternpost_operator.resources.names import ring_secret_name
from sternpost_operator.resources.training_job import TrainingJob


def make_ring_secret(store: ObjectStore, job: TrainingJob) -> None:
    """Make it unless it is there, or the job has no ring; raises `OSError`."""
    name = ring_secret_name(job.metadata.name)
    if has_ring(job) and store.get("secrets", name) is None:
        store.create(
            "secrets", name, {"data": new_ring_keys(job.metadata.uid, datetime.now(UTC)).to_data()}, secret=True
        )
