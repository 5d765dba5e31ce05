"""Keeping credentials out of messages: what a store says of itself may quote its configuration."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

_PREFIXES = ("AWS_", "AZURE_", "GOOGLE_", "GCS_", "GCP_")
_MARKS = ("SECRET", "TOKEN", "KEY", "PASSWORD", "SAS", "CREDENTIAL", "SIGNATURE")
_NOT_SECRET = frozenset({"AWS_ACCESS_KEY_ID"})
"""A name, as a user's is; signing needs the secret beside it."""
SHORTEST = 4
"""A shorter value is no secret, and would blacken harmless words."""

_SIGNED = re.compile(
    r"(?i)\b(X-Amz-(?:Signature|Credential|Security-Token)|sig|Signature|Authorization)([=:]\s*)[^\s&,;<>]+"
)


def scrub(text: str, environ: Mapping[str, str] | None = None) -> str:
    """Return `text` with the values of credential variables, and what signed requests carry, replaced by `***`."""
    variables = os.environ if environ is None else environ
    secrets = {
        value
        for name, value in variables.items()
        if name.upper().startswith(_PREFIXES)
        and name.upper() not in _NOT_SECRET
        and any(mark in name.upper() for mark in _MARKS)
        and len(value) >= SHORTEST
    }
    # The longest first: one may stand inside of another.
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return _SIGNED.sub(r"\1\2***", text)
