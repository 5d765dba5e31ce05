"""Threads that may get stuck: what waits for a storage that does not answer must not take the sidecar with it.

A thread in a system call cannot be ended. It can be given up: it does no harm then, because it changes nothing any more once it
comes back, and it does not keep the process, because it is a daemon.
"""

from __future__ import annotations

import contextvars
import threading
import time
from collections import deque
from collections.abc import Callable

from sternpost_checkpoint.errors import CheckpointError

MAX_STUCK = 8
"""Threads that may be stuck at the same time, before nothing new is begun."""


class GivenUpError(CheckpointError):
    """Raised inside of work that has been given up, at its next sign of life."""


class Task:
    """Some work in a thread of its own."""

    def __init__(self, name: str, work: Callable[[], None], given_up: Callable[[str], None] | None) -> None:
        self.name = name
        self.progress_at = time.monotonic()
        self.finished = threading.Event()
        self.abandoned = threading.Event()
        self.error: BaseException | None = None
        self._work = work
        self._given_up = given_up

    def touch(self) -> None:
        """There was progress. Raises GivenUpError when nobody waits for it any more."""
        if self.abandoned.is_set():
            raise GivenUpError(f"{self.name} was given up")
        self.progress_at = time.monotonic()

    def run(self) -> None:
        """Work, in the calling thread."""
        _current.set(self)
        try:
            self._work()
        except GivenUpError:
            pass  # whoever gave it up has said so
        except BaseException as error:  # noqa: BLE001 # raised again by `Workers.reap`, in the thread that waits
            self.error = error
        finally:
            self.finished.set()

    def give_up(self, reason: str) -> None:
        """Let it go."""
        self.abandoned.set()
        if self._given_up is not None:
            self._given_up(reason)


_current: contextvars.ContextVar[Task | None] = contextvars.ContextVar("task", default=None)


def current_task() -> Task | None:
    """The task that the calling thread works on."""
    return _current.get()


def touch() -> None:
    """Tell that the calling thread's task goes on. Raises GivenUpError when it has been given up."""
    task = _current.get()
    if task is not None:
        task.touch()


class Workers:
    """Runs tasks, at most `limit` at a time, each in a daemon thread; those that are stuck do not count. One thread uses it."""

    def __init__(self, name: str, limit: int, stall_seconds: float) -> None:
        self._name = name
        self._limit = limit
        self._stall_seconds = stall_seconds
        self._waiting: deque[Task] = deque()
        self._running: list[Task] = []
        self._stuck: list[Task] = []

    @property
    def busy(self) -> int:
        """Tasks that wait or run."""
        return len(self._waiting) + len(self._running)

    @property
    def stuck(self) -> int:
        """Tasks that were given up and have not ended."""
        return len(self._stuck)

    def submit(self, name: str, work: Callable[[], None], given_up: Callable[[str], None] | None = None) -> None:
        """Do `work` when there is room. `given_up` is told when it makes no progress for too long."""
        self._waiting.append(Task(name, work, given_up))
        self._start()

    def reap(self, now: float) -> None:
        """See what has ended, give up what is stuck, start what waits. Raises what a task has not handled: a defect."""
        self._stuck = [task for task in self._stuck if not task.finished.is_set()]
        for task in list(self._running):
            if task.finished.is_set():
                self._running.remove(task)
                if task.error is not None:
                    raise task.error
            elif now - task.progress_at >= self._stall_seconds:
                self._running.remove(task)
                self._stuck.append(task)
                task.give_up(
                    f"the storage has done nothing for {now - task.progress_at:.0f} s; it is left alone and tried again"
                )
        self._start()

    def _start(self) -> None:
        while self._waiting and len(self._running) < self._limit:
            task = self._waiting.popleft()
            if len(self._stuck) >= MAX_STUCK:
                task.finished.set()
                task.give_up(
                    f"{len(self._stuck)} calls of the storage are stuck; nothing new is begun until one returns"
                )
                continue
            task.progress_at = time.monotonic()
            self._running.append(task)
            threading.Thread(target=task.run, name=f"{self._name}-{task.name}", daemon=True).start()
