"""Hugging Face Trainer.

```
checkpoints = SternpostCallback(every_steps=50)
trainer = Trainer(…, callbacks=[checkpoints])
trainer.train(resume_from_checkpoint=checkpoints.resume(trainer))
```

Model, optimizer, scheduler, the trainer's own state, the states of its callbacks and every random state are saved, and
restored in place; the trainer skips the batches that it has had. A training that goes on is the same bit by bit as one that
was never interrupted, as far as its data comes in an order of its own (the default) and not from a global random state.
"""

# ruff: noqa: ARG002 # the signatures are the library's

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from sternpost_checkpoint.client.checkpointer import Checkpointer
from sternpost_checkpoint.client.random_state import capture_random, restore_random
from sternpost_checkpoint.errors import CheckpointError

STATE_FILE = "trainer_state.json"
_KEPT = ("global_step", "max_steps", "num_train_epochs", "stateful_callbacks", "trial_params", "trial_name")
"""Fields of TrainerState that the trainer has set itself for this run."""


class _TrainerState:
    """The trainer's state and that of its callbacks, as one object with a state."""

    def __init__(self, trainer: Trainer, state: TrainerState) -> None:
        self._trainer = trainer
        self._state = state

    def state_dict(self) -> dict[str, Any]:
        """Plain values."""
        fields = {
            field.name: getattr(self._state, field.name)
            for field in dataclasses.fields(self._state)
            if field.name not in _KEPT
        }
        return {"state": fields, "callbacks": {name: callback.state() for name, callback in self._callbacks().items()}}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Into the objects that there are. A callback that is new keeps its own state."""
        for name, value in saved["state"].items():
            setattr(self._state, name, value)
        callbacks = self._callbacks()
        for name, state in saved["callbacks"].items():
            for attribute, value in state["attributes"].items() if name in callbacks else ():
                setattr(callbacks[name], attribute, value)

    def _callbacks(self) -> dict[str, Any]:
        return {
            f"{type(callback).__name__}-{number}": callback
            for number, callback in enumerate(self._trainer.callback_handler.callbacks)
            if isinstance(callback, ExportableState)
        }


class SternpostCallback(TrainerCallback):
    """Saves every `every_steps` steps, at the last one, and when the node is about to go. `options`: of the Checkpointer."""

    def __init__(self, *, every_steps: int, **options: Any) -> None:
        if every_steps < 1:
            raise ValueError(f"every_steps is at least 1, not {every_steps}")
        self._every = every_steps
        self._options = options
        self._trainer: Trainer | None = None
        self._checkpointer: Checkpointer | None = None
        self._promised = 0
        self._random: dict[str, Any] | None = None
        """What the random states must be when the training goes on."""
        self._pending: int | None = None
        """The step to be saved before the next one begins."""
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def resume(self, trainer: Trainer) -> str | None:
        """Return what `trainer.train(resume_from_checkpoint=…)` needs to begin at the right batch; None to begin afresh.

        The folder says only where to begin; everything else is restored when the training begins. Raises CheckpointError.
        """
        self._trainer = trainer
        options = {key: value for key, value in self._options.items() if key == "replicated"}
        if not isinstance(trainer.model, torch.nn.Module):
            raise CheckpointError("the trainer has no model yet: give it one, not model_init")
        self._promised = Checkpointer(model=trainer.model, measure_floor=False, **options).newest_step()
        if self._promised == 0:
            return None
        self._folder = tempfile.TemporaryDirectory(prefix="sternpost-resume-")
        arguments = trainer.args
        TrainerState(
            global_step=self._promised,
            # The trainer compares them with its arguments, which may be shares of an epoch.
            logging_steps=arguments.logging_steps,  # type: ignore[arg-type]
            eval_steps=arguments.eval_steps,  # type: ignore[arg-type]
            save_steps=arguments.save_steps,  # type: ignore[arg-type]
            train_batch_size=arguments.train_batch_size,
        ).save_to_json(str(Path(self._folder.name) / STATE_FILE))
        load = trainer._load_from_checkpoint  # noqa: SLF001 # the trainer refuses a folder without weights, and has no other door

        def load_others(path: str, model: Any = None) -> None:
            if self._folder is None or path != self._folder.name:
                load(path, model)

        vars(trainer)["_load_from_checkpoint"] = load_others
        return self._folder.name

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **objects: Any
    ) -> None:
        """Make the Checkpointer, now that the objects are ready, and restore."""
        if self._trainer is None:
            raise CheckpointError(
                "call trainer.train(resume_from_checkpoint=callback.resume(trainer)): a callback alone cannot skip batches"
            )
        # Accelerate wraps these; the script's own names must not depend on it.
        optimizer = getattr(objects["optimizer"], "optimizer", objects["optimizer"])
        scheduler = getattr(objects["lr_scheduler"], "scheduler", objects["lr_scheduler"])
        extra = {"scheduler": scheduler, "trainer": _TrainerState(self._trainer, state)}
        scaler = getattr(self._trainer.accelerator, "scaler", None)
        if scaler is not None:
            extra["scaler"] = scaler
        self._checkpointer = Checkpointer(
            model=self._trainer.model_wrapped, optimizer=optimizer, extra=extra, **self._options
        )
        step = self._checkpointer.restore()
        if step != self._promised:
            raise CheckpointError(
                f"step {self._promised} turned out to be damaged and step {step} was restored, but the trainer is set to the"
                " former: start the training again, it will begin at the latter"
            )
        if step:
            self._random = capture_random()
            with torch.no_grad():
                objects["model"].zero_grad()

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **objects: Any
    ) -> None:
        """At an epoch's begin the order of the data may be drawn: the random states must be right before."""
        self._save_pending()
        if self._random is not None:
            restore_random(self._random)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **objects: Any
    ) -> None:
        """Everything of the last step is over: its evaluation, its log. Skipped batches have drawn, for the last time."""
        self._save_pending()
        if self._random is not None:
            restore_random(self._random)
            self._random = None

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **objects: Any
    ) -> None:
        """Remember that this step is to be saved; the last one at once, since none begins behind it."""
        checkpointer = self._made()
        last = state.global_step >= state.max_steps or control.should_training_stop
        if state.global_step % self._every == 0 or last or checkpointer.due(state.global_step):
            self._pending = state.global_step
        if last:
            self._save_pending(wait=True)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **objects: Any
    ) -> None:
        """Wait for the last commit."""
        if self._checkpointer is not None:
            self._checkpointer.close()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _made(self) -> Checkpointer:
        if self._checkpointer is None:
            raise CheckpointError("the training has not begun")
        return self._checkpointer

    def _save_pending(self, *, wait: bool = False) -> None:
        if self._pending is not None:
            self._made().save(self._pending, wait=wait)
            self._pending = None
