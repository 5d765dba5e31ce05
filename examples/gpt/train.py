"""Train a small byte-level GPT with DDP on the source text of Python's own standard library.

Sternpost needs the lines marked with (1) to (4); everything else is an ordinary training script. It is deterministic: on the
same machine, a run that was interrupted ends with the same weights, bit for bit, as one that was not.
"""

from __future__ import annotations

import argparse
import os
import sysconfig
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from sternpost_checkpoint import Checkpointer  # (1)
from sternpost_eagle_eye import StepReporter

VOCABULARY = 256


class Block(nn.Module):
    """Pre-norm causal self-attention and a feed-forward layer."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.attention_norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 4 * width),
            nn.GELU(),
            nn.Linear(4 * width, width),
            nn.Dropout(dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: (batch, sequence, width) in and out."""
        batch, sequence, width = x.shape
        qkv = self.query_key_value(self.attention_norm(x))
        query, key, value = qkv.view(batch, sequence, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + functional.dropout(
            self.projection(attended.transpose(1, 2).reshape(batch, sequence, width)), self.dropout, self.training
        )
        return x + self.feed_forward(x)


class GPT(nn.Module):
    """A decoder-only transformer over bytes."""

    def __init__(self, *, layers: int, width: int, heads: int, sequence: int, dropout: float) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, width)
        self.positions = nn.Embedding(sequence, width)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, VOCABULARY, bias=False)

    def forward(self, text: Tensor, target: Tensor) -> Tensor:
        """`text`, `target`: (batch, sequence) int64. Returns the mean cross entropy, in nats per byte."""
        x = self.tokens(text) + self.positions.weight[: text.shape[1]]
        for block in self.blocks:
            x = block(x)
        return functional.cross_entropy(self.head(self.norm(x)).flatten(0, 1), target.flatten())


def standard_library_text(limit: int = 4 << 20) -> Tensor:
    """The first `limit` bytes of the standard library's modules, in the order of their names."""
    text = bytearray()
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        text += path.read_bytes()
        if len(text) >= limit:
            break
    return torch.frombuffer(text[:limit], dtype=torch.uint8)


def random_batch(text: Tensor, batch: int, sequence: int) -> tuple[Tensor, Tensor]:
    """Draw from this rank's random state, which is part of every checkpoint."""
    starts = torch.randint(len(text) - sequence - 1, (batch,))
    rows = torch.stack([text[start : start + sequence + 1] for start in starts.tolist()]).long()
    return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()


def main() -> None:
    """Train until `--steps` are done, from wherever the newest checkpoint stands."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--checkpoint-every", type=int, default=10)
    parser.add_argument("--batch", type=int, default=4, help="sequences a rank")
    parser.add_argument("--sequence", type=int, default=64, help="bytes a sequence")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    torch.set_num_threads(1)
    torch.set_deterministic_debug_mode("error")
    dist.init_process_group("gloo")
    torch.manual_seed(options.seed)
    model = GPT(layers=options.layers, width=options.width, heads=4, sequence=options.sequence, dropout=0.1)
    # DDP rearranges its buckets after the first step of a process, which changes the order of sums once, and a resumed run
    # would differ in the last bits; with find_unused_parameters it does not.
    ddp = DistributedDataParallel(model, find_unused_parameters=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, weight_decay=0.1)
    torch.manual_seed(options.seed * 1009 + dist.get_rank() + 1)
    text = standard_library_text()

    reporter = StepReporter(model=ddp)  # (2)
    checkpointer = Checkpointer(model=ddp, optimizer=optimizer)
    first = checkpointer.restore() + 1  # (3)
    for step in range(first, options.steps + 1):
        with reporter.step(step):  # (4)
            loss = ddp(*random_batch(text, options.batch, options.sequence))
            optimizer.zero_grad()
            loss.backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            reporter.report(loss=loss, grad_norm=norm, samples=options.batch)
        if step % options.checkpoint_every == 0 or step == options.steps or checkpointer.due(step):  # (5)
            with reporter.phase("checkpoint"):
                checkpointer.save(step, wait=step == options.steps)
        if dist.get_rank() == 0 and step % 50 == 0:
            print(f"step {step} loss {loss.item():.4f}", flush=True)
    checkpointer.close()
    dist.destroy_process_group()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
