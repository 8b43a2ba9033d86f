# SPDX-License-Identifier: Apache-2.0
"""Two processes train as one would with all their batches."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from hiface.errors import OptionError
from hiface.training.loop import LoopConfig, read_checkpoint, train
from hiface.training.team import Team, joined

LOOP = LoopConfig(steps=6, warmup=2, checkpoint_every=3, log_every=2, clip=1e9)


@dataclasses.dataclass(frozen=True)
class Batch:
    x: Tensor
    y: Tensor


class Line:
    """Fits a line; one network, batches by number, or several of them at once."""

    def __init__(self, at_once: int = 1, norm: bool = False) -> None:
        torch.manual_seed(0)
        middle = nn.BatchNorm1d(4) if norm else nn.Identity()
        self.network: nn.Module = nn.Sequential(nn.Linear(3, 4), middle, nn.Tanh(), nn.Linear(4, 1))
        self.at_once, self.killed_at = at_once, -1

    def batch(self, step: int) -> Batch:
        if step == self.killed_at:
            raise SystemExit(3)
        parts = []
        for number in range(step * self.at_once, (step + 1) * self.at_once):
            gen = torch.Generator().manual_seed(number)
            parts.append(torch.randn(5, 3, generator=gen))
        x = torch.cat(parts)
        return Batch(x, x.sum(1, keepdim=True))

    def loss(self, network, batch):
        return (network(batch.x) - batch.y).square().mean(), {}

    def validate(self, network) -> dict[str, float]:
        return {"weight": float(network[0].weight.sum())}


def work(out: str, resume: int, norm: int, killed_at_step: int) -> None:
    with joined("cpu") as (team, device):
        task = Line(norm=bool(norm))
        task.killed_at = team.batch_number(killed_at_step) if killed_at_step > 0 else -1
        train(task, LOOP, Path(out), device, bool(resume), team)
    tasks = Path("/proc/self/task")  # a thread that outlives the interpreter can abort the process
    names = [(t / "comm").read_text().strip() for t in tasks.iterdir()] if tasks.exists() else []
    assert not [name for name in names if "gloo" in name], names


def start_two(out: Path, resume: bool = False, norm: bool = False, killed_at_step: int = 0) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {
        **os.environ,
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }
    words = f"{str(out)!r}, {int(resume)}, {int(norm)}, {killed_at_step}"
    code = f"import test_training_team as t; t.work({words})"
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            cwd=Path(__file__).parent,
        )
        for rank in range(2)
    ]
    wanted = [3, 3] if killed_at_step else [0, 0]
    assert [w.wait(timeout=120) for w in workers] == wanted


def test_two_processes_are_one_with_twice_the_batch(tmp_path: Path) -> None:
    start_two(tmp_path / "two")
    train(Line(at_once=2), LOOP, tmp_path / "one")
    two, one = (read_checkpoint(tmp_path / name / "checkpoint.pt") for name in ("two", "one"))
    assert two["step"] == one["step"] == 6
    for key in ("network", "average"):
        for name, value in one[key].items():
            assert torch.allclose(value, two[key][name], atol=1e-5), name
    log = (tmp_path / "two" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in log] == [2, 3, 4, 6, 6], "only the first process writes"
    start_two(tmp_path / "two", resume=True)  # a finished run has nothing left to do


def test_two_processes_killed_and_resumed_end_as_if_unbroken(tmp_path: Path) -> None:
    """Statistics of batch norms included, which each process has of its own."""
    start_two(tmp_path / "whole", norm=True)
    start_two(tmp_path / "broken", norm=True, killed_at_step=4)
    start_two(tmp_path / "broken", resume=True, norm=True)
    whole, broken = (read_checkpoint(tmp_path / name / "checkpoint.pt") for name in ("whole", "broken"))
    assert whole["step"] == broken["step"] == 6
    for key in ("network", "average"):
        for name, value in whole[key].items():
            assert torch.allclose(value.double(), broken[key][name].double(), atol=1e-6), name


def test_alone_nothing_is_exchanged() -> None:
    team, network = Team(), nn.Linear(2, 2)
    team.average(network.parameters())
    team.average_gradients(network)
    team.wait()
    assert team.leads and team.batch_number(7) == 7 and network.weight.grad is None
    assert [Team(1, 3).batch_number(step) for step in range(3)] == [1, 4, 7]
    with joined("cpu") as (alone, device):
        assert alone == team and device == "cpu"


def test_processes_without_a_gpu_each_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "99")
    with pytest.raises(OptionError, match="its own GPU"), joined("cuda:1"):
        pass
    with pytest.raises(OptionError, match="nproc-per-node"), joined("cuda"):
        pass
