"""The key material of a job's ring, as the operator hands it over in a folder.

`ca.crt`: certificates that are trusted; `tls.crt` and `tls.key`: the own one; `tokens`: one a line, the first is shown, all
are accepted. More than one of each only while they are being rotated. Nothing of it ever gets into a log or an error.
"""

from __future__ import annotations

import hmac
import ssl
from dataclasses import dataclass
from pathlib import Path

from sternpost_checkpoint.ring.errors import RingError

SERVER_NAME = "ring.sternpost.internal"
"""In every ring's certificate; what tells jobs apart is who signed it."""
MIN_TOKEN_LENGTH = 32
MAX_FILE_BYTES = 64 * 1024
FILES = ("ca.crt", "tls.crt", "tls.key", "tokens")

_Stamp = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class Material:
    """What is in force."""

    server: ssl.SSLContext
    client: ssl.SSLContext
    tokens: tuple[str, ...]

    def accepts(self, token: str) -> bool:
        """Whether a token is one of the job's, told in a time that says nothing."""
        given = token.encode()
        return any([hmac.compare_digest(given, known.encode()) for known in self.tokens])  # noqa: C419 # all of them


class RingKeys:
    """Reads the folder, and again when it has changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stamp: _Stamp | None = None
        self._material: Material | None = None

    def current(self) -> Material:
        """Raises RingError naming what is missing or not readable."""
        try:
            stamp = self._look()
            if self._material is None or stamp != self._stamp:
                self._material, self._stamp = self._load(), stamp
        except (OSError, ssl.SSLError, ValueError) as error:
            if self._material is not None:
                return self._material  # between two files of a rotation
            raise RingError(f"the keys of the ring in {self.folder} cannot be used: {_plain(error)}") from None
        return self._material

    def _look(self) -> _Stamp:
        found = [(self.folder / name).stat() for name in FILES]
        return tuple((entry.st_ino, entry.st_mtime_ns, entry.st_size) for entry in found)

    def _load(self) -> Material:
        if any((self.folder / name).stat().st_size > MAX_FILE_BYTES for name in FILES):
            raise ValueError(f"a file is larger than {MAX_FILE_BYTES} bytes")
        tokens = tuple((self.folder / "tokens").read_text(encoding="ascii").split())
        if not tokens or any(len(token) < MIN_TOKEN_LENGTH for token in tokens):
            raise ValueError(f"tokens has none, or one of less than {MIN_TOKEN_LENGTH} characters")
        return Material(self._context(ssl.PROTOCOL_TLS_SERVER), self._context(ssl.PROTOCOL_TLS_CLIENT), tokens)

    def _context(self, protocol: int) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        # Both sides show a certificate: not a byte of a stranger's gets as far as the parser.
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(self.folder / "ca.crt")
        context.load_cert_chain(self.folder / "tls.crt", self.folder / "tls.key")
        return context


def _plain(error: Exception) -> str:
    # An SSLError's text is about the library's source; a decode error would show a piece of the file.
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError):
        return f"{error.filename or 'a file'}: {error.strerror}"
    return str(error) if type(error) is ValueError else "a key, a certificate or a token is malformed"
