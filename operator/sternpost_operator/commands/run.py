"""`sternpost run`: a TrainingJob on this machine, from its manifest to its report."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import structlog
from pydantic import ValidationError
from rich.console import Console

from sternpost_operator.cluster.local.paths import LocalPaths
from sternpost_operator.local_run import report as reports
from sternpost_operator.local_run import summary
from sternpost_operator.local_run.injection import Injection, InjectionError, parse_all
from sternpost_operator.local_run.interrupts import Interrupts
from sternpost_operator.local_run.log import configure_logging
from sternpost_operator.local_run.plain_view import PlainView
from sternpost_operator.local_run.prepare import Prepared, localize, prepare
from sternpost_operator.local_run.report import Report
from sternpost_operator.local_run.services import ServiceError, tail
from sternpost_operator.local_run.snapshot import LoopState, Snapshot, write_atomically
from sternpost_operator.local_run.state import StateDirectory, StateError
from sternpost_operator.local_run.stored import ask_checkpoint, fetch_topics
from sternpost_operator.local_run.supervisor import Supervisor
from sternpost_operator.local_run.timeline import events
from sternpost_operator.local_run.view import LiveView, RunView
from sternpost_operator.resources.manifest import ManifestError
from sternpost_operator.resources.manifest import load_job as read_job
from sternpost_operator.resources.training_job import TRAINER_CONTAINER, TrainingJob
from sternpost_operator.resources.training_job_status import Phase

SUCCEEDED, FAILED, BAD_INPUT, TIMED_OUT = 0, 1, 2, 3
"""Exit codes; after a signal N it is 128 + N."""

TICK = 0.1
"""Seconds between two looks at the run."""
MAX_REPORT_BYTES = 256 * 1024 * 1024
_LOG_LINES = 15
_LOGS = 3


@dataclass(frozen=True)
class Options:
    """What was asked for on the command line."""

    manifest: Path
    nodes: int | None = None
    """As many as there are workers and spares, if not given."""
    inject: Sequence[str] = ()
    report: Path | None = None
    plain: bool = False
    state_dir: Path | None = None
    """`.sternpost/NAME` if not given."""
    picture: Path | None = None
    reference: Path | None = None
    topics: Path | None = None
    timeout: float | None = None
    """Seconds."""
    fresh: bool = False
    keep: bool = False


class InputError(Exception):
    """What was asked for cannot be done; the message says why, in one line for each problem."""


def run(options: Options, console: Console) -> int:
    """Run the job; the exit code. Everything said goes to `console`, problems with the input too."""
    with Interrupts() as interrupts:
        try:
            return _run(options, console, interrupts)
        except (InputError, InjectionError, StateError) as error:
            for line in str(error).splitlines():
                console.print(f"sternpost run: {line}", style="red", markup=False, highlight=False, soft_wrap=True)
            return BAD_INPUT
        except (ServiceError, OSError) as error:
            console.print(f"sternpost run: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
            return FAILED


def _run(options: Options, console: Console, interrupts: Interrupts) -> int:
    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    job = load_job(options.manifest)
    reference = _read_reference(options.reference)
    root = (options.state_dir or Path(".sternpost") / job.metadata.name).absolute()
    try:
        paths = LocalPaths(root)
    except ValueError as error:
        raise InputError(str(error)) from error
    job = localize(job, options.manifest.absolute().parent, root)
    count = options.nodes or job.spec.max_workers + job.spec.spares
    nodes = [f"node-{number}" for number in range(count)]
    injections = parse_all(options.inject, nodes)
    state = StateDirectory(root)
    with state.hold(), _logging_to(state.run_log):
        try:
            prepared = prepare(job, state, paths, fresh=options.fresh, keep=options.keep, say=say)
        except OSError as error:
            raise StateError(f"cannot prepare {root}: {error}") from error
        end = _Run(
            *(options, paths, state, prepared),
            nodes=nodes,
            injections=injections,
            interrupts=interrupts,
            console=console,
        ).execute()
        if end.loop is None:
            say("the job was stopped before its operator had seen it")
            return end.code
        outcome = _report(prepared, state, end)
        _publish(outcome, state, options, reference, say)
        if end.code == FAILED:
            _say_logs(paths, say)
        if end.code not in (SUCCEEDED, FAILED):
            say(f"the state is in {root}: the same command goes on from there")
        return end.code


@dataclass(frozen=True)
class End:
    """How a run came to its end."""

    code: int
    at: float
    """Unix seconds."""
    loop: LoopState | None
    snapshot: Snapshot


class _Run:
    """From the start of the nodes to the end of the last process."""

    def __init__(
        self,
        options: Options,
        paths: LocalPaths,
        state: StateDirectory,
        prepared: Prepared,
        *,
        nodes: Sequence[str],
        injections: Sequence[Injection],
        interrupts: Interrupts,
        console: Console,
    ) -> None:
        self._options = options
        self._state = state
        self._prepared = prepared
        self._interrupts = interrupts
        self._name = prepared.job.metadata.name
        self._supervisor = Supervisor(
            paths,
            state,
            job=self._name,
            nodes=nodes,
            injections=injections,
            started_at=prepared.record.started_at,
            grace_seconds=prepared.job.spec.recovery.grace_seconds,
        )
        self._view = _view(options, console, self._name)
        # What an earlier run has told already is not told again.
        self._known = self._supervisor.snapshot(time.time())
        self._shown = Snapshot(
            at=self._known.at,
            started_at=self._known.started_at,
            loop=LoopState(at=self._known.at, job=prepared.job),
            injected=self._known.injected,
            dead_nodes=self._known.dead_nodes,
        )

    def execute(self) -> End:
        """Run to the end; whatever happens, nothing is left running."""
        with self._view:
            try:
                self._supervisor.start()
                code = self._watch()
                self._fetch_topics(code)
            finally:
                self._supervisor.stop(lambda: self._interrupts.hurry)
            at = time.time()
            # The operator may have written more between the last look and its end.
            self._show(self._supervisor.last(at))
        return End(code, at, self._known.loop, self._known)

    def _watch(self) -> int:
        deadline = None if self._options.timeout is None else time.monotonic() + self._options.timeout
        while True:
            self._show(self._supervisor.tick(time.time()))
            if self._interrupts.first is not None:
                self._view.say(f"{self._interrupts.first.name}: stopping; once more ends everything at once")
                return self._interrupts.exit_code
            if self._supervisor.settled(self._known) and self._known.loop is not None:
                return SUCCEEDED if self._known.loop.job.status.phase is Phase.SUCCEEDED else FAILED
            if deadline is not None and time.monotonic() > deadline:
                self._view.say(f"stopping: the job did not end within --timeout {self._options.timeout:g} s")
                return TIMED_OUT
            time.sleep(TICK)

    def _show(self, snapshot: Snapshot) -> None:
        self._view.update(snapshot, events(self._shown, snapshot))
        self._shown = snapshot if snapshot.loop is not None else replace(snapshot, loop=self._shown.loop)
        self._known = snapshot

    def _fetch_topics(self, code: int) -> None:
        folder, url = self._options.topics, self._prepared.job.spec.memory.url or self._supervisor.memory_url()
        if folder is None or url is None or self._known.loop is None or code not in (SUCCEEDED, FAILED):
            return
        nodes = [each.node for each in self._known.loop.job.status.excluded_nodes]
        try:
            written = fetch_topics(url, self._prepared.job.spec.memory.space, nodes, folder)
        except OSError as error:
            self._view.say(f"topics not written to {folder}: {error}")
            return
        if written:
            self._view.say(f"what is remembered of the excluded nodes: {', '.join(str(path) for path in written)}")


def load_job(path: Path) -> TrainingJob:
    """Read and validate a manifest; raises `InputError` with a line `FILE:LINE: …` for each problem."""
    try:
        return read_job(path)
    except ManifestError as error:
        raise InputError(str(error)) from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error


def _view(options: Options, console: Console, job: str) -> RunView:
    if not options.plain and console.is_terminal:
        return LiveView(console, job)

    def write(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
        console.file.flush()

    return PlainView(write, job)


def _report(prepared: Prepared, state: StateDirectory, end: End) -> Report:
    assert end.loop is not None  # noqa: S101 -- the caller has looked
    storage = prepared.job.spec.checkpoint
    try:
        losses = reports.read_losses(state.losses.read_bytes().splitlines())
    except FileNotFoundError:
        losses = []
    return reports.build(
        end.loop,
        started_at=prepared.record.started_at,
        ended_at=end.at,
        stored=ask_checkpoint(storage.storage) if storage is not None else None,
        injected=end.snapshot.injected,
        losses=losses,
    )


def _publish(
    outcome: Report, state: StateDirectory, options: Options, reference: Report | None, say: Callable[[str], None]
) -> None:
    content = json.dumps(outcome.to_json(), indent=1, ensure_ascii=False).encode()
    for path in (state.report, options.report):
        if path is None:
            continue
        try:
            path.absolute().parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, content)
        except OSError as error:
            say(f"report not written to {path}: {error}")
    for line in summary.lines(outcome):
        say(line)
    if options.picture is not None:
        from sternpost_operator.local_run.picture import draw  # noqa: PLC0415 -- matplotlib takes a second to load

        try:
            options.picture.absolute().parent.mkdir(parents=True, exist_ok=True)
            draw(outcome, options.picture, reference)
        except OSError as error:
            say(f"picture not written to {options.picture}: {error}")


def _read_reference(path: Path | None) -> Report | None:
    if path is None:
        return None
    try:
        if path.stat().st_size > MAX_REPORT_BYTES:
            raise InputError(f"--reference {path} is larger than any report")
        return Report.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"--reference {path} cannot be read: {error.strerror or error}") from error
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise InputError(f"--reference {path} is no report of `sternpost run`: {where}: {problem['msg']}") from error


def _say_logs(paths: LocalPaths, say: Callable[[str], None]) -> None:
    logs = sorted(paths.logs.glob(f"*/{TRAINER_CONTAINER}.log"), key=lambda log: log.stat().st_mtime, reverse=True)
    for log in logs[:_LOGS]:
        last = tail(log).splitlines()[-_LOG_LINES:]
        if last:
            say(f"the end of {log}:")
            for line in last:
                say(f"  {line}")


@contextlib.contextmanager
def _logging_to(path: Path) -> Iterator[None]:
    """The supervisor's own log goes to a file, as JSON lines: the terminal belongs to the view."""
    before = structlog.get_config()
    with path.open("a") as file:
        configure_logging(file)
        try:
            yield
        finally:
            structlog.configure(**before)
