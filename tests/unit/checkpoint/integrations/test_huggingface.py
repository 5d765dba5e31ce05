"""The real Trainer, on a tiny GPT-2 made from a config."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sternpost_checkpoint.verify import verify_generation

pytestmark = pytest.mark.timeout(300)  # each process imports torch and more

SCRIPT = """
import hashlib, json, os, random, sys
import numpy, torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments
from sternpost_checkpoint.client.integrations.huggingface import SternpostCallback

output, stop, epochs, evaluate = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]


class Stop(TrainerCallback):
    def on_step_end(self, args, state, control, **objects):
        if state.global_step == stop:
            os._exit(7)  # as by kill -9: nothing is flushed or closed


class Data(torch.utils.data.Dataset):
    def __len__(self):
        return 20

    def __getitem__(self, index):
        ids = torch.arange(8) * (index + 3) % 50
        return {"input_ids": ids, "labels": ids}


torch.manual_seed(1)
model = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_positions=8, n_embd=16, n_layer=2, n_head=2))
arguments = TrainingArguments(
    output_dir=output, num_train_epochs=epochs, per_device_train_batch_size=2, gradient_accumulation_steps=2,
    logging_steps=1, save_strategy="no", report_to=[], use_cpu=True, learning_rate=1e-2, lr_scheduler_type="cosine",
    disable_tqdm=True, eval_strategy=evaluate, eval_steps=2, seed=3,
)
checkpoints = SternpostCallback(every_steps=2, when_busy="wait")
trainer = Trainer(model=model, args=arguments, train_dataset=Data(), eval_dataset=Data(), callbacks=[checkpoints])
if stop:
    trainer.add_callback(Stop())
trainer.train(resume_from_checkpoint=checkpoints.resume(trainer))
weights = hashlib.sha256()
for value in model.state_dict().values():
    weights.update(value.detach().numpy().tobytes())
for moments in trainer.optimizer.state_dict()["state"].values():
    for value in moments.values():
        weights.update(value.numpy().tobytes())
losses = [[entry["step"], entry["loss"]] for entry in trainer.state.log_history if "loss" in entry]
print("RESULT " + json.dumps({
    "weights": weights.hexdigest(), "losses": losses, "step": trainer.state.global_step,
    "rate": trainer.lr_scheduler.state_dict()["_last_lr"], "random": [torch.rand(1).item(), random.random()],
    "flos": trainer.state.total_flos,
}), flush=True)
"""


def run(surroundings: Any, attempt: int, *arguments: Any) -> dict[str, Any] | None:
    """One attempt; None when it was killed."""
    process = surroundings.python(
        "-c",
        SCRIPT,
        str(surroundings.root / "output"),
        *map(str, arguments),
        attempt=attempt,
        HF_HUB_OFFLINE="1",
        TRANSFORMERS_VERBOSITY="error",
    )
    output = process.communicate(timeout=110)[0].decode()
    if process.returncode == 7:
        return None
    assert process.returncode == 0, output
    (line,) = [line for line in output.splitlines() if line.startswith("RESULT ")]
    result: dict[str, Any] = json.loads(line.removeprefix("RESULT "))
    return result


@pytest.mark.parametrize(("stops", "evaluate"), [((3, 7), "steps"), ((5, 6), "epoch")], ids=["middle", "epoch's end"])
def test_a_killed_trainer_ends_as_an_undisturbed_one(surroundings: Any, stops: tuple[int, ...], evaluate: str) -> None:
    surroundings.sidecar()
    for attempt, stop in enumerate(stops, start=1):
        assert run(surroundings, attempt, stop, 2, evaluate) is None
    resumed = run(surroundings, 10, 0, 2, evaluate)
    newest = surroundings.catalog.generations()[-1].generation
    assert newest.step == 10
    assert verify_generation(surroundings.catalog, newest) == []

    surroundings.storage = surroundings.root / "another-store"
    undisturbed = run(surroundings, 20, 0, 2, evaluate) if _forget(surroundings) else None
    assert resumed == undisturbed


def _forget(surroundings: Any) -> bool:
    """A sidecar with nothing behind it."""
    surroundings.end()
    surroundings.processes.clear()
    surroundings.shm = surroundings.root / "another-shm"
    surroundings.shm.mkdir()
    surroundings.sidecar()
    return True


def test_the_trainer_must_be_asked_where_to_begin(surroundings: Any) -> None:
    from transformers import TrainerControl, TrainerState

    from sternpost_checkpoint import CheckpointError
    from sternpost_checkpoint.client.integrations.huggingface import SternpostCallback

    with pytest.raises(CheckpointError, match=r"callback\.resume\(trainer\)"):
        SternpostCallback(every_steps=1).on_train_begin(None, TrainerState(), TrainerControl())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least 1"):
        SternpostCallback(every_steps=0)
