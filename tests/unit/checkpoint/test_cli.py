from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sternpost_checkpoint import cli
from sternpost_checkpoint.store.file import FileStore


@pytest.fixture
def storage(tmp_path: Path, helpers: Any) -> Path:
    store = FileStore(tmp_path / "store")
    helpers.register_run(store, 1)
    for step in (1, 2, 3):
        helpers.commit_generation(store, tmp_path, step, keep=2)
    helpers.register_run(store, 2, restored_step=2)
    return tmp_path / "store"


def run(*arguments: str) -> Any:
    return CliRunner().invoke(cli.app, list(arguments))


def test_ls(storage: Path) -> None:
    result = run("ls", storage.as_uri())
    assert result.exit_code == 0
    assert "000000000002-r000001 complete" in result.output
    assert "000000000003-r000001 abandoned" in result.output
    listed = json.loads(run("ls", storage.as_uri(), "--json").output)
    assert [entry["step"] for entry in listed["ledger"]] == [1, 2, 3]
    assert [(entry["step"], entry["newest"]) for entry in listed["generations"]] == [(2, True), (3, False)]
    assert [entry["restoredStep"] for entry in listed["runs"]] == [0, 2]


def test_show(storage: Path) -> None:
    shown = json.loads(run("show", storage.as_uri(), "--json").output)
    assert shown["step"] == 2
    assert len(shown["weightsHash"]) == 64
    assert [tensor["name"] for tensor in shown["tensors"]] == ["model/weight", "random/torch"]
    assert shown["weightsHash"] in run("show", storage.as_uri(), "-g", "2").output
    assert "attempt     1-id" in run("show", storage.as_uri(), "-g", "000000000003-r000001").output


def test_verify(storage: Path, helpers: Any) -> None:
    assert run("verify", storage.as_uri()).exit_code == 0
    shard = helpers.shard_of(storage, 2)
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(bytes(data))
    result = run("verify", storage.as_uri(), "--json")
    assert result.exit_code == 1
    verdicts = json.loads(result.output)["generations"]
    assert [verdict["ok"] for verdict in verdicts] == [False, True]
    assert ".shard" in verdicts[0]["problems"][0]


def test_errors_are_one_line(
    storage: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for arguments in (["show", storage.as_uri(), "-g", "99"], ["ls", "ftp://x"]):
        monkeypatch.setattr("sys.argv", ["sternpost-checkpoint", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 1
        assert len(capsys.readouterr().err.splitlines()) == 1
