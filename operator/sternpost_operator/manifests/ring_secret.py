"""The Secret with the key material of a job's ring, which its checkpoint sidecars alone mount."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Any

from sternpost_operator.manifests.owned import owned_metadata
from sternpost_operator.resources.names import ring_secret_name
from sternpost_operator.resources.training_job import TrainingJob

RING_KEYS = ("ca.crt", "tls.crt", "tls.key", "tokens")
"""Keys of the Secret, and files in the sidecars."""


@dataclass(frozen=True)
class RingKeys:
    """PEM, and tokens a line each."""

    trusted: bytes
    certificate: bytes
    key: bytes = field(repr=False)
    tokens: bytes = field(repr=False)

    def to_data(self) -> dict[str, str]:
        """As the data of a Secret."""
        content = (self.trusted, self.certificate, self.key, self.tokens)
        return {name: base64.b64encode(value).decode() for name, value in zip(RING_KEYS, content, strict=True)}


def has_ring(job: TrainingJob) -> bool:
    """Whether the job's workers keep copies of each other's states."""
    return job.spec.checkpoint is not None and job.spec.checkpoint.peer_replication


def build_ring_secret(job: TrainingJob, keys: RingKeys) -> dict[str, Any]:
    """The Secret `JOB-ring`."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": owned_metadata(job, ring_secret_name(job.metadata.name)),
        "type": "Opaque",
        "data": keys.to_data(),
    }
