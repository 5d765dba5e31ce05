"""The service as a process, and the command line."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from sternpost_memory.cli import app
from sternpost_memory.consolidation.policy import Policy
from sternpost_memory.errors import SettingsError
from sternpost_memory.serve import Settings, authorizer_for, listen
from sternpost_memory.store.location import StoreLocation
from sternpost_memory.store.sqlite import SqliteStore


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sternpost_memory", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def settings(tmp_path: Path, **changed: Any) -> Settings:
    defaults: dict[str, Any] = {
        "host": "127.0.0.1", "port": 0, "store": StoreLocation(str(tmp_path / "m.db")), "policy": Policy(),
    }  # fmt: skip
    return Settings(**(defaults | changed))


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_without_authentication_it_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"--token-file.*--no-auth"):
        authorizer_for(settings(tmp_path))
    for host in ("0.0.0.0", "10.0.0.1", "::"):  # noqa: S104 - refused
        with pytest.raises(SettingsError, match=r"only; give --token-file"):
            authorizer_for(settings(tmp_path, no_auth=True, host=host))
    with pytest.raises(SettingsError, match="contradict"):
        authorizer_for(settings(tmp_path, no_auth=True, token_file=tmp_path))
    assert not authorizer_for(settings(tmp_path, no_auth=True)).needs_token


def test_addresses_that_cannot_be_used(taken: int) -> None:
    with pytest.raises(SettingsError, match=rf"port {taken} of 127.0.0.1 is taken.*another --port"):
        listen("127.0.0.1", taken)
    with pytest.raises(SettingsError, match="cannot"):
        listen("192.0.2.1", 0)


def test_a_start_that_fails_says_why_in_one_line(tmp_path: Path, taken: int) -> None:
    newer = tmp_path / "newer.db"
    SqliteStore(newer).close()
    with sqlite3.connect(newer) as connection:
        connection.execute("INSERT INTO migrations VALUES (99, 0)")
    connection.close()
    for arguments, message in [
        (("--store", str(tmp_path / "m.db"), "--no-auth", "--port", str(taken)), "is taken"),
        (("--store", str(newer), "--no-auth", "--port", "0"), "newer Sternpost"),
    ]:
        done = run("serve", *arguments)
        assert done.returncode == 2, done.stderr
        assert message in done.stderr
        assert done.stderr.count("\n") == 1
    assert not (tmp_path / "m.db").exists()


def test_serve_ask_and_stop(serve: Callable[..., Any], poll: Callable[..., None]) -> None:
    server = serve("--buffer-age", "0.05")
    body = {
        "observations": [
            {"text": "node-3 was lost\nits worker moved", "occurredAt": 1764000000, "source": "sternpost-operator",
             "entities": ["node/node-3"], "attributes": {"cause": "NodeLost"}},
        ]
    }  # fmt: skip
    answer = httpx.post(f"{server.url}/v1/spaces/default/observations", json=body)
    assert answer.status_code == 202
    job = f"{server.url}{answer.headers['location']}"
    poll(lambda: httpx.get(job).json()["state"] == "done")
    runner = CliRunner()
    where = ["--url", server.url]
    found = runner.invoke(app, ["search", "who lost node-3", *where])
    assert found.exit_code == 0
    assert "  > node-3 was lost\n  > its worker moved\n" in found.output
    assert '<1, 2025-11-24T16:00:00Z, "sternpost-operator">' in found.output
    listed = runner.invoke(app, ["show", *where]).output
    assert listed == "node/node-3  version 1  1 incident: NodeLost 1; last 2025-11-24T16:00:00Z\n"
    assert runner.invoke(app, ["show", "node/node-3", *where]).output.startswith('---\nid: "node/node-3"\n')
    assert "observations [1]" in runner.invoke(app, ["show", "node/node-3", "--history", *where]).output
    missing = runner.invoke(app, ["show", "node/9", *where])
    assert (missing.exit_code, "answered 404: no topic" in missing.stderr) == (2, True)
    assert server.terminate() == 0
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    assert [line["event"] for line in lines] == ["listening", "stopped"]
    gone = runner.invoke(app, ["search", "x", *where])
    assert (gone.exit_code, "is the service running" in gone.stderr) == (2, True)
    again = runner.invoke(app, ["rebuild", "--store", str(server.store)])
    assert again.output == "rebuilt default\n"


def test_tokens_of_a_running_service(tmp_path: Path, poll: Callable[..., None]) -> None:
    tokens, mine = tmp_path / "tokens.json", tmp_path / "mine"
    tokens.write_text(json.dumps({"a-long-enough-token": ["default"]}))
    mine.write_text("a-long-enough-token\n")
    with listen("127.0.0.1", 0) as probe:
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [
            sys.executable, "-m", "sternpost_memory", "serve", "--store", str(tmp_path / "m.db"),
            "--port", str(port), "--token-file", str(tokens),
        ],
        stderr=subprocess.DEVNULL,
        env=dict(os.environ),
    )  # fmt: skip
    try:
        runner = CliRunner()
        where = ["--url", f"http://127.0.0.1:{port}"]

        def answers() -> bool:
            return runner.invoke(app, ["show", *where, "--token-file", str(mine)]).exit_code == 0

        poll(answers)
        refused = runner.invoke(app, ["show", *where])
        assert (refused.exit_code, "answered 401" in refused.stderr) == (2, True)
        other = runner.invoke(app, ["show", *where, "--token-file", str(mine), "--space", "other"])
        assert "answered 403" in other.stderr
    finally:
        process.terminate()
        assert process.wait(20) == 0


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"token_review": True, "audience": "a"}, "give --grants FILE"),
        ({"token_review": True, "grants": Path("x")}, "needs --audience"),
        ({"grants": Path("x")}, "give --token-review"),
        ({"token_review": True, "no_auth": True}, "--token-review and --no-auth contradict"),
        ({"token_review": True, "audience": "a", "grants": Path("x")}, "this is no Pod"),
    ],
)
def test_service_accounts_need_all_of_their_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any], message: str
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(SettingsError, match=message):
        authorizer_for(settings(tmp_path, **changed))


def test_the_start_loads_nothing_that_is_needed_later_only() -> None:
    """A start costs CPU time on a machine that is to train: scikit-learn alone takes longer than all the rest."""
    program = (
        "import sys, sternpost_memory.serve, sternpost_memory.store.sqlite;"
        "print(sorted({m.partition('.')[0] for m in sys.modules} & {'sklearn', 'scipy', 'numpy', 'redis', 'httpx'}))"
    )
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
