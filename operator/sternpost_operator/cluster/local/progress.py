"""Asks worker 0's eagle-eye how the job goes."""

from __future__ import annotations

import httpx
import structlog
from pydantic import ValidationError

from sternpost_operator.resources.attempt import AttemptSpec, AttemptWorker
from sternpost_operator.resources.progress import ProgressReport

_logger = structlog.get_logger(__name__)

TIMEOUT_SECONDS = 1.0
MAX_BYTES = 8 * 1024 * 1024
"""An answer for 10,000 workers is below that."""


def worker_zero(attempt: AttemptSpec | None) -> AttemptWorker | None:
    """The worker that collects what the others report, if the attempt has any."""
    if attempt is None:
        return None
    return next((worker for worker in attempt.workers if worker.index == 0), None)


async def fetch_progress(client: httpx.AsyncClient, worker: AttemptWorker, token: str) -> ProgressReport | None:
    """The report, or None if there is no answer in a second, or none that can be believed."""
    url = f"http://{worker.address}:{worker.eagle_eye_port}/v1/progress"
    try:
        async with client.stream(
            "GET", url, headers={"Authorization": f"Bearer {token}"}, timeout=TIMEOUT_SECONDS
        ) as response:
            if response.status_code != httpx.codes.OK:
                _logger.debug("no progress", url=url, status=response.status_code)
                return None
            content = bytearray()
            async for chunk in response.aiter_bytes():
                content += chunk
                if len(content) > MAX_BYTES:
                    _logger.warning("progress report too large", url=url, limit=MAX_BYTES)
                    return None
        return ProgressReport.model_validate_json(bytes(content))
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        _logger.debug("no progress", url=url, error=repr(error))
    except ValidationError as error:
        _logger.warning("progress report not understood", url=url, error=str(error)[:1000])
    return None
