from __future__ import annotations

import io
import json
import os
import signal
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
import structlog
from rich.console import Console
from typer.testing import CliRunner

from sternpost_operator.cli import app
from sternpost_operator.commands.run import BAD_INPUT, Options, run
from sternpost_operator.local_run.interrupts import Interrupts

GOOD = """\
apiVersion: sternpost.dev/v1alpha1
kind: TrainingJob
metadata: {name: gpt}
spec:
  workers: 1
  template: {spec: {containers: [{name: trainer, image: none, command: ["true"]}]}}
"""


@pytest.fixture(autouse=True)
def _logging() -> Iterator[None]:
    """The commands set up logging for a process of their own."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(GOOD)
    return path


def refused(options: Options) -> str:
    console = Console(file=io.StringIO(), width=80)
    assert run(options, console) == BAD_INPUT
    output: str = console.file.getvalue()  # type: ignore[attr-defined]
    return output


def test_a_bad_manifest_names_file_line_and_field(manifest: Path) -> None:
    manifest.write_text(GOOD.replace("workers:", "workres:"))
    output = refused(Options(manifest))
    assert f"{manifest}:5: spec.workres" in output


def test_a_manifest_that_is_not_there(tmp_path: Path) -> None:
    assert "cannot be read: No such file" in refused(Options(tmp_path / "none.yaml"))


def test_a_bad_injection(manifest: Path, tmp_path: Path) -> None:
    output = refused(Options(manifest, inject=("kill:node=node-7,step=1",), state_dir=tmp_path / "state"))
    assert "node-7" in output
    assert not (tmp_path / "state").exists()


def test_a_state_dir_that_cannot_stand_in_commands(manifest: Path, tmp_path: Path) -> None:
    assert "choose a folder" in refused(Options(manifest, state_dir=tmp_path / "a$b"))


def test_a_state_dir_of_somebody_else(manifest: Path, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "thesis.txt").write_text("")
    assert "thesis.txt" in refused(Options(manifest, state_dir=tmp_path / "state"))
    assert (tmp_path / "state" / "thesis.txt").exists()


@pytest.mark.parametrize("content", ["{", json.dumps({"job": "x"})])
def test_a_reference_that_is_no_report(manifest: Path, tmp_path: Path, content: str) -> None:
    reference = tmp_path / "reference.json"
    reference.write_text(content)
    assert "--reference" in refused(Options(manifest, reference=reference, state_dir=tmp_path / "state"))


def test_interrupts_are_counted_and_given_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Interrupts() as interrupts:
        assert interrupts.first is None
        os.kill(os.getpid(), signal.SIGTERM)
        assert (interrupts.exit_code, interrupts.hurry) == (143, False)
        os.kill(os.getpid(), signal.SIGINT)
        assert (interrupts.exit_code, interrupts.hurry) == (143, True)
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_command_line() -> None:
    runner = CliRunner()
    assert runner.invoke(app, ["version"]).output.strip() == version("sternpost")
    text = runner.invoke(app, ["run", "--help"], env={"COLUMNS": "200"}).output
    for option in ("--nodes", "--inject", "--report", "--plain", "--state-dir", "--picture", "--keep", "--timeout"):
        assert option in text
    for command in ("run", "validate", "crds", "version"):
        assert command in runner.invoke(app, ["--help"]).output
    assert runner.invoke(app, ["run", "no-such-file.yaml"]).exit_code == 2
