"""An Attempt as it came from the control plane."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import ValidationError

from sternpost_eagle_eye.attempt import Attempt


@dataclass(frozen=True)
class AttemptDocument:
    """An Attempt and the JSON it was read from: the launcher gets all of it, newer fields included."""

    attempt: Attempt
    content: bytes


def parse_attempt(content: bytes, job_uid: str) -> AttemptDocument | None:
    """None for the Attempt of an earlier job of the same name. Raises ValueError for what is no Attempt."""
    try:
        attempt = Attempt.model_validate_json(content)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
        raise ValueError(f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}") from error
    return AttemptDocument(attempt, content) if attempt.spec.job_uid == job_uid else None
