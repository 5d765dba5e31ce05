"""Questions of the trainer and the sidecar's answers: a file each, in the rank's folder."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sternpost_checkpoint.shm.files import make_directory, read_json, write_json
from sternpost_checkpoint.shm.paths import requests_directory, responses_directory

_NAME = re.compile(r"^[0-9a-f]{32}\.json$")


@dataclass(frozen=True)
class Request:
    """A question that waits for its answer."""

    id: str
    body: dict[str, Any]


def pending_requests(directory: Path) -> list[Request]:
    """Every unanswered question of a rank."""
    try:
        names = sorted(path.name for path in requests_directory(directory).iterdir() if _NAME.match(path.name))
    except FileNotFoundError:
        return []
    found = []
    for name in names:
        body = read_json(requests_directory(directory) / name)
        if body is not None:
            found.append(Request(name.removesuffix(".json"), body))
    return found


def answer(directory: Path, request_id: str, body: dict[str, Any]) -> None:
    """Answer, then remove the question: a crash in between only answers again."""
    make_directory(responses_directory(directory))
    write_json(responses_directory(directory) / f"{request_id}.json", body)
    (requests_directory(directory) / f"{request_id}.json").unlink(missing_ok=True)


def ask(directory: Path, request_id: str, body: dict[str, Any]) -> None:
    """Put a question."""
    make_directory(requests_directory(directory))
    write_json(requests_directory(directory) / f"{request_id}.json", body)


def take_answer(directory: Path, request_id: str) -> dict[str, Any] | None:
    """Return the answer and remove it; None while there is none."""
    path = responses_directory(directory) / f"{request_id}.json"
    body = read_json(path)
    if body is not None:
        path.unlink(missing_ok=True)
    return body


def forget(directory: Path) -> None:
    """Remove the questions and answers of a trainer that is gone."""
    for folder in (requests_directory(directory), responses_directory(directory)):
        if folder.is_dir():
            for path in folder.iterdir():
                path.unlink(missing_ok=True)
