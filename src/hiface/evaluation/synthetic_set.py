# SPDX-License-Identifier: Apache-2.0
"""A set of portraits of people who do not exist, made by a seed, with everything that is known about them.

    FOLDER/set.json                  version, generator, seed, people wanted, what is known of each portrait
    FOLDER/pictures/00001.png
    FOLDER/truth/00001.safetensors   shapes in metres, displacement in metres

One portrait of each person, with all effects of the generator; people are those of data sets that training
never sees.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from hiface.atomic import atomic_write_bytes, atomic_write_text
from hiface.errors import EvaluationDataError, OptionError
from hiface.evaluation.holdout import head_yaw, skin_luminance, space_length
from hiface.evaluation.json_objects import read_json_object
from hiface.evaluation.landmarks import landmark_groups
from hiface.export.pictures import pil_png
from hiface.morphable import MorphableModel, load_model
from hiface.synthetic.compose import skin_colour_of
from hiface.synthetic.datasets import HOLDOUT_SEED, SEED_STRIDE
from hiface.synthetic.generator import (
    GENERATOR_VERSION,
    PICTURES_PER_PERSON,
    Style,
    SyntheticSample,
    take_picture,
)
from hiface.synthetic.shots import Shot, Sitter, draw_shot, sitter_of

SET_VERSION = 1
DEFAULT_SIZE_PX = 320
_FIRST = (HOLDOUT_SEED + 8) * (SEED_STRIDE // PICTURES_PER_PERSON)
_PER_SEED = 100_000
_LEAST_BOX_PX, _LEAST_VISIBLE, _TRIES = 48.0, 0.4, 50
_OTHER = 33  # stream of random numbers of the expression to animate to


@dataclass(frozen=True)
class About:
    """What reports group portraits by.

    Attributes:
        name: Number of the portrait, five digits.
        sex: "female" or "male".
        years: Age.
        skin_ita_deg: Individual typology angle of the true skin; above 55 very light, below -30 dark
            (Chardon et al. 1991).
        yaw_deg: Of the head against the ray to it, positive to the own left.
        visible: Share of the 68 points that nothing hides, the head itself included.
        side_px: Longer side of the box around the 68 points.
        skin_luminance: Mean linear luminance of the face in the picture, 0..1.
        eyes_px: Distance of the outer eye corners, turned to lie across the view; what errors are divided by.
        box: x0, y0, x1, y1 around the 68 points, pixels.
    """

    name: str
    sex: str
    years: float
    skin_ita_deg: float
    yaw_deg: float
    visible: float
    side_px: float
    skin_luminance: float
    eyes_px: float
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class Truth:
    """Exact answer for one portrait.

    Attributes:
        neutral_vertices: [V, 3] metres, open model, at rest.
        vertices: [V, 3] metres with expression, object space.
        landmarks68_px: [68, 2].
        displacement: [1, S, S] metres under the portrait's expression.
        other_expression: [E] another expression of the person, 0..1.
        other_displacement: [1, S, S] metres under it.
    """

    neutral_vertices: Tensor
    vertices: Tensor
    landmarks68_px: Tensor
    displacement: Tensor
    other_expression: Tensor
    other_displacement: Tensor


def write_set(
    folder: Path,
    people: int,
    seed: int = 0,
    size_px: int = DEFAULT_SIZE_PX,
    advance: Callable[[str], None] = lambda name: None,
) -> None:
    """Makes the portraits that are not there yet.

    Args:
        folder: Where to.
        people: Number of portraits.
        seed: Other seeds show other people.
        size_px: Side of the pictures.
        advance: Called with the name of a portrait when it is there.

    Raises:
        OptionError: Numbers out of range.
        EvaluationDataError: The folder holds a set of another seed, size or generator, or a larger one; says
            what differs.
        OutputError: The folder cannot be written.
    """
    if not 1 <= people <= _PER_SEED or seed < 0 or not 96 <= size_px <= 1024:
        raise OptionError(f"a set has 1 to {_PER_SEED} people, a seed of 0 or more and 96 to 1024 pixels")
    head = {"version": SET_VERSION, "generator": GENERATOR_VERSION, "seed": seed, "size_px": size_px}
    before = _read_head(folder / "set.json")
    if before is not None:
        _check_head(folder, before, head)
    head["people"] = people
    model, items = load_model(), list(before["items"]) if before is not None else []
    if len(items) > people:
        raise EvaluationDataError(
            f"{folder} has {len(items)} people, which would all count; choose another folder for {people}"
        )
    if before is not None and before.get("people") != people:
        atomic_write_text(folder / "set.json", json.dumps({**head, "items": items}) + "\n")
    for index in range(len(items), people):
        items.append(asdict(_write_one(model, folder, seed, index, size_px)))
        atomic_write_text(folder / "set.json", json.dumps({**head, "items": items}) + "\n")
        advance(items[-1]["name"])


def read_about(folder: Path, seed: int | None = None) -> list[About]:
    """All portraits of a set, in order.

    Args:
        folder: The set.
        seed: Whom it must show, or None for anybody.

    Raises:
        EvaluationDataError: There is no set, one of another version or seed, or one whose making was
            interrupted.
    """
    head = _read_head(folder / "set.json")
    if head is None:
        raise EvaluationDataError(f"{folder} holds no set.json; make a set with --people")
    wanted = {"version": SET_VERSION} | ({} if seed is None else {"seed": seed})
    _check_head(folder, head, wanted)
    made, people = len(head["items"]), head.get("people", 0)
    if made < people:
        of_seed = f" --seed {head['seed']}" if head.get("seed") else ""
        raise EvaluationDataError(
            f"{folder} holds {made} of {people} people, its making was interrupted; finish it with: hiface "
            f"eval synthetic --data {shlex.quote(str(folder))} --people {people}{of_seed}"
        )
    return [About(**{**item, "box": tuple(item["box"])}) for item in head["items"]]


def picture_path(folder: Path, name: str) -> Path:
    """The portrait's picture."""
    return folder / "pictures" / f"{name}.png"


