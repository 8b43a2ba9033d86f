# SPDX-License-Identifier: Apache-2.0
"""What is decided before a picture is drawn: who, doing what, seen how, in which light, before what."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from hiface.morphable import MorphableModel
from hiface.render.shade import sh_basis
from hiface.synthetic.backgrounds import plan_background
from hiface.synthetic.camera_effects import Lens, sample_lens
from hiface.synthetic.cameras import View, frame_camera, sample_view
from hiface.synthetic.compose import Picture, Wardrobe, sample_wardrobe, skin_colour_of
from hiface.synthetic.effects import ALL_EFFECTS, dressed_down, simplified, wall, without_lamps
from hiface.synthetic.expressions import (
    Gaze,
    add_gaze,
    lips_apart,
    lowered,
    pose_vector,
    sample_expression,
    sample_gaze,
)
from hiface.synthetic.head import person_texture
from hiface.synthetic.lights import Surroundings, sample_surroundings
from hiface.synthetic.limits import limit_face, limit_identity
from hiface.synthetic.people import Person, sample_person
from hiface.synthetic.posing import pose_shape, rest_of
from hiface.synthetic.wrinkles import PersonDetail, person_detail, picture_displacement
from hiface.types import Camera, FaceParams

_SHARP = Lens("sharp", 0.5)
_METERED = np.array([[0.0, 0.0, -1.0], [0.5, -0.3, -0.8], [-0.5, -0.3, -0.8]], dtype=np.float32)


@dataclass(frozen=True)
class Sitter:
    """A person with their skin.

    Attributes:
        number: Number of the person.
        person: Who.
        texture: [3, h, w] linear albedo.
        detail: Wrinkles and pores, None for smooth skin.
    """

    number: int
    person: Person
    texture: Tensor
    detail: PersonDetail | None = None


@dataclass(frozen=True)
class Act:
    """What a person does in one picture.

    Attributes:
        values: Expression by name, without the eyeLook shapes.
        gaze: Where the eyes look.
        neck_bend: [2, 3] rotation vectors of neck and head.
    """

    values: dict[str, float]
    gaze: Gaze
    neck_bend: np.ndarray


@dataclass(frozen=True)
class Posed:
    """An act as geometry.

    Attributes:
        expression: [52].
        pose: [J, 3].
        vertices: [V, 3] object space, metres.
        T_head: [4, 4] head joint, rest to posed object space.
    """

    expression: Tensor
    pose: Tensor
    vertices: Tensor
    T_head: Tensor


@dataclass(frozen=True)
class Shot:
    """All that one picture is made of.

    Attributes:
        sitter: Who.
        act: Doing what.
        picture: Coefficients, vertices, camera and light.
        view: How the camera stands.
        wardrobe: Clothes and accessories.
        background: [3, S, S] linear.
        lens: Optics.
        effects: Parts of the generator that are on.
    """

    sitter: Sitter
    act: Act
    picture: Picture
    view: View
    wardrobe: Wardrobe
    background: Tensor
    lens: Lens
    effects: frozenset[str]


def sitter_of(model: MorphableModel, number: int, effects: frozenset[str] = ALL_EFFECTS) -> Sitter:
    """Person number `number`; the same one for the same number and effects."""
    rng = np.random.default_rng([number, 7])
    person = simplified(sample_person(model, rng), effects)
    person = replace(person, identity=limit_identity(model, person.identity))
    texture = person_texture(model, person, rng)
    wrinkled = "wrinkles" in effects
    detail = person_detail(model, person.identity, person.wrinkles) if wrinkled else None
    return Sitter(number, person, texture, detail)


def limit_act(model: MorphableModel, person: Person, act: Act) -> Act:
    """The nearest act that a person's face can hold (`limits.limit_face`); no upward gaze behind lids."""
    names = model.data.expression_names
    closed = 0.5 * (act.values.get("eyeBlinkLeft", 0.0) + act.values.get("eyeBlinkRight", 0.0))
    gaze = lowered(act.gaze, closed)
    drawn = model.expression_vector(add_gaze(act.values, gaze))
    limited = limit_face(model, person.identity, drawn).tolist()
    values = {n: v for n, v in zip(names, limited, strict=True) if not n.startswith("eyeLook")}
    return replace(act, values=values, gaze=gaze)


