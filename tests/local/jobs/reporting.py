"""A tiny DDP training that reports everything that a script can report, and evaluates now and then."""

from __future__ import annotations

import argparse
import os
import signal
import time

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from sternpost_checkpoint import Checkpointer
from sternpost_eagle_eye import StepReporter

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=140)
parser.add_argument("--every", type=int, default=10)
parser.add_argument("--exit-at", type=int, default=0, help="step at which rank 1 exits with code 42 in attempt 1")
parser.add_argument("--hang-at", type=int, default=0, help="step at which rank 0 stops for ever in attempt 2")
options = parser.parse_args()
attempt = int(os.environ.get("STERNPOST_ATTEMPT_NUMBER", "1"))

torch.set_num_threads(1)
dist.init_process_group("gloo")
torch.manual_seed(0)
ddp = DistributedDataParallel(nn.Sequential(nn.Linear(32, 256), nn.Tanh(), nn.Linear(256, 1)))
optimizer = torch.optim.AdamW(ddp.parameters(), lr=1e-2)
torch.manual_seed(1 + dist.get_rank())
reporter = StepReporter(model=ddp)
checkpointer = Checkpointer(model=ddp, optimizer=optimizer)
for step in range(checkpointer.restore() + 1, options.steps + 1):
    with reporter.step(step):
        if (attempt, step, dist.get_rank()) == (1, options.exit_at, 1):
            os._exit(42)
        if (attempt, step, dist.get_rank()) == (2, options.hang_at, 0):
            os.kill(os.getpid(), signal.SIGSTOP)
        time.sleep(0.1)  # a step takes its time without taking the processor's
        x = torch.randn(8, 32)
        loss = (ddp(x).squeeze(1) - x.sum(1)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(ddp.parameters(), 10)
        optimizer.step()
        reporter.report(loss=loss, grad_norm=norm, samples=8)
    if step % options.every == 0 or step == options.steps:
        checkpointer.save(step, wait=step == options.steps)
        with reporter.phase("eval"):
            time.sleep(0.2)
checkpointer.close()
dist.destroy_process_group()
