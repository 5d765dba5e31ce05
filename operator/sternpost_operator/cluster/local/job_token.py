"""The bearer token that a job's sidecars and the operator share."""

from __future__ import annotations

import base64
import secrets

import structlog

from sternpost_operator.cluster.local.object_store import ObjectStore
from sternpost_operator.resources.names import secret_name

_logger = structlog.get_logger(__name__)


def job_token(store: ObjectStore, job: str) -> str:
    """The job's token, made on first use; raises `OSError`."""
    name = secret_name(job)
    for _ in range(2):
        found = store.get("secrets", name)
        if found is not None:
            try:
                token = base64.b64decode(found["data"]["token"], validate=True).decode()
            except (KeyError, TypeError, ValueError):
                token = ""
            if token:
                return token
            _logger.error("secret not readable, making a new one", secret=name)
        store.delete("secrets", name)
        token = base64.b64encode(secrets.token_urlsafe(32).encode()).decode()
        store.create("secrets", name, {"data": {"token": token}}, secret=True)
    raise OSError(f"secret {name} cannot be written; look at {store.objects / 'secrets'}")
