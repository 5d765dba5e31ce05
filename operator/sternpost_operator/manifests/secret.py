"""The Secret with the token that a job's sidecars show each other."""

from __future__ import annotations

import base64
from typing import Any

from sternpost_operator.manifests.owned import owned_metadata
from sternpost_operator.manifests.volumes import TOKEN_KEY
from sternpost_operator.resources.names import secret_name
from sternpost_operator.resources.training_job import TrainingJob

MIN_TOKEN_LENGTH = 32


def build_secret(job: TrainingJob, token: str) -> dict[str, Any]:
    """The Secret `JOB-token`. `token` is of printable ASCII without blanks; raises `ValueError` (never showing it) otherwise."""
    if len(token) < MIN_TOKEN_LENGTH or not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError(f"a token has at least {MIN_TOKEN_LENGTH} printable ASCII characters and no blanks")
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": owned_metadata(job, secret_name(job.metadata.name)),
        "type": "Opaque",
        "data": {TOKEN_KEY: base64.b64encode(token.encode()).decode()},
    }
