"""A tiny deterministic DDP training whose steps take a set time, with or without using the processor."""

from __future__ import annotations

import argparse
import time

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from sternpost_checkpoint import Checkpointer
from sternpost_eagle_eye import StepReporter

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=60)
parser.add_argument("--every", type=int, default=5)
parser.add_argument("--step-seconds", type=float, default=0.05)
parser.add_argument("--burn-seconds", type=float, default=0.0, help="of a processor, in each step")
options = parser.parse_args()

torch.set_num_threads(1)
dist.init_process_group("gloo")
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(32, 64), nn.Dropout(0.2), nn.Tanh(), nn.Linear(64, 1))
ddp = DistributedDataParallel(model, find_unused_parameters=True)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
torch.manual_seed(1 + dist.get_rank())
reporter = StepReporter(model=ddp)
checkpointer = Checkpointer(model=ddp, optimizer=optimizer)
for step in range(checkpointer.restore() + 1, options.steps + 1):
    with reporter.step(step):
        time.sleep(options.step_seconds)
        burnt = time.process_time() + options.burn_seconds
        while time.process_time() < burnt:
            pass
        x = torch.randn(8, 32)
        loss = (ddp(x).squeeze(1) - x.sum(1)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        reporter.report(loss=loss, samples=8)
    if step % options.every == 0 or step == options.steps or checkpointer.due(step):
        checkpointer.save(step, wait=step == options.steps)
checkpointer.close()
dist.destroy_process_group()
