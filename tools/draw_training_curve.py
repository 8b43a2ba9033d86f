# SPDX-License-Identifier: Apache-2.0
"""Draws the log of a training run: `python tools/draw_training_curve.py RUN/log.jsonl PICTURE.png`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

SMOOTHED = 10  # lines of the log


def running_mean(values: list[float]) -> list[float]:
    """Mean of each value and those just before it."""
    parts = [values[max(0, i + 1 - SMOOTHED) : i + 1] for i in range(len(values))]
    return [sum(part) / len(part) for part in parts]


def draw(axes: Axes, steps: list[int], series: dict[str, list[float]], title: str, mark: str) -> None:
    """One plot, a line per series, steps in thousands."""
    for name, values in series.items():
        axes.plot([step / 1000 for step in steps], values, mark, label=name)
    axes.set(title=title, xlabel="thousand steps")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def main() -> None:
    """Reads the log, writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("log", type=Path)
    parser.add_argument("picture", type=Path)
    options = parser.parse_args()
    lines = [json.loads(line) for line in options.log.read_text(encoding="utf-8").splitlines()]
    training = [line for line in lines if "loss" in line]
    scored = [line for line in lines if "validation" in line]
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.4))
    skipped = ("step", "steps_per_s", "loss", "gradient")
    numbers = {k: running_mean([line[k] for line in training]) for k in training[0] if k not in skipped}
    draw(axes[0], [line["step"] for line in training], numbers, "training", "-")
    scores = {k: [line["validation"][k] for line in scored] for k in scored[0]["validation"]}
    draw(axes[1], [line["step"] for line in scored], scores, "held persons", "o-")
    figure.tight_layout()
    figure.savefig(options.picture, dpi=80)


if __name__ == "__main__":
    main()
