# SPDX-License-Identifier: Apache-2.0
"""What a benchmark has to give so that predictions and scores can be kept and resumed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from hiface.data import Photo, read_photo
from hiface.data.images import IMAGE_SUFFIXES
from hiface.errors import EvaluationDataError, NoFaceError, UnreadableImageError
from hiface.evaluation.method import Prediction
from hiface.networks.boxes import iou_matrix


@dataclass(frozen=True)
class Item:
    """One picture of a benchmark.

    Attributes:
        name: Unique; may hold slashes. Files of its prediction are called so.
        image: The picture, or None where only predictions made elsewhere can be scored.
        box: [4] the face that is meant, pixels, or None for the largest.
        problem: What is wrong with its ground truth; nothing is predicted or scored then.
    """

    name: str
    image: Path | None
    box: Tensor | None = None
    problem: str = ""

    def check(self) -> None:
        """Raises EvaluationDataError if something is wrong with its ground truth."""
        if self.problem:
            raise EvaluationDataError(self.problem)


class PlainState:
    """For frozen dataclasses: what was worked out from the fields does not travel to other processes."""

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}  # pyright: ignore


class Benchmark(Protocol):
    """A protocol with its data."""

    @property
    def name(self) -> str:
        """Name in results."""
        ...

    @property
    def version(self) -> int:
        """Goes up when scores of the same predictions would change."""
        ...

    def items(self) -> list[Item]:
        """All pictures in a fixed order; raises EvaluationDataError if the data is laid out otherwise."""
        ...

    def save(self, found: list[Prediction], item: Item, folder: Path) -> None:
        """Writes what was found in the benchmark's own layout.

        Raises TopologyError if predictions lack something, NoFaceError if there has to be one and is none.
        """
        ...

    def saved(self, item: Item, folder: Path) -> list[Path]:
        """Files of a prediction that are there; an empty list if it is not complete."""
        ...

    def truth(self, item: Item) -> list[Path | str]:
        """Files, and words of files, that a score of a picture depends on beside the prediction."""
        ...

    def score(self, item: Item, folder: Path) -> dict[str, Any]:
        """Scores of a saved prediction, ready for JSON."""
        ...

    def summarise(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """What the benchmark reports of all scores."""
        ...

    def table(self, summary: dict[str, Any]) -> list[list[str]]:
        """The summary as rows of a table; the first is the head."""
        ...


def photo_of(item: Item) -> Photo:
    """The picture of an item; raises ImageError or EvaluationDataError where it cannot be used."""
    item.check()
    if item.image is None:
        raise UnreadableImageError(f"{item.name} has no picture here; only saved predictions can be scored")
    return read_photo(item.image)


def settings_of(benchmark: Any) -> dict[str, str]:
    """All fields of a benchmark but where predictions lie: what scores may depend on."""
    found = {f.name: getattr(benchmark, f.name) for f in fields(benchmark) if f.name != "predicted"}
    return {name: str(value.resolve() if isinstance(value, Path) else value) for name, value in found.items()}


def picture_beside(path: Path) -> Path | None:
    """The picture with the name of another file in its folder, whatever its suffix."""
    return file_called(path.with_suffix(""), IMAGE_SUFFIXES)


def file_called(stem: Path, suffixes: Iterable[str]) -> Path | None:
    """The first file of a name (dots and all) with one of some suffixes, in small or capital letters."""
    endings = [end for suffix in suffixes for end in (suffix, suffix.upper())]
    places = (stem.with_name(stem.name + ending) for ending in endings)
    return next((place for place in places if place.is_file()), None)


def the_face(found: list[Prediction], box: Tensor | None = None) -> Prediction:
    """The face that a box [4] means, or the largest; raises NoFaceError if there is none."""
    if not found:
        raise NoFaceError("no face was found")
    boxes = torch.stack([prediction.box.double() for prediction in found])
    if box is None:
        return found[int((boxes[:, 2:] - boxes[:, :2]).clamp_min(0.0).prod(dim=1).argmax())]
    return found[int(iou_matrix(boxes.numpy(), box.double()[None].numpy())[:, 0].argmax())]


def overlap(box: Tensor, other: Tensor | None) -> float:
    """Intersection over union of two boxes [4]; 1 if the other is None."""
    if other is None:
        return 1.0
    return float(iou_matrix(box.double()[None].numpy(), other.double()[None].numpy())[0, 0])
