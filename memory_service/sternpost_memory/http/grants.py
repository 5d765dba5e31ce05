"""Which Kubernetes identity may use which spaces: a file, read once."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from sternpost_memory.errors import SettingsError
from sternpost_memory.http.auth import ALL_SPACES, Grant
from sternpost_memory.limits import MIB
from sternpost_memory.model import SpaceName

EVERYBODY = "*"
"""Every service account that has a token for this service."""
NAMESPACE = "{namespace}"
"""In the name of a space: the namespace of the service account that asks."""
_ACCOUNTS = "system:serviceaccounts"
_USER = re.compile(r"system:serviceaccount:(?P<namespace>[a-z0-9-]{1,63}):(?P<name>[a-z0-9.-]{1,253})", re.ASCII)
_GROUP = re.compile(r"system:serviceaccounts(:[a-z0-9-]{1,63})?", re.ASCII)
_SPACE = TypeAdapter(SpaceName)
FORMS = (
    '"system:serviceaccount:NAMESPACE:NAME" (one account), "system:serviceaccounts:NAMESPACE" (all of a namespace) '
    'or "*" (all)'
)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the API server says the caller is."""

    username: str
    groups: frozenset[str]


class Grants:
    """Identity → spaces. What is not named is denied; whoever is no service account is, too."""

    def __init__(self, spaces: Mapping[str, Sequence[str]]) -> None:
        self._spaces = {name: tuple(patterns) for name, patterns in spaces.items()}

    def of(self, identity: Identity) -> Grant | None:
        """What an identity may use, which may be nothing; None if it is no service account."""
        account = _USER.fullmatch(identity.username)
        # The API server alone gives out this group; a user who only looks like a service account has not got it.
        if account is None or _ACCOUNTS not in identity.groups:
            return None
        names = [identity.username, EVERYBODY, *sorted(identity.groups)]
        found = frozenset(
            space for name in names for pattern in self._spaces.get(name, ()) for space in _named(pattern, account)
        )
        return Grant(found)


def read_grants(path: Path) -> Grants:
    """Read a grants file: a JSON object of identity → list of spaces.

    Raises:
        SettingsError: the file cannot be read or does not hold that.
    """
    try:
        if path.stat().st_size > MIB:
            raise SettingsError(f"the grants file {path} has more than 1 MiB: is it the right file?")
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"the grants file {path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise SettingsError(f'the grants file {path} is not JSON such as {{"*": ["{NAMESPACE}"]}}') from error
    if not isinstance(content, dict) or not content:
        raise SettingsError(f'the grants file {path} must hold an object such as {{"*": ["{NAMESPACE}"]}}')
    for name, spaces in content.items():
        if name != EVERYBODY and not _USER.fullmatch(name) and not _GROUP.fullmatch(name):
            raise SettingsError(f"the grants file {path} names {name!r}, which is no identity: write {FORMS}")
        if not isinstance(spaces, list) or not all(_is_pattern(space) for space in spaces):
            raise SettingsError(
                f"the grants file {path} must give {name!r} a list of spaces: names, names with {NAMESPACE} in them, or "
                f'"{ALL_SPACES}" for all'
            )
    return Grants(content)


def _is_pattern(value: object) -> bool:
    return value == ALL_SPACES or (isinstance(value, str) and _is_space(value.replace(NAMESPACE, "n")))


def _is_space(name: str) -> bool:
    try:
        _SPACE.validate_python(name)
    except ValidationError:
        return False
    return True


def _named(pattern: str, account: re.Match[str]) -> Iterator[str]:
    if pattern == ALL_SPACES:
        yield ALL_SPACES
        return
    name = pattern.replace(NAMESPACE, account["namespace"])
    # A namespace of 63 characters may make it too long.
    if _is_space(name):
        yield name
