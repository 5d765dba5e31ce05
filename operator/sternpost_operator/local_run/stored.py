"""Asking other services at the end: the checkpoint's command about a storage, the memory service about nodes."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

import httpx
import structlog
from pydantic import ValidationError
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from sternpost_operator.local_run.report import Stored

_log = structlog.get_logger("sternpost.stored")

TIMEOUT_SECONDS = 60.0
REQUEST_SECONDS = 5.0
CONSOLIDATION_SECONDS = 8.0
"""How long a document may take to grow from observations that were acknowledged."""
MAX_BYTES = 256 * 1024 * 1024
_FILE_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")


def ask_checkpoint(storage: str) -> Stored | None:
    """The ledger and the newest generation of a storage; None if its command is not there or cannot read it."""
    command = [sys.executable, "-P", "-m", "sternpost_checkpoint", "ls", "--json", storage]
    try:
        answer = subprocess.run(command, capture_output=True, timeout=TIMEOUT_SECONDS, check=True)
        return Stored.model_validate_json(answer.stdout[:MAX_BYTES])
    except subprocess.CalledProcessError as error:
        _log.warning("storage not read", storage=storage, detail=error.stderr.decode(errors="replace")[-2000:])
    except (OSError, subprocess.TimeoutExpired, ValidationError) as error:
        _log.warning("storage not read", storage=storage, detail=str(error)[:2000])
    return None


def fetch_topics(url: str, space: str, nodes: Iterable[str], folder: Path) -> list[Path]:
    """Write the topic document of each node to `folder`, as `NODE.md`; returns the files. Raises nothing for HTTP."""
    written = []
    folder.mkdir(parents=True, exist_ok=True)
    with httpx.Client(base_url=url, timeout=REQUEST_SECONDS, trust_env=False) as client:
        for node in nodes:
            if not _FILE_NAME.fullmatch(node):
                continue
            try:
                document = _topic(client, space, node)
            except (httpx.HTTPError, _NotYetError) as error:
                _log.warning("topic not read", node=node, detail=str(error))
                continue
            path = folder / f"{node}.md"
            path.write_text(document)
            written.append(path)
    return written


class _NotYetError(Exception):
    """The observations are there, the document is not."""


@retry(
    retry=retry_if_exception_type((_NotYetError, httpx.TransportError)),
    stop=stop_after_delay(CONSOLIDATION_SECONDS),
    wait=wait_fixed(0.2),
    reraise=True,
)
def _topic(client: httpx.Client, space: str, node: str) -> str:
    topic = quote(f"node/{node}", safe="")
    answer = client.get(f"/v1/spaces/{space}/topics/{topic}", headers={"Accept": "text/markdown"})
    if answer.status_code == httpx.codes.NOT_FOUND:
        raise _NotYetError(f"there is no topic node/{node} yet")
    answer.raise_for_status()
    return answer.text
