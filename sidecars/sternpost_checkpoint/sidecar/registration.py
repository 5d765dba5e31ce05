"""Registering a run: from here on, everything behind its restored step is abandoned."""

from __future__ import annotations

import time

import structlog

from sternpost_checkpoint.catalog import Catalog
from sternpost_checkpoint.errors import FencedError
from sternpost_checkpoint.format.documents import RunDocument
from sternpost_checkpoint.format.names import run_path
from sternpost_checkpoint.lineage import superseded_by
from sternpost_checkpoint.sidecar.attempt import Attempt

_log = structlog.get_logger()


def register(
    catalog: Catalog,
    *,
    job_uid: str,
    attempt: Attempt,
    current: Attempt | None,
    restored_step: int,
    restored_run: int | None,
    token: str,
) -> int:
    """Register a run and return its number: one higher than any before.

    The same token registers once. Raises FencedError when a later attempt is known or registered, StoreError.
    """
    if current is not None and attempt.number < current.number:
        raise FencedError(f"attempt {attempt.id} is superseded by {current.id}: its ranks must not start")
    while True:
        documents = catalog.run_documents()
        for document in documents:
            if document.token == token:
                return document.number
        later = superseded_by([document.to_run() for document in documents], job_uid, attempt.number)
        if later is not None:
            raise FencedError(f"attempt {attempt.id} is superseded by {later.attempt_id}: its ranks must not start")
        document = RunDocument(
            number=max((document.number for document in documents), default=0) + 1,
            job_uid=job_uid,
            attempt_number=attempt.number,
            attempt_id=attempt.id,
            restored_step=restored_step,
            restored_run=restored_run,
            token=token,
            registered_at=time.time(),
        )
        if catalog.store.put_if_absent(run_path(document.number), document.to_bytes()):
            _log.info("registered", run=document.number, attempt=attempt.id, restored_step=restored_step)
            return document.number
