# SPDX-License-Identifier: Apache-2.0
"""Several processes that train one network: each makes its own batches, gradients are averaged.

Started by `torchrun --nproc-per-node N --no-python hiface train ...`, on CPUs or on one GPU each. A step of N
processes uses the batches that a single one would use in N steps. Statistics of batch norms are each
process's own while it trains, and averaged at checkpoints.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hiface.errors import OptionError


@dataclass(frozen=True)
class Team:
    """This process among those that train together; all must call its exchanges in the same order.

    Attributes:
        rank: Number of this process.
        count: Number of processes.
    """

    rank: int = 0
    count: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process validates and writes."""
        return self.rank == 0

    def batch_number(self, step: int) -> int:
        """Number of this process's batch in a step."""
        return step * self.count + self.rank

    def average(self, values: Iterable[Tensor]) -> None:
        """Replaces floating tensors by their means over the processes, in one exchange."""
        tensors = [v for v in values if v.is_floating_point()]
        if self.count == 1 or not tensors:
            return
        flat = torch.cat([v.reshape(-1) for v in tensors])
        torch.distributed.all_reduce(flat)
        flat /= self.count
        parts = flat.split([v.numel() for v in tensors])
        with torch.no_grad():
            for tensor, part in zip(tensors, parts, strict=True):
                tensor.copy_(part.view_as(tensor))

    def average_gradients(self, network: nn.Module) -> None:
        """Replaces the gradients by their means over the processes."""
        if self.count == 1:
            return
        learnt = [p for p in network.parameters() if p.requires_grad]
        for p in learnt:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        self.average(p.grad for p in learnt if p.grad is not None)

    def wait(self) -> None:
        """Waits until all processes are here."""
        if self.count > 1:
            torch.distributed.barrier()


@contextlib.contextmanager
def joined(device: str) -> Iterator[tuple[Team, str]]:
    """The processes that `torchrun` started, or this one alone.

    Args:
        device: "cpu", "cuda", or another torch device.

    Yields:
        The team, and this process's own device: the GPU of its local rank for "cuda".

    Raises:
        OptionError: A single GPU is named for several processes, or there are fewer GPUs than processes.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Team(), device
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    cuda = torch.device(device).type == "cuda"
    if cuda and device != "cuda":
        raise OptionError(f"each of {count} processes takes its own GPU; say --device cuda, not {device}")
    if cuda and local >= torch.cuda.device_count():
        raise OptionError(
            f"there are {torch.cuda.device_count()} GPUs and more processes; lower --nproc-per-node"
        )
    # Loaded later (by an optimiser), its default arguments would hold the group, whose threads would then
    # outlive the interpreter and abort the process.
    importlib.import_module("torch.distributed.nn.functional")
    torch.distributed.init_process_group("nccl" if cuda else "gloo")
    try:
        yield Team(torch.distributed.get_rank(), count), f"cuda:{local}" if cuda else device
    finally:
        torch.distributed.destroy_process_group()
