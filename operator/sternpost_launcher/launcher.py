"""The launcher: follows the Attempts, one small step at a time. What to do is decided in `decide.py`."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from enum import Enum
from typing import Optional

from sternpost_launcher.attempt_file import Action, Attempt, AttemptFile
from sternpost_launcher.children import Children
from sternpost_launcher.decide import Known, Own, Role, Step, accepts, decide
from sternpost_launcher.ending import Ending
from sternpost_launcher.family import Family
from sternpost_launcher.journal import FAILED, SUCCEEDED, Journal
from sternpost_launcher.json_file import UnusableFileError
from sternpost_launcher.log import Log
from sternpost_launcher.output import Sink
from sternpost_launcher.preflight import Preflight, describe_failure
from sternpost_launcher.processes import boot_id, send
from sternpost_launcher.ranks import Ranks, describe_killed
from sternpost_launcher.reprieve import Reprieve
from sternpost_launcher.settings import DEFAULT_GRACE_SECONDS, Settings
from sternpost_launcher.signals import ENDING, Signals
from sternpost_launcher.started_file import Started
from sternpost_launcher.status_file import State, Status, StatusFile, bounded

COMPLETION_SECONDS = 600.0
"""How long a worker that is done waits for the others when it hears nothing: then its machine is worth more."""
CHECKPOINT_FOLDER = "checkpoint"
"""In the shared memory, wherever the job has checkpoints: made by their sidecar."""


class Purpose(Enum):
    """Why ranks are being ended, which tells what comes after."""

    ORPHANS = "an earlier launcher left them behind"
    FAILURE = "a rank failed"
    SUCCESS = "all ranks succeeded"
    ATTEMPT = "the attempt is over"
    SIGNAL = "the launcher was told to end"


class Launcher:
    """All state of a running launcher. `begin` once, then `step` until it returns an exit code."""

    def __init__(
        self,
        *,
        settings: Settings,
        command: Sequence[str],
        children: Children,
        family: Family,
        sink: Sink,
        signals: Signals,
        log: Log,
    ) -> None:
        self._settings = settings
        self._command = list(command)
        self._children = children
        self._family = family
        self._sink = sink
        self._signals = signals
        self._log = log
        self._status = Status()
        self._status_file = StatusFile(settings.control_dir)
        self._attempt_file = AttemptFile(settings.control_dir / "attempt.json")
        self._attempt: Optional[Attempt] = None
        self._known: Optional[Known] = None
        self._begun: Optional[str] = None
        """Id of the last attempt that was begun; never begun again."""
        self._journal = Journal(settings.control_dir, log)
        self._started_unreadable = ""
        self._preflight: Optional[Preflight] = None
        self._ranks: Optional[Ranks] = None
        self._ending: Optional[Ending] = None
        self._reprieve: Optional[Reprieve] = None
        self._purpose = Purpose.ATTEMPT
        self._notice = ""
        """What became of the attempt before, for the next message."""
        self._exit_code: Optional[int] = None
        self._succeeded_at: Optional[float] = None
        """Monotonic seconds."""

    @property
    def ending(self) -> bool:
        """Whether something is being ended, so that looking often pays."""
        return self._ending is not None

    def begin(self) -> None:
        """Take over from a launcher that was killed in this Pod, if there was one."""
        try:
            self._journal.load()
        except UnusableFileError as error:
            self._started_unreadable = str(error)
            self._log.warning("started.json is unusable; the current attempt counts as started", problem=str(error))
        started = self._journal.started
        if started is not None:
            self._begun = started.attempt
            self._known = Known(started.number, started.attempt, Action.RUN)
            status = self._status
            status.attempt, status.attempt_number = started.attempt, started.number
            status.worker, status.started_at = started.worker, started.started_at
            status.ranks, status.message = started.ranks, started.message
            status.terminated_at = started.terminated_at
            if started.outcome == SUCCEEDED:
                status.state = State.SUCCEEDED
            else:
                status.state = State.FAILED
                if not started.outcome:
                    status.message = f"launcher was restarted while attempt {started.attempt} ran"
                    self._journal.settle(FAILED, status.message)
        orphans = self._family.take_over(started)
        self._log.info("launcher starts", pid=os.getpid(), attempt=self._begun, orphans=len(orphans))
        if orphans:
            self._end(Purpose.ORPHANS, self._settings.grace_seconds)
        elif started is not None and started.gone_at is None:
            self._journal.note_gone(time.time())
        self._write_status()

    def step(self) -> Optional[int]:
        """Do what is due; returns the exit code when there is nothing more to do."""
        self._take_signals()
        self._children.reap()
        self._collect_exits()
        self._poll_attempt()
        self._advance_preflight()
        self._advance_reprieve()
        self._advance_ending()
        code = self._exit_if_told()
        if code is None:
            code = self._follow()
        self._journal.retry(time.monotonic())
        self._write_status()
        return code

    # --- signals and the end of the launcher

    def _take_signals(self) -> None:
        while True:
            number = self._signals.take()
            if number is None:
                return
            self._log.info("signal", signal=number.name)
            if number not in ENDING:
                if self._ranks is not None:
                    self._ranks.forward(number)
                continue
            now = time.monotonic()
            if self._exit_code is not None:
                if self._reprieve is not None:
                    self._end_for_signal(number)
                elif self._ending is not None:
                    self._ending.kill_now(now)
                continue
            self._exit_code = 128 + number
            self._cancel_preflight()
            if self._ending is not None:
                self._ending.hurry(now, self._grace(self._settings.grace_seconds))
            elif self._ranks is not None:
                if number is signal.SIGTERM and self._saves_checkpoints():
                    self._reprieve = Reprieve(now, self._grace(self._settings.grace_seconds))
                else:
                    self._end_for_signal(number)

    def _saves_checkpoints(self) -> bool:
        shm = self._settings.shm_dir
        return shm is not None and (shm / CHECKPOINT_FOLDER).is_dir()

    def _end_for_signal(self, number: signal.Signals) -> None:
        self._journal.settle(FAILED, f"the launcher was ended by {number.name}")
        self._end(Purpose.SIGNAL, self._settings.grace_seconds)

    def _advance_reprieve(self) -> None:
        if self._reprieve is None or self._attempt is None:
            return
        if self._reprieve.is_over(time.monotonic(), self._attempt.save_at_step):
            self._end_for_signal(signal.SIGTERM)

    def _exit_if_told(self) -> Optional[int]:
        if self._exit_code is None:
            return None
        if self._reprieve is not None or (self._ending is not None and not self._ending.stuck(time.monotonic())):
            return None
        if self._status.state is State.SUCCEEDED:
            return 0
        return self._exit_code

    # --- the attempt

    def _poll_attempt(self) -> None:
        candidate = self._attempt_file.poll(time.monotonic())
        self._log.once("attempt.json is not usable; the last one stays in force", self._attempt_file.problem)
        if candidate is None or candidate == self._attempt:
            return
        job_uid = self._settings.job_uid
        if job_uid and candidate.job_uid != job_uid:
            self._log.once("attempt of another job ignored", f"jobUid {candidate.job_uid}")
            return
        known = Known(candidate.number, candidate.id, candidate.action)
        if not accepts(self._known, known):
            self._log.once("old attempt ignored", f"{candidate.id} {candidate.action.value}")
            return
        self._known, self._attempt = known, candidate
        self._log.info("attempt", id=candidate.id, action=candidate.action.value, workers=len(candidate.workers))

    def _role(self, attempt: Attempt) -> tuple[Role, Optional[int]]:
        pod, uid = self._settings.pod, self._settings.pod_uid
        worker = attempt.worker_index(pod, uid)
        if worker is not None:
            return Role.WORKER, worker
        return (Role.SPARE if attempt.is_spare(pod, uid) else Role.ABSENT), None

    def _follow(self) -> Optional[int]:
        attempt = self._attempt
        role, worker = (Role.ABSENT, None) if attempt is None else self._role(attempt)
        alive = any(part is not None for part in (self._preflight, self._ranks, self._ending))
        step = decide(attempt, role, Own(self._begun, alive))
        if step is Step.KEEP or attempt is None:
            return 0 if not alive and self._may_leave(attempt) else None
        if step is Step.END:
            self._cancel_preflight()
            if self._ending is None and self._ranks is not None:
                self._journal.settle(FAILED, f"ended for attempt {attempt.id}")
                self._end(Purpose.ATTEMPT, attempt.grace_seconds)
        elif step is Step.START and worker is not None:
            self._begin_attempt(attempt, worker)
        elif step is Step.EXIT:
            if self._status.state is not State.SUCCEEDED:
                self._move(State.WAITING, attempt, None, "stopped")
            return 0
        else:
            state = State.IDLE if step is Step.IDLE else State.WAITING
            if (self._status.state, self._status.attempt) != (state, attempt.id):
                self._move(state, attempt, None, self._take_notice())
        return None

    def _may_leave(self, attempt: Optional[Attempt]) -> bool:
        """Whether this worker is done for good: should another one fail, its ranks are needed once more."""
        if self._status.state is not State.SUCCEEDED:
            return False
        if self._succeeded_at is None:
            self._succeeded_at = time.monotonic()
        if attempt is not None and attempt.id == self._status.attempt and attempt.complete:
            return True
        if time.monotonic() - self._succeeded_at < COMPLETION_SECONDS:
            return False
        self._log.warning("nobody said that all workers are done; leaving", waited=COMPLETION_SECONDS)
        return True

    def _move(self, state: State, attempt: Attempt, worker: Optional[int], message: str) -> None:
        """Leave the attempt before behind and report of this one."""
        self._status = Status(state, attempt.id, attempt.number, worker, message, self._journal.last_gone_at)
        self._log.info("state", state=state.value, attempt=attempt.id, worker=worker)

    def _take_notice(self) -> str:
        notice, self._notice = self._notice, ""
        return notice

    # --- preflight and start

    def _begin_attempt(self, attempt: Attempt, worker: int) -> None:
        self._begun = attempt.id
        self._succeeded_at = None
        self._move(State.PREFLIGHT, attempt, worker, self._take_notice())
        if self._started_unreadable:
            problem, self._started_unreadable = self._started_unreadable, ""
            self._new_record(attempt, worker)
            self._fail(f"cannot tell whether attempt {attempt.id} ran here already: started.json is {problem}")
            return
        self._preflight = Preflight(
            settings=self._settings,
            command=self._command,
            attempt=attempt,
            worker=worker,
            children=self._children,
            wake=self._signals.wake,
        )

    def _cancel_preflight(self) -> None:
        if self._preflight is not None:
            self._preflight.cancel()
            self._preflight = None

    def _advance_preflight(self) -> None:
        preflight = self._preflight
        if preflight is None or not preflight.done:
            return
        self._preflight = None
        self._status.preflight = preflight.verdicts
        for verdict in preflight.verdicts:
            if not verdict.ok or "warning" in verdict.detail:
                self._log.warning("preflight", check=verdict.check, ok=verdict.ok, detail=verdict.detail)
        started = self._new_record(preflight.attempt, preflight.worker)
        if preflight.failed:
            self._fail(describe_failure(preflight.failed))
        else:
            self._start_ranks(preflight.attempt, started)

    def _new_record(self, attempt: Attempt, worker: int) -> Started:
        started = Started(attempt.id, attempt.number, worker, os.getpid(), boot_id())
        self._journal.begin(started)
        return started

    def _start_ranks(self, attempt: Attempt, started: Started) -> None:
        self._journal.save()  # before the first rank: whoever comes after knows that this attempt was begun
        ranks = Ranks(attempt, started.worker, self._children, self._sink)
        self._ranks = ranks
        self._status.ranks = started.ranks = ranks.records
        for _ in range(attempt.ranks_per_worker):
            try:
                ranks.start_next(self._settings, self._command)
            except OSError as error:
                message = f"cannot start {self._command[0]}: {error.strerror}: correct the trainer's command or image"
                self._journal.settle(FAILED, message)
                self._status.message = message
                self._end(Purpose.FAILURE, attempt.grace_seconds)
                return
            self._journal.save()
        self._status.started_at = started.started_at = time.time()
        self._status.state = State.RUNNING
        self._journal.save()
        self._log.info("ranks started", attempt=attempt.id, worker=started.worker, ranks=len(ranks.records))

    # --- ranks that end, and ending them

    def _collect_exits(self) -> None:
        ranks = self._ranks
        if ranks is None:
            return
        ended = ranks.collect(ending=self._ending is not None)
        if not ended:
            return
        for record in ended:
            self._log.info("rank ended", rank=record.rank, code=record.exit_code, pid=record.pid)
        if self._ending is not None:
            self._journal.save()
        elif ranks.first_failure is not None:
            self._status.message = ranks.describe_failure()
            self._journal.settle(FAILED, self._status.message)
            self._end(Purpose.FAILURE, ranks.attempt.grace_seconds)
        elif ranks.succeeded:
            self._status.state, self._status.message = State.SUCCEEDED, ""
            self._journal.settle(SUCCEEDED, "")
            self._end(Purpose.SUCCESS, ranks.attempt.grace_seconds)
        else:
            self._journal.save()

    def _grace(self, seconds: Optional[float]) -> float:
        if seconds is not None:
            return seconds
        return self._attempt.grace_seconds if self._attempt is not None else DEFAULT_GRACE_SECONDS

    def _end(self, purpose: Purpose, grace: Optional[float]) -> None:
        self._reprieve = None
        self._ending = Ending(time.monotonic(), self._grace(grace))
        self._purpose = purpose
        if self._status.state is not State.SUCCEEDED:
            self._status.state = State.STOPPING
        self._log.info("ending ranks", why=purpose.value, attempt=self._status.attempt, grace=self._ending.grace)

    def _advance_ending(self) -> None:
        ending = self._ending
        if ending is None:
            return
        self._children.reap()
        self._collect_exits()
        now = time.monotonic()
        targets = self._family.find(orphans=self._purpose is Purpose.ORPHANS)
        killed_before = len(ending.killed)
        for process, number in ending.step(targets, now):
            send(process, number)
        if len(ending.killed) > killed_before:
            self._log.warning("killed", why=describe_killed(self._status.ranks, ending.killed, ending.grace))
        if targets or (self._ranks is not None and not self._ranks.gone):
            if ending.stuck(now):
                pids = ", ".join(f"{process.pid} ({process.state})" for process in targets[:8])
                self._status.message = f"processes {pids} outlive SIGKILL: they hang in the kernel, replace the Pod"
                self._log.once("processes outlive SIGKILL", pids)
            return
        if self._ranks is None or self._ranks.drained(now):
            self._finish_ending(ending)

    def _finish_ending(self, ending: Ending) -> None:
        ranks, self._ranks, self._ending = self._ranks, None, None
        self._family.forget()
        killed = describe_killed(self._status.ranks, ending.killed, ending.grace)
        self._journal.note_gone(time.time())
        self._log.info("ranks are gone", attempt=self._status.attempt)
        if self._purpose is Purpose.SUCCESS:
            self._status.message = killed
        elif self._purpose is Purpose.FAILURE:
            failure = ranks.describe_failure(killed) if ranks is not None else ""
            self._fail(failure or self._status.message)
        elif self._purpose is Purpose.ORPHANS and self._journal.started is not None:
            self._fail("; ".join(part for part in (self._status.message, killed) if part))
        elif self._purpose is Purpose.ORPHANS:
            self._status.state, self._status.message = State.WAITING, killed
        else:
            self._notice = killed
            self._status.message = killed

    def _fail(self, message: str) -> None:
        # With an attempt that succeeded, the orphans are only what it left behind.
        if self._status.state is State.STOPPING or self._status.state is State.PREFLIGHT:
            self._status.state = State.FAILED
            self._log.error("attempt failed here", attempt=self._status.attempt, why=bounded(message)[:500])
            self._journal.settle(FAILED, message)
        self._status.message = message

    def _write_status(self) -> None:
        self._status_file.write(self._status, wall=time.time(), monotonic=time.monotonic())
        self._log.once("launcher.json cannot be written; it is tried again", self._status_file.problem)
