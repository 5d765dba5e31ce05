"""The real Trainer of Lightning, on a tiny module."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest

from sternpost_checkpoint.verify import verify_generation

pytestmark = pytest.mark.timeout(300)  # each process imports torch and more

SCRIPT = """
import hashlib, json, os, random, sys, time, warnings
warnings.simplefilter("ignore")
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from sternpost_checkpoint.client.integrations.lightning import SternpostCallback

stop, devices = int(sys.argv[1]), int(sys.argv[2])


class Loader:  # stateful, as torchdata's
    def __init__(self):
        self.position = 0

    def __len__(self):
        return 6

    def __iter__(self):
        self.position %= 6
        while self.position < 6:
            self.position += 1
            yield torch.arange(32.0).reshape(4, 8) / 32 + self.position

    def state_dict(self):
        return {"position": self.position}

    def load_state_dict(self, state):
        self.position = state["position"]


class Module(LightningModule):
    def __init__(self):
        super().__init__()
        self.save_hyperparameters({"object": object()})  # not needed to go on, and nothing that could be saved
        self.layers = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Dropout(), torch.nn.Linear(16, 8))

    def training_step(self, batch, number):
        return self.layers(batch).pow(2).mean() + random.random()

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.01)
        return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 100)}


class Stop(Callback):
    def on_train_batch_start(self, trainer, module, batch, number):
        if trainer.global_step == stop:
            print("STOP", flush=True)
            time.sleep(1000)  # until it is killed


torch.manual_seed(1)
random.seed(1)
module = Module()
callbacks = [SternpostCallback(every_steps=2, when_busy="wait"), *([Stop()] if stop else [])]
trainer = Trainer(
    max_epochs=2, accelerator="cpu", devices=devices, strategy="ddp" if devices > 1 else "auto", logger=False,
    enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, callbacks=callbacks,
)
trainer.fit(module, Loader())
weights = hashlib.sha256()
for value in module.state_dict().values():
    weights.update(value.numpy().tobytes())
for moments in trainer.optimizers[0].state_dict()["state"].values():
    for value in moments.values():
        weights.update(value.numpy().tobytes())
print("RESULT " + json.dumps({
    "weights": weights.hexdigest(), "step": trainer.global_step, "epoch": trainer.current_epoch,
    "rate": trainer.lr_scheduler_configs[0].scheduler.get_last_lr(), "random": [torch.rand(1).item(), random.random()],
}), flush=True)
os._exit(0)
"""


def run(surroundings: Any, attempt: int, stop: int, devices: int = 1) -> list[dict[str, Any]] | None:
    """One attempt on `devices` ranks; None when it was killed."""
    more: list[dict[str, str]] = [{}]
    if devices > 1:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        shared = {"WORLD_SIZE": str(devices), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0"}
        more = [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(devices)]
        for variables in more:  # as torchrun sets it: Lightning must not start the ranks itself
            variables |= {"TORCHELASTIC_RUN_ID": "1", "LOCAL_WORLD_SIZE": str(devices), "GROUP_RANK": "0"}
    arguments = ("-c", SCRIPT, str(stop), str(devices))
    processes = [surroundings.python(*arguments, attempt=attempt, **variables) for variables in more]
    if stop:
        for process in processes:
            lines = iter(process.stdout.readline, b"")
            assert b"STOP\n" in lines
        for process in processes:
            process.kill()
        return None
    results = []
    for process in processes:
        output = process.communicate(timeout=110)[0].decode()
        assert process.returncode == 0, output
        (line,) = [line for line in output.splitlines() if line.startswith("RESULT ")]
        results.append(json.loads(line.removeprefix("RESULT ")))
    return results


@pytest.mark.parametrize(
    ("stops", "devices"), [((3, 7), 1), ((6, 8), 1), ((5,), 2)], ids=["middle", "epoch's end", "ddp"]
)
def test_a_killed_trainer_ends_as_an_undisturbed_one(surroundings: Any, stops: tuple[int, ...], devices: int) -> None:
    surroundings.sidecar()
    for attempt, stop in enumerate(stops, start=1):
        assert run(surroundings, attempt, stop, devices) is None
    resumed = run(surroundings, 10, 0, devices)
    newest = surroundings.catalog.generations()[-1].generation
    assert newest.step == 12
    assert verify_generation(surroundings.catalog, newest) == []

    surroundings.end()
    surroundings.processes.clear()
    surroundings.storage, surroundings.shm = surroundings.root / "another-store", surroundings.root / "another-shm"
    surroundings.shm.mkdir()
    surroundings.sidecar()
    assert resumed == run(surroundings, 20, 0, devices)


def test_arguments_are_checked() -> None:
    from sternpost_checkpoint.client.integrations.lightning import SternpostCallback

    with pytest.raises(ValueError, match="at least 1"):
        SternpostCallback(every_steps=0)
