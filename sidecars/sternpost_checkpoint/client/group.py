"""The other ranks: small JSON messages over torch.distributed. No pickle, so no all_gather_object."""

from __future__ import annotations

import json
import os
from typing import Any, cast

import torch
import torch.distributed as dist

from sternpost_checkpoint.errors import CheckpointError

MAX_MESSAGE_BYTES = 16 * 2**20


class Group:
    """All ranks of the job; alone when torch.distributed is not initialised."""

    def __init__(self) -> None:
        self._group: dist.ProcessGroup | None = None
        if not (dist.is_available() and dist.is_initialized()):
            world_size = os.environ.get("WORLD_SIZE", "1")
            if world_size not in ("", "1"):
                raise CheckpointError(
                    f"WORLD_SIZE is {world_size}, but torch.distributed is not initialised: call"
                    " torch.distributed.init_process_group before the Checkpointer is made"
                )
            self.rank, self.world_size = 0, 1
            return
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()
        # A group of its own beside NCCL: these messages are a few bytes on the CPU and must not wait for a stream.
        if self.world_size > 1 and dist.get_backend() != "gloo":
            self._group = cast("dist.ProcessGroup", dist.new_group(backend="gloo"))

    def exchange(self, message: Any) -> list[Any]:
        """Give every rank's message to every rank, in the order of the ranks. Blocks until all have called it."""
        if self.world_size == 1:
            return [message]
        data = json.dumps(message).encode()
        lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.world_size)]
        dist.all_gather(lengths, torch.tensor([len(data)], dtype=torch.int64), group=self._group)
        longest = max(int(length) for length in lengths)
        if longest > MAX_MESSAGE_BYTES:
            raise CheckpointError(f"a rank wants to send {longest} bytes, over the limit of {MAX_MESSAGE_BYTES}")
        mine = torch.zeros(longest, dtype=torch.uint8)
        mine[: len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        received = [torch.zeros(longest, dtype=torch.uint8) for _ in range(self.world_size)]
        dist.all_gather(received, mine, group=self._group)
        return [json.loads(received[rank][: int(lengths[rank])].numpy().tobytes()) for rank in range(self.world_size)]

    def any(self, mine: bool) -> bool:  # a vote
        """Whether any rank says yes. Blocks until all have called it."""
        if self.world_size == 1:
            return mine
        vote = torch.tensor([int(mine)], dtype=torch.int64)
        dist.all_reduce(vote, op=dist.ReduceOp.MAX, group=self._group)
        return bool(vote.item())
