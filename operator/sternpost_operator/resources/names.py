"""Names that follow from a job's, and the length that they leave it."""

from __future__ import annotations

MAX_JOB_NAME = 55
"""`JOB-workers` and `JOB-10999` must be DNS labels, which have at most 63 characters."""

JOB_NAME_PATTERN = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
"""A Service of the job's name must begin with a letter."""

JOB_NAME_RULES = (
    (
        f"size(self.metadata.name) <= {MAX_JOB_NAME}",
        f"metadata.name may have at most {MAX_JOB_NAME} characters: names of Pods and of a Service are made from it",
    ),
    (
        f"self.metadata.name.matches('{JOB_NAME_PATTERN}')",
        "metadata.name must begin with a letter and hold lower-case letters, digits and '-' only: a Service is named after it",
    ),
)


def pod_name(job: str, slot: int) -> str:
    """Name of the Pod of a slot, also its host name."""
    return f"{job}-{slot}"


def service_name(job: str) -> str:
    """Name of the headless Service under which the Pods find each other."""
    return f"{job}-workers"


def secret_name(job: str) -> str:
    """Name of the Secret with the bearer token that the job's sidecars share."""
    return f"{job}-token"


def ring_secret_name(job: str) -> str:
    """Name of the Secret with the keys with which the job's checkpoint sidecars speak to each other."""
    return f"{job}-ring"


def service_account_name(job: str) -> str:
    """Name of the account as which the job's eagle-eye sidecars speak to the API server."""
    return f"{job}-sidecar"


def network_policy_name(job: str) -> str:
    """Name of the NetworkPolicy of the job's workers."""
    return f"{job}-workers"