def pose_person(model: MorphableModel, person: Person, act: Act) -> Posed:
    """Geometry of a person in an act."""
    expression = model.expression_vector(add_gaze(act.values, act.gaze))
    pose = pose_vector(model.data.joint_names, act.gaze, act.neck_bend)
    vertices, T_joints = pose_shape(model, rest_of(model, person.identity), expression, pose)
    return Posed(expression, pose, vertices, T_joints[model.data.joint_names.index("head")])


def make_picture(
    model: MorphableModel,
    sitter: Sitter,
    act: Act,
    posed: Posed,
    camera: Camera,
    body_turn: np.ndarray,
    lights: Surroundings,
) -> Picture:
    """Puts a posed person before a camera."""
    person, detail = sitter.person, sitter.detail
    params = FaceParams(
        person.identity, posed.expression, posed.pose, person.albedo, lights.sh_light(), camera
    )
    displacement = None if detail is None else picture_displacement(model, detail, posed.vertices)
    T_cam_head = camera.T_cam_object @ posed.T_head
    jaw = act.values.get("jawOpen", 0.0)
    lips = lips_apart(act.values)
    return Picture(params, posed.vertices, T_cam_head, body_turn, lights, jaw, lips, displacement)


def _exposed(lights: Surroundings, R: Tensor, albedo_level: float, rng: np.random.Generator) -> Surroundings:
    """Light as strong as an automatic exposure of a face, with the usual misses, makes it."""
    forward = R.numpy() @ np.array([0.0, 0.15, 0.99], dtype=np.float32)
    directions = np.stack([*_METERED, forward])
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    seen = sh_basis(torch.from_numpy(directions)).numpy() @ lights.sh_light().numpy()
    level = float(np.maximum(seen, 0.02).mean())
    metered = (0.30 / max(albedo_level, 0.03)) ** 0.45
    return lights.scaled(metered / level * math.exp(rng.normal(0.05, 0.35)))


def draw_shot(
    model: MorphableModel,
    sitter: Sitter,
    rng: np.random.Generator,
    size: int,
    effects: frozenset[str] = ALL_EFFECTS,
) -> Shot:
    """Decides on a picture of a person.

    Args:
        model: Face model.
        sitter: From `sitter_of` with the same effects.
        rng: Source of randomness; the same numbers are drawn whatever the effects are.
        size: Side in pixels.
        effects: Parts of the generator that are on.

    Returns:
        Shot.
    """
    person = sitter.person
    view = sample_view(rng)
    values = sample_expression(model.data.expression_names, rng)
    towards = view.R_cam_head.T @ torch.tensor([-view.offset[0], -view.offset[1], -1.0])
    gaze = sample_gaze(
        rng,
        math.atan2(float(towards[0]), max(float(towards[2]), 0.05)),
        math.asin(float(towards[1] / towards.norm())),
        0.5 * (values["eyeBlinkLeft"] + values["eyeBlinkRight"]),
        view.distance_m,
    )
    act = limit_act(model, person, Act(values, gaze, view.neck_bend))
    posed = pose_person(model, person, act)
    landmarks = model.landmarks("ibug68", posed.vertices)
    in_head = (landmarks - posed.T_head[:3, 3]) @ posed.T_head[:3, :3]
    camera = frame_camera(view, in_head, posed.T_head, size)
    lights = without_lamps(sample_surroundings(rng), effects)
    lights = _exposed(lights, view.R_cam_head, float(skin_colour_of(model, sitter.texture).mean()), rng)
    picture = make_picture(model, sitter, act, posed, camera, view.body_turn, lights)
    wardrobe = dressed_down(sample_wardrobe(rng), effects)
    background = wall(plan_background(rng, size), size, effects)
    lens = sample_lens(rng)
    return Shot(
        sitter,
        act,
        picture,
        view,
        wardrobe,
        background,
        lens if "camera" in effects else _SHARP,
        effects,
    )
