"""`sternpost validate` and `sternpost crds`, as a person uses them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from sternpost_operator.commands.crds import crds
from sternpost_operator.commands.validate import validate
from sternpost_operator.resources.crd import render_crds

GOOD = """\
apiVersion: sternpost.dev/v1alpha1
kind: TrainingJob
metadata: {name: gpt}
spec:
  workers: 2
  template: {spec: {containers: [{name: trainer, command: [python3]}]}}
"""


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    app.command()(validate)
    app.command()(crds)
    return app


def run(app: typer.Typer, *arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.stdout, result.stderr


def test_a_good_file(app: typer.Typer, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(GOOD)
    assert run(app, "validate", file) == (0, f"{file}: OK\n", "")


def test_bad_files_are_named_with_line_and_field(app: typer.Typer, tmp_path: Path) -> None:
    good, bad, none = tmp_path / "good.yaml", tmp_path / "bad.yaml", tmp_path / "none.yaml"
    good.write_text(GOOD)
    bad.write_text(GOOD.replace("workers: 2", "workers: 0\n  spare: 1"))
    code, output, _ = run(app, "validate", good, bad, none, tmp_path)
    assert code == 2
    assert output.splitlines() == [
        f"{good}: OK",
        f"{bad}:5: spec.workers: is 0; must be at least 1",
        f"{bad}:6: spec.spare: unknown field; did you mean spares?",
        f"{none}: cannot be read: No such file or directory",
        f"{tmp_path}: cannot be read: Is a directory",
    ]


def test_json(app: typer.Typer, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(GOOD)
    bad.write_text(GOOD.replace("workers: 2", "workers: 0"))
    code, output, _ = run(app, "validate", "--json", good, bad)
    assert code == 2
    problem = {"line": 5, "column": 3, "path": "spec.workers", "message": "is 0; must be at least 1"}
    assert json.loads(output) == [
        {"file": str(good), "valid": True, "job": "gpt", "problems": []},
        {"file": str(bad), "valid": False, "job": None, "problems": [problem]},
    ]


def test_crds_are_written_and_then_up_to_date(app: typer.Typer, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "crds"
    assert run(app, "crds", "--output", folder)[0] == 0
    assert {path.name: path.read_text() for path in folder.iterdir()} == render_crds()
    assert run(app, "crds", "--output", folder, "--check") == (0, "", "")


def test_stale_crds_are_named_with_the_command_that_helps(app: typer.Typer, tmp_path: Path) -> None:
    assert run(app, "crds", "--output", tmp_path)[0] == 0
    changed, gone = sorted(tmp_path.iterdir())[:2]
    changed.write_text("kind: Else\n")
    gone.unlink()
    extra = tmp_path / "other.yaml"
    extra.write_text("")
    code, _, errors = run(app, "crds", "--output", tmp_path, "--check")
    assert code == 1
    assert f"{changed}: is not what the models say" in errors
    assert f"{gone}: is not what the models say" in errors
    assert f"{extra}: is not generated any more; delete it" in errors
    assert f"run: sternpost crds --output {tmp_path}" in errors
    assert changed.read_text() == "kind: Else\n"


def test_crds_on_standard_output(app: typer.Typer) -> None:
    code, output, _ = run(app, "crds", "--output", "-")
    assert code == 0
    assert output.count("kind: CustomResourceDefinition\n") == 3


def test_a_folder_that_cannot_be_written_is_named(app: typer.Typer, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    code, _, errors = run(app, "crds", "--output", file)
    assert code == 2
    assert str(file) in errors