def truth_path(folder: Path, name: str) -> Path:
    """The file of what is known of a portrait."""
    return folder / "truth" / f"{name}.safetensors"


def read_truth(folder: Path, name: str) -> Truth:
    """What is known of a portrait; raises EvaluationDataError if the file is missing or damaged."""
    path = truth_path(folder, name)
    try:
        return Truth(**{key: value.float() for key, value in load_file(path).items()})
    except (OSError, TypeError, ValueError, SafetensorError) as error:
        raise EvaluationDataError(f"{path} cannot be read ({error}); make the set anew") from error


def _write_one(model: MorphableModel, folder: Path, seed: int, index: int, size_px: int) -> About:
    number, name = _FIRST + _PER_SEED * seed + index, f"{index + 1:05d}"
    style = Style(size_px, labels=frozenset({"basic", "displacement"}))
    sitter = sitter_of(model, number)
    shot, sample = _taken(model, sitter, 0, style)
    for view in range(1, _TRIES):
        if _usable(sample):
            break
        shot, sample = _taken(model, sitter, view, style)
    other = draw_shot(model, sitter, np.random.default_rng([number, _OTHER]), size_px)
    truth = {
        "neutral_vertices": model.shape(
            sitter.person.identity, torch.zeros_like(shot.picture.params.expression)
        ),
        "vertices": shot.picture.vertices,
        "landmarks68_px": sample.landmarks68_px,
        "displacement": sample.maps["displacement"][None],
        "other_expression": other.picture.params.expression,
        "other_displacement": _displacement(other, sample),
    }
    content = save({key: value.float().contiguous() for key, value in truth.items()})
    atomic_write_bytes(
        picture_path(folder, name), pil_png(Image.fromarray(sample.image_srgb.permute(1, 2, 0).numpy()))
    )
    atomic_write_bytes(truth_path(folder, name), content)
    return _about(model, name, shot, sample)


