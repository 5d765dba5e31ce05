"""Who may use which spaces. Without a token nobody may do anything."""

from __future__ import annotations

import hashlib
import ipaddress
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pydantic import TypeAdapter, ValidationError

from sternpost_memory.errors import SettingsError
from sternpost_memory.limits import MIB
from sternpost_memory.model import SpaceName

ALL_SPACES = "*"
TOKEN_CHARACTERS = 8
"""The shortest token that is accepted; a good one has 32 random characters."""
_SPACE = TypeAdapter(SpaceName)


@dataclass(frozen=True, slots=True)
class Grant:
    """What a caller may use."""

    spaces: frozenset[str]

    def allows(self, space: str) -> bool:
        """Whether the caller may read and write this space."""
        return ALL_SPACES in self.spaces or space in self.spaces


class Authorizer(Protocol):
    """Turns a request's credentials into a grant."""

    needs_token: bool

    async def grant(self, authorization: str) -> Grant | None:
        """The grant for the value of an `Authorization` header; None if it is not valid.

        Raises:
            AuthorizationUnavailable: that cannot be said now.
        """
        ...


def bearer(authorization: str) -> str | None:
    """The token in the value of an `Authorization` header; None if it is of another kind."""
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


class TokenAuthorizer:
    """Static bearer tokens, each bound to spaces."""

    needs_token = True

    def __init__(self, tokens: dict[str, frozenset[str]]) -> None:
        # Looked up by their hash: the time that takes tells nothing about a token.
        self._grants = {_digest(token): Grant(spaces) for token, spaces in tokens.items()}

    async def grant(self, authorization: str) -> Grant | None:
        """See `Authorizer.grant`."""
        token = bearer(authorization)
        return None if token is None else self._grants.get(_digest(token))


class FirstOf:
    """The first of several authorizers that knows the caller."""

    needs_token = True

    def __init__(self, authorizers: Sequence[Authorizer]) -> None:
        self._authorizers = tuple(authorizers)

    async def grant(self, authorization: str) -> Grant | None:
        """See `Authorizer.grant`."""
        for authorizer in self._authorizers:
            if grant := await authorizer.grant(authorization):
                return grant
        return None


class OpenAuthorizer:
    """Everybody may do everything: for one machine and one user."""

    needs_token = False

    async def grant(self, authorization: str) -> Grant | None:  # noqa: ARG002 - the interface
        """All spaces."""
        return Grant(frozenset({ALL_SPACES}))


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def read_tokens(path: Path) -> TokenAuthorizer:
    """Read a token file: a JSON object of token → list of spaces, or `["*"]`.

    Raises:
        SettingsError: the file cannot be read or does not hold that. No token is named in the message.
    """
    try:
        if path.stat().st_size > MIB:
            raise SettingsError(f"the token file {path} has more than 1 MiB: is it the right file?")
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"the token file {path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise SettingsError(f'the token file {path} is not JSON such as {{"TOKEN": ["SPACE"]}}') from error
    if not isinstance(content, dict) or not content:
        raise SettingsError(f'the token file {path} must hold an object such as {{"TOKEN": ["SPACE"]}}')
    tokens: dict[str, frozenset[str]] = {}
    for number, (token, spaces) in enumerate(content.items(), start=1):
        if len(token) < TOKEN_CHARACTERS:
            raise SettingsError(
                f"entry {number} of the token file {path} has a token shorter than {TOKEN_CHARACTERS} characters: "
                "make one with `openssl rand -hex 16`"
            )
        tokens[token] = _spaces(spaces, path, number)
    return TokenAuthorizer(tokens)


def _spaces(value: object, path: Path, number: int) -> frozenset[str]:
    if not isinstance(value, list):
        raise SettingsError(f'entry {number} of the token file {path} must be a list of spaces, or ["*"]')
    for space in value:
        if space == ALL_SPACES:
            continue
        try:
            _SPACE.validate_python(space)
        except ValidationError as error:
            raise SettingsError(f"entry {number} of the token file {path} names a space that cannot be one") from error
    return frozenset(value)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
