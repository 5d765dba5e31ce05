"""Lightning.

```
trainer = Trainer(…, callbacks=[SternpostCallback(every_steps=50)])
trainer.fit(model, loader)
```

The same two lines start a training and go on with it. What is saved is what Lightning's own checkpoints hold, without the
hyperparameters: module, optimizers, schedulers, loops, callbacks, precision, data module, stateful data loaders; and every
random state. Lightning restores it by its own means. As with its checkpoints, a loader without a state begins its epoch
anew: give a stateful one, or save at the ends of epochs, for a training that is the same bit by bit. A save at an epoch's end
comes before the module's own `on_train_epoch_end`, which a training that goes on from there does not call again.
"""

# ruff: noqa: ARG002 # the signatures are the library's

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy

from sternpost_checkpoint.client.checkpointer import Checkpointer
from sternpost_checkpoint.client.random_state import capture_random, restore_random
from sternpost_checkpoint.errors import CheckpointError

_HYPERPARAMETERS = (
    "hyper_parameters",
    "hparams_name",
    "hparams_type",
    "datamodule_hyper_parameters",
    "datamodule_hparams_name",
)


class _Held:
    """A part of Lightning's state, as an object with a state."""

    def __init__(self) -> None:
        self.value: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        """What was put in last."""
        return self.value

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Keep it for Lightning."""
        self.value = state


class SternpostCallback(Callback):
    """Saves every `every_steps` optimizer steps, at the end, and when the node is about to go. `options`: of the Checkpointer."""

    def __init__(self, *, every_steps: int, **options: Any) -> None:
        if every_steps < 1:
            raise ValueError(f"every_steps is at least 1, not {every_steps}")
        self._every = every_steps
        self._options = options
        self._checkpointer: Checkpointer | None = None
        self._model, self._optimizers, self._rest = _Held(), _Held(), _Held()
        self._saved = self._due = 0
        """The last step that was saved, and that should have been."""
        self._at_end = False
        """The step that is due ended an epoch."""
        self._random: dict[str, Any] | None = None
        """What the random states must be when the training goes on."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """The ranks know each other, and nothing is restored yet: hand Lightning what it shall restore."""
        if stage != "fit":
            return
        self._checkpointer = Checkpointer(
            model=self._model,
            optimizer=self._optimizers,
            extra={"lightning": self._rest},
            **{"replicated": trainer.world_size == 1 or isinstance(trainer.strategy, DDPStrategy), **self._options},
        )
        self._saved = self._due = self._checkpointer.restore()
        if not self._saved:
            return
        self._random = capture_random()
        optimizers = self._optimizers.value
        # What `fit(ckpt_path=…)` fills from a file: there is no door for a state that is in memory.
        trainer._checkpoint_connector._loaded_checkpoint = {  # noqa: SLF001 # see above
            **self._rest.value,
            "state_dict": self._model.value,
            "optimizer_states": [optimizers[str(number)] for number in range(len(optimizers))],
        }

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Everything has its size now: make room for the first save."""
        self._take(trainer)
        self._made().prepare()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What an epoch's last batch left to be saved: here Lightning's loops can go on, and behind that batch they cannot."""
        if self._due > self._saved and self._at_end:
            self._save(trainer, self._due, wait=False)
        self._at_end = False

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Whatever was drawn while the training was set up is undone."""
        if self._random is not None:
            restore_random(self._random)
            self._random = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save if it is time."""
        step = trainer.global_step
        if step > self._due and (step // self._every > self._due // self._every or self._made().due(step)):
            self._due, self._at_end = step, trainer.is_last_batch
            if not self._at_end:
                self._save(trainer, step, wait=False)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the end, and wait for the last commit."""
        step = trainer.global_step
        if step > self._saved:
            self._save(trainer, step, wait=True)
        self._made().close()

    def _made(self) -> Checkpointer:
        if self._checkpointer is None:
            raise CheckpointError("the training has not been set up: the callback belongs to trainer.fit")
        return self._checkpointer

    def _take(self, trainer: Trainer) -> None:
        state = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)  # noqa: SLF001 # save_checkpoint writes a file
        self._model.value = state.pop("state_dict")
        self._optimizers.value = {str(number): kept for number, kept in enumerate(state.pop("optimizer_states"))}
        self._rest.value = {key: value for key, value in state.items() if key not in _HYPERPARAMETERS}

    def _save(self, trainer: Trainer, step: int, *, wait: bool) -> None:
        self._take(trainer)
        if self._made().save(step, wait=wait):
            self._saved = step
