# SPDX-License-Identifier: Apache-2.0
"""Labelled pictures of people who do not exist: one seed, one picture, exact labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hiface.morphable import MorphableModel
from hiface.morphable.skinning import joint_transforms
from hiface.render.shade import sh_basis
from hiface.synthetic.backgrounds import sample_background
from hiface.synthetic.camera_effects import apply_effects, sample_lens
from hiface.synthetic.cameras import frame_camera, sample_view
from hiface.synthetic.compose import Picture, compose, sample_wardrobe, skin_colour_of
from hiface.synthetic.head import person_texture
from hiface.synthetic.labels import label_points
from hiface.synthetic.lights import Surroundings, sample_surroundings
from hiface.synthetic.people import (
    Person,
    add_gaze,
    lips_apart,
    pose_vector,
    sample_expression,
    sample_gaze,
    sample_person,
)
from hiface.types import FaceParams

GENERATOR_VERSION = "5"
PICTURES_PER_PERSON = 3
SEGMENTATION = ("background", "skin", "eyes", "mouth", "hair", "accessory", "body")


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
        visible_iris: [I] bool.
        depth68_cam: [68] metres behind the head joint's origin plane (positive is further from the camera).
        segmentation: [S, S] uint8, see `SEGMENTATION`.
        params: The coefficients that were drawn, unbatched.
        T_cam_head: [4, 4] pose of the head with bent neck.
        box: [4] x0, y0, x1, y1 around the 68 points, pixels.
        seed: Seed of the picture.
        person: Number of the person.
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


def _head_transform(model: MorphableModel, identity: Tensor, pose: Tensor) -> Tensor:
    """[4, 4] transform of the head joint, rest to posed object space."""
    R, t = joint_transforms(model.joints(identity), pose, model.data.joint_parents)
    index = model.data.joint_names.index("head")
    T = torch.eye(4)
    T[:3, :3], T[:3, 3] = R[index], t[index]
    return T


def _exposed(lights: Surroundings, R: Tensor, albedo_level: float, rng: np.random.Generator) -> Surroundings:
    """Light as strong as an automatic exposure of a face, with the usual misses, makes it."""
    forward = R @ torch.tensor([0.0, 0.15, 0.99])
    directions = torch.tensor([[0.0, 0.0, -1.0], [0.5, -0.3, -0.8], [-0.5, -0.3, -0.8]])
    directions = torch.cat([directions, forward[None]])
    basis_light = lights.sh_light()
    level = float(
        (sh_basis(directions / directions.norm(dim=1, keepdim=True)) @ basis_light).clamp_min(0.02).mean()
    )
    metered = (0.30 / max(albedo_level, 0.03)) ** 0.45
    return lights.scaled(metered / level * math.exp(rng.normal(0.05, 0.35)))


def _person_of(model: MorphableModel, number: int) -> tuple[Person, Tensor]:
    rng = np.random.default_rng([number, 7])
    person = sample_person(model, rng)
    return person, person_texture(model, person, rng)


def generate_picture(
    model: MorphableModel, seed: int, size: int, known: tuple[Person, Tensor] | None = None
) -> SyntheticSample:
    """Makes one picture.

    Args:
        model: Face model.
        seed: Seed; pictures `3 n`, `3 n + 1` and `3 n + 2` show the same person.
        size: Side in pixels.
        known: The person and the texture, if they were made already.

    Returns:
        SyntheticSample.
    """
    number = seed // PICTURES_PER_PERSON
    person, texture = known or _person_of(model, number)
    rng = np.random.default_rng([seed, 11])
    view = sample_view(rng)
    values = sample_expression(model.data.expression_names, rng)
    towards = view.R_cam_head.T @ torch.tensor([-view.offset[0], -view.offset[1], -1.0])
    gaze = sample_gaze(
        rng,
        math.atan2(float(towards[0]), max(float(towards[2]), 0.05)),
        math.asin(float(towards[1] / towards.norm())),
        values["eyeBlinkLeft"],
    )
    expression = model.expression_vector(add_gaze(values, gaze))
    pose = pose_vector(model.data.joint_names, gaze, view.neck_bend)
    vertices = model.vertices(person.identity, expression, pose)
    T_head = _head_transform(model, person.identity, pose)
    landmarks = model.landmarks("ibug68", vertices)
    in_head = (landmarks - T_head[:3, 3]) @ T_head[:3, :3]
    camera = frame_camera(view, in_head, T_head, size)
    lights = sample_surroundings(rng)
    lights = _exposed(lights, view.R_cam_head, float(skin_colour_of(model, texture).mean()), rng)
    params = FaceParams(person.identity, expression, pose, person.albedo, lights.sh_light(), camera)
    T_cam_head = camera.T_cam_object @ T_head
    wardrobe = sample_wardrobe(rng)
    picture = Picture(
        params, vertices, T_cam_head, view.body_turn, lights, values.get("jawOpen", 0.0), lips_apart(values)
    )
    background = sample_background(rng, size)
    lens = sample_lens(rng)
    out = compose(model, person, texture, picture, wardrobe, size, 1 if lens.is_soft else 2)
    colour, alpha, segmentation = out.over(background, rng)
    points = label_points(model, picture, out, segmentation)
    return SyntheticSample(
        image_srgb=apply_effects(colour, rng, lens),
        alpha=(alpha * 255 + 0.5).to(torch.uint8),
        segmentation=segmentation,
        params=params,
        T_cam_head=T_cam_head,
        seed=seed,
        person=number,
        **points,
    )


@torch.no_grad()
def generate_batch(model: MorphableModel, seeds: Sequence[int], size: int) -> list[SyntheticSample]:
    """Makes one picture per seed; the same seed makes the same picture, whatever else is in the batch.

    Args:
        model: Face model.
        seeds: Seeds; runs of three from a multiple of three share a person (and a texture).
        size: Side in pixels.

    Returns:
        One sample per seed, in order.
    """
    out = []
    number, known = -1, None
    for seed in seeds:
        if seed // PICTURES_PER_PERSON != number or known is None:
            number = seed // PICTURES_PER_PERSON
            known = _person_of(model, number)
        out.append(generate_picture(model, int(seed), size, known))
    return out


def main_generate(out: Path, count: int, size: int = 192, seed: int = 0, workers: int = 1) -> None:
    """Writes a folder of shards; an interrupted run goes on where it stopped.

    Args:
        out: Folder, made if missing.
        count: Number of pictures.
        size: Side of a picture, pixels.
        seed: Number of the data set; other numbers make other people.
        workers: Processes.
    """
    from hiface.synthetic.shards import write_shards

    write_shards(out, count, size, workers, seed)
