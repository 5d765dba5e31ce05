"""The job's bearer token, from its file."""

from __future__ import annotations

import hmac
from pathlib import Path

from sternpost_eagle_eye.files import Signature, read_bounded, signature

MAX_TOKEN_BYTES = 4096


class TokenFile:
    """Reads again when the file changed, so that a token can be replaced. An empty or missing token admits nobody."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: Signature | None = None
        self._token = b""

    def value(self) -> str:
        """Raises OSError when there is no token."""
        seen = signature(self._path)
        if seen is None:
            raise FileNotFoundError(f"no token at {self._path}; the operator makes the Secret of the job")
        if seen != self._seen:
            self._token = read_bounded(self._path, MAX_TOKEN_BYTES).strip()
            self._seen = seen
        if not self._token:
            raise OSError(f"the token at {self._path} is empty")
        return self._token.decode("ascii", errors="strict")

    def admits(self, authorization: str) -> bool:
        """Whether an `Authorization` header carries the token; takes equally long wherever they differ."""
        try:
            expected = f"Bearer {self.value()}"
        except (OSError, UnicodeDecodeError):
            return False
        return hmac.compare_digest(authorization.encode("utf-8", errors="replace"), expected.encode())
