# SPDX-License-Identifier: Apache-2.0
"""The one training loop: seeded, averaged weights, checkpoints that a kill cannot break, exact resume.

A task makes batch number `step` from nothing but its data and that number, so a run that was killed and
resumed sees what an unbroken run would have seen, and ends with the same weights.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from hiface.errors import AssetError, FitError, OutputError
from hiface.training.team import Team

LOGGER = logging.getLogger(__name__)
Network = Callable[..., tuple[Tensor, ...]]


class Task(Protocol):
    """What is trained.

    Attributes:
        network: The network, on CPU.
    """

    network: nn.Module

    def batch(self, step: int) -> Any:
        """Batch number `step`: a dataclass of CPU tensors, always the same for the same data."""
        ...

    def loss(self, network: Network, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss to minimise, and further numbers to log."""
        ...

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Scores of a network in evaluation mode."""
        ...


@runtime_checkable
class DrawsItself(Protocol):
    """A task whose progress can be looked at."""

    def contact_sheet(self, network: nn.Module) -> Image.Image:
        """Held pictures and what a network makes of them."""
        ...


@dataclass(frozen=True)
class LoopConfig:
    """How to train.

    Attributes:
        steps: Number of optimiser steps.
        learning_rate: Highest learning rate of AdamW.
        weight_decay: Of matrices and kernels; vectors (biases, norms) have none.
        warmup: Steps of linear rise.
        flat: Share of the steps at the highest rate before the half cosine down to `floor`.
        floor: Last learning rate over the highest.
        ema: Decay of the averaged weights.
        clip: Largest norm of the gradient.
        checkpoint_every: Steps between checkpoints, each with a validation.
        log_every: Steps between lines of the log.
        seed: Of dropout; weights and batches have the task's.
        mixed_on: Kinds of device on which the network runs in bfloat16; losses and weights stay float32.
    """

    steps: int = 10_000
    learning_rate: float = 1.2e-3
    weight_decay: float = 0.02
    warmup: int = 200
    flat: float = 0.0
    floor: float = 0.02
    ema: float = 0.999
    clip: float = 5.0
    checkpoint_every: int = 500
    log_every: int = 50
    seed: int = 0
    mixed_on: tuple[str, ...] = ("cuda",)


def learning_rate(step: int, config: LoopConfig) -> float:
    """Learning rate of a step: linear rise, flat, half cosine."""
    rise = min(1.0, (step + 1) / max(1, config.warmup))
    start = config.flat * config.steps
    t = min(1.0, max(0.0, (step - start) / max(1.0, config.steps - start)))
    return (
        config.learning_rate * rise * (config.floor + (1 - config.floor) * 0.5 * (1 + math.cos(math.pi * t)))
    )


def train(
    task: Task,
    config: LoopConfig,
    out: Path,
    device: str = "cpu",
    resume: bool = False,
    team: Team | None = None,
) -> nn.Module:
    """Trains a task's network.

    Args:
        task: Network, batches and loss.
        config: How to train.
        out: Folder for `checkpoint.pt` and `log.jsonl`.
        device: Torch device.
        resume: Go on from `out`'s checkpoint if there is one.
        team: The processes that train together, of which the first one writes; this one alone if None.

    Returns:
        The averaged network, on CPU, in evaluation mode.

    Raises:
        OutputError: The folder cannot be written, or holds a run and `resume` is not given.
        FitError: The loss is not finite.
    """
    team = team or Team()
    state = TrainState(task.network, config, device, team)
    checkpoint, log = out / "checkpoint.pt", out / "log.jsonl"
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{out} cannot be made ({error}); name another folder") from error
    check_run_folder(out, resume)
    team.wait()
    if checkpoint.exists():
        state.load(checkpoint)
        if team.leads:
            _trim_log(log, state.step)
    team.average([*state.network.state_dict().values(), *state.average.state_dict().values()])
    clock, seen = time.perf_counter(), state.step
    progress, curves = (_progress, _curves) if team.leads else (_no_progress, _no_curves)
    with progress(config.steps, state.step) as advance, curves(out, state.step) as draw:
        for batch in batches_ahead(task, state.step, config.steps, team):
            numbers = state.update(task, _to_device(batch, device))
            advance()
            if state.step % config.log_every == 0 and team.leads:
                now = time.perf_counter()
                rate = (state.step - seen) / (now - clock)
                clock, seen = now, state.step
                line = {"steps_per_s": round(rate, 3), **_floats(numbers)}
                _write_log(log, {"step": state.step, **line})
                draw(state.step, line, None)
            if state.step % config.checkpoint_every and state.step != config.steps:
                continue
            team.average([*state.network.buffers(), *state.average.buffers()])
            if team.leads:
                state.save(checkpoint)
                scores = task.validate(state.average)
                _write_log(log, {"step": state.step, "validation": scores})
                sheet = task.contact_sheet(state.average) if isinstance(task, DrawsItself) else None
                if sheet is not None:
                    _replace_picture(sheet, out / "sheet.png")
                draw(state.step, {f"validation/{k}": v for k, v in scores.items()}, sheet)
            team.wait()
    return state.average.to("cpu")


def check_run_folder(out: Path, resume: bool) -> None:
    """Whether a run may begin in a folder, before anything expensive is done.

    Raises:
        OutputError: It holds a run and `resume` is not given.
    """
    if (out / "checkpoint.pt").exists() and not resume:
        raise OutputError(
            f"{out} already holds a training run; continue it with --resume or name another folder"
        )


def mixed_precision(network: nn.Module, device: str) -> Network:
    """A network that runs in bfloat16 where that pays and answers in float32."""

    def run(*inputs: Tensor) -> tuple[Tensor, ...]:
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            out: tuple[Tensor, ...] = network(*inputs)
        return tuple(part.float() for part in out)

    return run


def batches_ahead(task: Task, first: int, end: int, team: Team | None = None) -> Iterator[Any]:
    """Batches of the steps `first` .. `end - 1`; the next one is made in a second thread meanwhile."""
    number = (team or Team()).batch_number
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(1, "batches", lambda: torch.set_num_threads(threads))
    try:
        ahead = None
        for step in range(first, end):
            batch = ahead.result() if ahead is not None else task.batch(number(step))
            ahead = pool.submit(task.batch, number(step + 1)) if step + 1 < end else None
            yield batch
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class TrainState:
    """Network, averaged network, optimiser and step count.

    Args:
        network: The network to train; moved to the device.
        config: How to train.
        device: Torch device.
        team: The processes that train together; this one alone if None.
    """

    def __init__(self, network: nn.Module, config: LoopConfig, device: str, team: Team | None = None) -> None:
        self.config, self.step, self.team = config, 0, team or Team()
        mixed = torch.device(device).type in config.mixed_on
        network.to(device)
        self.network = network.to(memory_format=torch.channels_last).train()  # pyright: ignore[reportCallIssue]
        self.average = copy.deepcopy(self.network).eval().requires_grad_(False)
        self.forward: Network = mixed_precision(self.network, device) if mixed else self.network
        matrices = [p for p in self.network.parameters() if p.ndim > 1]
        vectors = [p for p in self.network.parameters() if p.ndim <= 1]
        groups = [
            {"params": matrices, "weight_decay": config.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.98))

    def update(self, task: Task, batch: Any) -> dict[str, Tensor]:
        """One optimiser step; returns the numbers to log.

        Raises:
            FitError: The loss or its gradient is not finite; the weights are as they were.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, self.config)
        torch.manual_seed(1_000_003 * self.config.seed + self.team.batch_number(self.step))  # for dropout
        loss, numbers = task.loss(self.forward, batch)
        self._check_finite("loss", loss)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.team.average_gradients(self.network)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip)
        self._check_finite("gradient", norm)
        self.optimizer.step()
        self.step += 1
        decay = min(self.config.ema, self.step / (10.0 + self.step))
        with torch.no_grad():
            for mean, value in zip(
                self.average.state_dict().values(), self.network.state_dict().values(), strict=True
            ):
                if mean.is_floating_point():
                    mean.lerp_(value, 1.0 - decay)
                else:
                    mean.copy_(value)
        return {"loss": loss.detach(), **numbers, "gradient": norm.detach()}

    def _check_finite(self, what: str, value: Tensor) -> None:
        if not bool(torch.isfinite(value)):
            number = self.team.batch_number(self.step)
            raise FitError(
                f"the {what} is not finite at step {self.step} (batch {number}); lower the learning rate or "
                "check the data; the last checkpoint is as it was"
            )

    def save(self, path: Path) -> None:
        """Writes everything that a resumed run needs, under a temporary name first."""
        content = {
            "step": self.step,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        partial = path.with_suffix(".part")
        torch.save(content, partial)
        os.replace(partial, path)

    def load(self, path: Path) -> None:
        """Reads what `save` wrote.

        Raises:
            AssetError: The checkpoint is damaged, or of another network.
        """
        content = read_checkpoint(path)
        try:
            self.network.load_state_dict(content["network"])
            self.average.load_state_dict(content["average"])
            self.optimizer.load_state_dict(content["optimizer"])
            self.step = int(content["step"])
        except (RuntimeError, KeyError, ValueError) as error:
            raise AssetError(
                f"{path} is not of this network ({str(error).splitlines()[0]}); resume with the recipe and "
                "preset that it was started with, or name another folder"
            ) from error


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Content of a checkpoint, on CPU; nothing in the file is executed.

    Raises:
        AssetError: The file is missing or damaged.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged archive raises nearly anything
        raise AssetError(f"{path} cannot be read as a checkpoint ({error}); start anew") from error


def _to_device(batch: Any, device: str) -> Any:
    if device == "cpu":
        return batch
    fields = {f.name: getattr(batch, f.name) for f in dataclasses.fields(batch)}
    return dataclasses.replace(
        batch, **{k: v.to(device, non_blocking=True) for k, v in fields.items() if isinstance(v, Tensor)}
    )


def _floats(numbers: dict[str, Tensor]) -> dict[str, float]:
    return {name: round(float(value), 5) for name, value in numbers.items()}


def _write_log(path: Path, line: dict[str, Any]) -> None:
    LOGGER.info("%s", line)
    with path.open("a", encoding="utf-8") as handle:
        handle.write(json.dumps(line) + "\n")


def _trim_log(path: Path, step: int) -> None:
    """Drops the lines that the resumed run will write again."""
    if path.exists():
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
        kept = [line for line in lines if json.loads(line)["step"] <= step]
        path.write_text("".join(line + "\n" for line in kept), encoding="utf-8")


def _replace_picture(picture: Image.Image, path: Path) -> None:
    partial = path.with_suffix(".part")
    picture.save(partial, "PNG")
    os.replace(partial, path)


@contextlib.contextmanager
def _curves(out: Path, step: int) -> Iterator[Callable[[int, dict[str, float], Image.Image | None], None]]:
    """TensorBoard curves and sheets in `out` if the package is there; what a resumed run repeats goes."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        yield lambda step, numbers, sheet: None
        return
    writer = SummaryWriter(str(out / "tensorboard"), purge_step=step + 1)

    def draw(step: int, numbers: dict[str, float], sheet: Image.Image | None) -> None:
        for name, value in numbers.items():
            writer.add_scalar(name, value, step)
        if sheet is not None:
            writer.add_image("sheet", np.asarray(sheet), step, dataformats="HWC")
        writer.flush()

    try:
        yield draw
    finally:
        writer.close()


@contextlib.contextmanager
def _no_curves(out: Path, step: int) -> Iterator[Callable[..., None]]:
    yield lambda step, numbers, sheet: None


@contextlib.contextmanager
def _no_progress(total: int, done: int) -> Iterator[Any]:
    yield lambda: None


@contextlib.contextmanager
def _progress(total: int, done: int) -> Iterator[Any]:
    """A progress bar on a terminal, nothing elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    console = Console(stderr=True, emoji=False)
    if not console.is_terminal:
        yield lambda: None
        return
    with Progress(BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console) as bar:
        item = bar.add_task("training", total=total, completed=done)
        yield lambda: bar.advance(item)
