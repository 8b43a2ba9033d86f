# SPDX-License-Identifier: Apache-2.0
"""What a data set is made of: its kind, and which samples its numbers stand for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from hiface.errors import OptionError
from hiface.morphable import MorphableModel, load_model
from hiface.synthetic.clips import generate_clip
from hiface.synthetic.effects import parse_effects
from hiface.synthetic.generator import (
    PICTURES_PER_PERSON,
    Style,
    SyntheticSample,
    generate_picture,
    parse_labels,
)
from hiface.synthetic.pairs import generate_views
from hiface.synthetic.rgbd import generate_rgbd
from hiface.synthetic.shots import Sitter, sitter_of

KINDS = {"images": "", "pairs": "view", "clips": "frame", "rgbd": ""}
DEFAULT_LENGTH = {"images": 1, "pairs": 2, "clips": 16, "rgbd": 1}
SEED_STRIDE = 3_000_000_000
HOLDOUT_SEED = 2_999_990  # data sets from here on are measured on; training leaves their people out
MIN_SIZE_PX, MAX_SIZE_PX = 32, 2048


@dataclass(frozen=True)
class DataSpec:
    """A data set without its length.

    Attributes:
        kind: One of `KINDS`.
        seed: Number of the data set; other numbers show other people.
        length: Pictures of one sample: views of a pair, frames of a clip; 1 for other kinds.
        style: Size, effects, labels.
    """

    kind: str = "images"
    seed: int = 0
    length: int = 1
    style: Style = field(default_factory=Style)

    def prefix(self, number: int) -> str:
        """What the file names of one picture of a sample begin with: "", "view0." or "frame00."."""
        stem = KINDS[self.kind]
        digits = len(str(self.length - 1))
        return f"{stem}{number:0{digits}d}." if stem else ""


@cache
def open_model() -> MorphableModel:
    """The open model, always the same object: what is worked out once per model takes more than a second."""
    return load_model("open")


def held_out(person: np.ndarray) -> np.ndarray:
    """Whether people belong to the data sets kept for measuring: numbers of persons [N] to [N] bool."""
    return person >= HOLDOUT_SEED * (SEED_STRIDE // PICTURES_PER_PERSON)


def make_spec(
    kind: str = "images",
    size: int = 192,
    seed: int = 0,
    effects: str = "all",
    labels: Iterable[str] = (),
    length: int | None = None,
) -> DataSpec:
    """Checks options and makes a `DataSpec` of them.

    Args:
        kind: "images", "pairs", "clips" or "rgbd".
        size: Side of a picture in pixels.
        seed: Number of the data set.
        effects: See `parse_effects`.
        labels: Groups of labels beside the basic ones.
        length: Views of a pair or frames of a clip; 2 or 16 if None.

    Returns:
        DataSpec.

    Raises:
        OptionError: An option is unknown or out of range.
    """
    if kind not in KINDS:
        raise OptionError(f"unknown kind {kind!r}; choose one of: {', '.join(KINDS)}")
    if not MIN_SIZE_PX <= size <= MAX_SIZE_PX:
        raise OptionError(f"size must be {MIN_SIZE_PX} to {MAX_SIZE_PX} pixels, got {size}")
    if not 0 <= seed < 3_000_000:
        raise OptionError(f"seed must be 0 to 2999999, got {seed}")
    pictures = DEFAULT_LENGTH[kind] if length is None else length
    if KINDS[kind]:
        if not 2 <= pictures <= 1000:
            raise OptionError(f"{kind} need a length of 2 to 1000 pictures, got {pictures}")
    elif pictures != 1:
        raise OptionError(f"{kind} have no length; leave it out, or choose the kind pairs or clips")
    return DataSpec(kind, seed, pictures, Style(size, parse_effects(effects), parse_labels(labels)))


def make_samples(
    model: MorphableModel, spec: DataSpec, numbers: Iterable[int]
) -> Iterator[tuple[int, list[SyntheticSample]]]:
    """Makes samples by number.

    Args:
        model: Face model.
        spec: What to make.
        numbers: Numbers in the data set, 0 and up; a number gives the same sample whatever else is made.

    Yields:
        Number and the `spec.length` pictures of the sample.
    """
    base, style = spec.seed * SEED_STRIDE, spec.style
    known: Sitter | None = None
    for number in numbers:
        seed = base + number
        if spec.kind == "pairs":
            yield number, generate_views(model, base // PICTURES_PER_PERSON + number, style, spec.length)
        elif spec.kind == "clips":
            yield number, generate_clip(model, base // PICTURES_PER_PERSON + number, style, spec.length)
        elif spec.kind == "rgbd":
            yield number, [generate_rgbd(model, seed, style)]
        else:
            person = seed // PICTURES_PER_PERSON
            if known is None or known.number != person:
                known = sitter_of(model, person, style.effects)
            yield number, [generate_picture(model, seed, style, known)]
