from __future__ import annotations

import json
from pathlib import Path

import pytest

from sternpost_memory.errors import SettingsError
from sternpost_memory.http.grants import Grants, Identity, read_grants

GRANTS = Grants(
    {
        "system:serviceaccount:sternpost-system:sternpost-operator": ["*"],
        "system:serviceaccounts:team-a": ["team-a", "shared"],
        "*": ["ns-{namespace}"],
    }
)


def account(namespace: str, name: str = "default") -> Identity:
    return Identity(
        f"system:serviceaccount:{namespace}:{name}",
        frozenset({"system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"}),
    )


def spaces(identity: Identity) -> set[str] | None:
    grant = GRANTS.of(identity)
    return None if grant is None else set(grant.spaces)


def test_accounts_groups_and_everybody() -> None:
    assert spaces(account("sternpost-system", "sternpost-operator")) == {"*", "ns-sternpost-system"}
    assert spaces(account("team-a")) == {"team-a", "shared", "ns-team-a"}
    assert spaces(account("team-b")) == {"ns-team-b"}
    assert Grants({"system:serviceaccounts:a": ["a"]}).of(account("b")) is not None
    grant = Grants({"system:serviceaccounts:a": ["a"]}).of(account("b"))
    assert grant
    assert not grant.allows("a")


def test_whoever_is_no_service_account_gets_nothing() -> None:
    everybody = frozenset({"system:authenticated"})
    assert spaces(Identity("kubernetes-admin", everybody | {"system:masters"})) is None
    assert spaces(Identity("", everybody)) is None
    # A user of some identity provider who took such a name is in none of the groups.
    assert spaces(Identity("system:serviceaccount:team-a:default", everybody)) is None
    assert spaces(Identity("system:serviceaccount:team-a", everybody | {"system:serviceaccounts"})) is None


def test_a_namespace_that_makes_a_name_too_long_gets_no_space() -> None:
    assert spaces(account("n" * 63)) == set()
    assert spaces(account("n" * 60)) == {"ns-" + "n" * 60}


def test_a_grants_file(tmp_path: Path) -> None:
    path = tmp_path / "grants.json"
    path.write_text(json.dumps({"system:serviceaccounts:a": ["x", "{namespace}", "*"]}))
    grant = read_grants(path).of(account("a"))
    assert grant
    assert grant.spaces == {"x", "a", "*"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        ("{", "not JSON"),
        ("[]", "must hold an object"),
        ("{}", "must hold an object"),
        ('{"kubernetes-admin": ["a"]}', "no identity: write"),
        ('{"system:serviceaccount:a": ["a"]}', "no identity"),
        ('{"system:serviceaccount:a:*": ["a"]}', "no identity"),
        ('{"system:authenticated": ["a"]}', "no identity"),
        ('{"*": "a"}', "list of spaces"),
        ('{"*": ["a b"]}', "list of spaces"),
        ('{"*": ["{name}"]}', "list of spaces"),
        ('{"*": [1]}', "list of spaces"),
        (" " * 2_000_000, "more than 1 MiB"),
    ],
)
def test_bad_grants_files(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "grants.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SettingsError, match=message) as caught:
        read_grants(path)
    assert str(path) in str(caught.value)
