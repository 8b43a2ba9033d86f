# SPDX-License-Identifier: Apache-2.0
"""Labelled pictures of people who do not exist: one seed, one picture, exact labels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from hiface.detail.basis import STATES, load_detail_basis
from hiface.errors import OptionError
from hiface.morphable import MorphableModel
from hiface.synthetic.camera_effects import apply_effects, plain_srgb
from hiface.synthetic.compose import Composed, compose
from hiface.synthetic.effects import ALL_EFFECTS
from hiface.synthetic.labels import label_points
from hiface.synthetic.shots import Shot, Sitter, draw_shot, sitter_of
from hiface.synthetic.surface_maps import surface_maps
from hiface.synthetic.wrinkles import DETAIL_PX
from hiface.types import FaceParams

GENERATOR_VERSION = "11"
PICTURES_PER_PERSON = 3
SEGMENTATION = ("background", "skin", "eyes", "mouth", "hair", "accessory", "body")
LABEL_GROUPS = ("basic", "maps", "vertices", "displacement", "codes")
BASIC = frozenset({"basic"})


@dataclass(frozen=True)
class Style:
    """How pictures are made, whoever is in them.

    Attributes:
        size: Side in pixels.
        effects: Parts of the generator that are on (`hiface.synthetic.effects`).
        labels: Groups of labels, of `LABEL_GROUPS`; "basic" is always there.
    """

    size: int = 192
    effects: frozenset[str] = ALL_EFFECTS
    labels: frozenset[str] = BASIC


@dataclass(frozen=True)
class SyntheticSample:
    """One picture and everything that is known about it.

    Attributes:
        image_srgb: [3, S, S] uint8.
        alpha: [S, S] uint8 coverage of the person (head, hair, hat, body) and what is held in front.
        landmarks68_px: [68, 2] pixels; the jaw follows the outline.
        dense_px: [D, 2] pixels of the model's "dense" set.
        iris_px: [I, 2] pixels of the model's "iris" set, or the eye centres (right, left) if there is none.
        visible68: [68] bool, inside the picture and hidden by nothing.
        visible_dense: [D] bool.
        visible_iris: [I] bool; False behind lids.
        depth68_cam: [68] metres behind the head joint's origin plane (positive is further from the camera).
        segmentation: [S, S] uint8, see `SEGMENTATION`.
        params: The coefficients that were drawn, unbatched.
        T_cam_head: [4, 4] pose of the head with bent neck.
        box: [4] x0, y0, x1, y1 around the 68 points, pixels.
        seed: Seed of the picture.
        person: Number of the person.
        maps: Large labels that were asked for, by name: those of `surface_maps` ("maps"), "vertices" [V, 3]
            metres in camera axes ("vertices"), "displacement" of this expression and the person's
            "displacement_static", "_compressed" and "_stretched", [256, 256] metres over the texture square,
            positive outward ("displacement"), "detail_codes" of the three states in the model's packaged
            basis, one after another ("codes"); kinds of data sets add theirs.
    """

    image_srgb: Tensor
    alpha: Tensor
    landmarks68_px: Tensor
    dense_px: Tensor
    iris_px: Tensor
    visible68: Tensor
    visible_dense: Tensor
    visible_iris: Tensor
    depth68_cam: Tensor
    segmentation: Tensor
    params: FaceParams
    T_cam_head: Tensor
    box: Tensor
    seed: int
    person: int
    maps: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Taken:
    """A sample and what the drawing left behind, for labels that need more than one picture.

    Attributes:
        sample: The sample.
        shot: What was drawn.
        composed: The person before background and occluder.
    """

    sample: SyntheticSample
    shot: Shot
    composed: Composed


def parse_labels(names: Iterable[str]) -> frozenset[str]:
    """Groups of labels by name.

    Raises:
        OptionError: A name is unknown.
    """
    groups = BASIC | frozenset(names)
    for name in sorted(groups - frozenset(LABEL_GROUPS)):
        raise OptionError(f"unknown group of labels {name!r}; choose some of: {', '.join(LABEL_GROUPS)}")
    return groups


def _displacements(shot: Shot) -> dict[str, Tensor]:
    detail = shot.sitter.detail
    if detail is None:
        names = ("displacement", *(f"displacement_{state}" for state in STATES))
        return {name: torch.zeros(DETAIL_PX, DETAIL_PX) for name in names}
    assert shot.picture.displacement is not None  # a sitter with detail is always drawn with it
    states = {f"displacement_{state}": getattr(detail, state) for state in STATES}
    return {"displacement": shot.picture.displacement} | states


def _codes(shot: Shot) -> Tensor:
    basis, detail = load_detail_basis(), shot.sitter.detail
    none = torch.zeros(len(basis.texels))
    values = [none if detail is None else basis.gather(getattr(detail, name)) for name in STATES]
    return torch.cat([getattr(basis, name).encode(v) for name, v in zip(STATES, values, strict=True)])


def _large_labels(
    model: MorphableModel, shot: Shot, composed: Composed, segmentation: Tensor, groups: frozenset[str]
) -> dict[str, Tensor]:
    out: dict[str, Tensor] = {}
    if "maps" in groups:
        out |= surface_maps(model, shot.picture, composed, segmentation, shot.sitter.texture)
    if "vertices" in groups:
        out["vertices"] = composed.verts_cam
    if "displacement" in groups:
        out |= _displacements(shot)
    if "codes" in groups:
        out["detail_codes"] = _codes(shot)
    return out


@torch.no_grad()
def take_picture(
    model: MorphableModel, shot: Shot, rng: np.random.Generator, style: Style, seed: int, frame: int = 0
) -> Taken:
    """Draws a shot and labels it.

    Args:
        model: Face model.
        shot: What to draw.
        rng: Source of randomness of occluder and camera.
        style: Size and labels.
        seed: Written into the sample.
        frame: Number of the frame in a clip; changes the noise only.

    Returns:
        Taken.
    """
    lens, sitter = shot.lens, shot.sitter
    subpixels = 1 if lens.is_soft else 2
    out = compose(model, sitter.person, sitter.texture, shot.picture, shot.wardrobe, style.size, subpixels)
    colour, alpha, segmentation = out.over(shot.background, rng)
    with_camera = "camera" in shot.effects
    points = label_points(model, shot.picture, out, segmentation)
    sample = SyntheticSample(
        image_srgb=apply_effects(colour, rng, lens, frame) if with_camera else plain_srgb(colour),
        alpha=(alpha * 255 + 0.5).to(torch.uint8),
        segmentation=segmentation,
        params=shot.picture.params,
        T_cam_head=shot.picture.T_cam_head,
        seed=seed,
        person=sitter.number,
        maps=_large_labels(model, shot, out, segmentation, style.labels),
        **points,
    )
    return Taken(sample, shot, out)


@torch.no_grad()
def generate_picture(
    model: MorphableModel, seed: int, size: int | Style, known: Sitter | None = None
) -> SyntheticSample:
    """Makes one picture.

    Args:
        model: Face model.
        seed: Seed; pictures `3 n`, `3 n + 1` and `3 n + 2` show the same person.
        size: Side in pixels, or all of the style.
        known: The person, if they were made already (with the same effects).

    Returns:
        SyntheticSample.
    """
    style = size if isinstance(size, Style) else Style(size)
    sitter = known or sitter_of(model, seed // PICTURES_PER_PERSON, style.effects)
    rng = np.random.default_rng([seed, 11])
    shot = draw_shot(model, sitter, rng, style.size, style.effects)
    return take_picture(model, shot, rng, style, seed).sample


def generate_batch(model: MorphableModel, seeds: Sequence[int], size: int | Style) -> list[SyntheticSample]:
    """Makes one picture per seed; the same seed makes the same picture, whatever else is in the batch.

    Args:
        model: Face model.
        seeds: Seeds; runs of three from a multiple of three share a person (and a texture).
        size: Side in pixels, or all of the style.

    Returns:
        One sample per seed, in order.
    """
    style = size if isinstance(size, Style) else Style(size)
    out: list[SyntheticSample] = []
    known: Sitter | None = None
    for seed in map(int, seeds):
        number = seed // PICTURES_PER_PERSON
        if known is None or known.number != number:
            known = sitter_of(model, number, style.effects)
        out.append(generate_picture(model, seed, style, known))
    return out