def _taken(model: MorphableModel, sitter: Sitter, view: int, style: Style) -> tuple[Shot, SyntheticSample]:
    rng = np.random.default_rng([sitter.number, 31, view])
    shot = draw_shot(model, sitter, rng, style.size)
    return shot, take_picture(model, shot, rng, style, sitter.number).sample


def _displacement(shot: Shot, sample: SyntheticSample) -> Tensor:
    found = shot.picture.displacement
    return torch.zeros_like(sample.maps["displacement"])[None] if found is None else found[None]


def _usable(sample: SyntheticSample) -> bool:
    """Whether somebody could be asked to reconstruct it."""
    side = float((sample.box[2:] - sample.box[:2]).max())
    return side >= _LEAST_BOX_PX and float(sample.visible68.float().mean()) >= _LEAST_VISIBLE


def _about(model: MorphableModel, name: str, shot: Shot, sample: SyntheticSample) -> About:
    camera = sample.params.camera
    corners = landmark_groups()["outer_eye_corners"]
    ends = sample.landmarks68_px[corners]
    in_camera = camera.to_cam(model.landmarks("ibug68", shot.picture.vertices)[corners])
    ray = in_camera.mean(0)
    facing = head_yaw(sample.T_cam_head) + torch.atan2(ray[0], ray[2])
    return About(
        name=name,
        sex=shot.sitter.person.traits.sex,
        years=round(shot.sitter.person.traits.years, 1),
        skin_ita_deg=round(typology_angle(skin_colour_of(model, shot.sitter.texture)), 1),
        yaw_deg=round(math.degrees(float(facing)), 1),
        visible=round(float(sample.visible68.float().mean()), 3),
        side_px=round(float((sample.box[2:] - sample.box[:2]).max()), 1),
        skin_luminance=round(_luminance(sample), 4),
        eyes_px=round(float(space_length(ends, in_camera[:, 2], camera.K)), 2),
        box=tuple(round(value, 2) for value in sample.box.tolist()),
    )


def _luminance(sample: SyntheticSample) -> float:
    picture = sample.image_srgb.permute(1, 2, 0).numpy()[None]
    value = float(skin_luminance(picture, sample.segmentation.numpy()[None], sample.box[None])[0])
    return value if math.isfinite(value) else 0.0


def typology_angle(colour_linear: Tensor) -> float:
    """Individual typology angle of a skin colour, atan((L* - 50) / b*) in degrees (CIELAB, D65).

    Args:
        colour_linear: [3] linear sRGB.
    """
    to_xyz = torch.tensor([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    white = torch.tensor([0.9505, 1.0, 1.089])
    t = (to_xyz @ colour_linear.float().clamp_min(0.0)) / white
    f = torch.where(t > (6 / 29) ** 3, t.clamp_min(1e-9) ** (1 / 3), t / (3 * (6 / 29) ** 2) + 4 / 29)
    lightness, b = float(116 * f[1] - 16), float(200 * (f[1] - f[2]))
    return math.degrees(math.atan2(lightness - 50.0, b))


_HEAD_WORDS = {"version": "version", "generator": "generator", "seed": "seed", "size_px": "pixels"}


def _check_head(folder: Path, before: dict[str, Any], wanted: dict[str, int]) -> None:
    """Raises EvaluationDataError that names what differs."""
    differ = [key for key, value in wanted.items() if before.get(key) != value]
    if differ:
        has = ", ".join(f"{_HEAD_WORDS[key]} {before.get(key)}" for key in differ)
        asked = ", ".join(f"{_HEAD_WORDS[key]} {wanted[key]}" for key in differ)
        raise EvaluationDataError(f"{folder} holds people of {has}; asked for {asked}; choose another folder")


def _read_head(path: Path) -> dict[str, Any] | None:
    content = read_json_object(path)
    return content if content is not None and "items" in content else None
