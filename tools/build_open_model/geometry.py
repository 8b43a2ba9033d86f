# SPDX-License-Identifier: Apache-2.0
"""Puts the geometry together: mean head, identity basis, expressions and rig, all in the model's axes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import basis, expressions, identity, prior, rig
from .interior import follow_skin
from .lips import seal_lips
from .mesh import HeadMesh, extract_head, eye_centres, symmetrise, to_model_axes
from .mpfb2 import BodyMesh, SourceData

SCALE = 1.06
"""Global scale: the source's adults are smaller than the adults of head-and-face surveys."""

SAMPLED_COMPONENTS = 300
"""Components of the sampled people before the prior is bettered."""
PLACEMENT = {
    "teeth_upper": (0.0, -0.0040, 0.0040),
    "teeth_lower": (0.0, -0.0015, 0.0020),
    "tongue": (0.0, -0.0070, -0.0060),
}
"""Shifts in metres that bring teeth and tongue to where they are in people: the upper teeth's edge a little
below the lip line and in front of the lower teeth, the tongue behind and below."""


@dataclass(frozen=True)
class Settings:
    """What decides the result besides the source files."""

    people: int = 3000
    components: int = 150
    seed: int = 20


@dataclass(frozen=True)
class Geometry:
    """Everything the model file holds about shape; metres, origin between the eyes of ``template``.

    Attributes:
        head: connectivity.
        template: ``[V, 3]``.
        identity: basis over vertices and joints.
        expression_names: 52 names.
        expression_basis: ``[52, V, 3]``.
        skin_weights: ``[V, 5]``.
    """

    head: HeadMesh
    template: np.ndarray
    identity: basis.IdentityBasis
    expression_names: tuple[str, ...]
    expression_basis: np.ndarray
    skin_weights: np.ndarray

    @property
    def joints_template(self) -> np.ndarray:
        """``[5, 3]`` joints of the mean head."""
        return self.identity.mean[len(self.template) :]

    def base(self) -> dict[str, object]:
        """The plain dictionary for the other builders."""
        return self.head.as_base(self.template)


def build_geometry(source: SourceData, settings: Settings) -> Geometry:
    """Builds everything about shape from the raw files."""
    body = source.body()
    mean_body = identity.average_person(source, body)
    head = extract_head(body, mean_body)
    people = sample_people(source, body, head, settings.people, settings.seed)
    shapes = _components(head, people, settings.components)
    template = shapes.mean[: len(head.source_ids)]
    names, motion = expressions.build_expressions(source, body, head, SCALE, template)
    weights = rig.skin_weights(source, body, head)
    return Geometry(head, template, shapes, names, motion, weights)


def sample_people(source: SourceData, body: BodyMesh, head: HeadMesh, count: int, seed: int) -> np.ndarray:
    """Draws people and aligns them rigidly on the face.

    Returns:
        ``[count, V + 5, 3]`` float32 metres: vertices and joints; the origin is near the eyes.
    """
    operator = rig.point_operator(body, head)
    names, weights = identity.sample_weights(identity.find_sliders(source), count, seed)
    targets = identity.target_matrix(source, names, body, operator)
    base = np.asarray(operator @ body.vertices, dtype=np.float32)
    points = base + (weights @ targets.reshape(len(names), -1)).reshape(count, -1, 3)
    average = np.asarray(operator @ identity.average_person(source, body))
    v = len(head.source_ids)
    origin = eye_centres(head, average[:v]).mean(axis=0)
    reference = SCALE * to_model_axes(average, origin)
    points = (SCALE * to_model_axes(points, origin)).astype(np.float32)
    weight = np.concatenate([_alignment_weights(head, reference[:v]), np.zeros(len(reference) - v)])
    return basis.align_rigid(points, reference, weight).astype(np.float32)


def _alignment_weights(head: HeadMesh, template: np.ndarray) -> np.ndarray:
    region = basis.region_weights(head, template)
    area = basis.vertex_areas(head.triangles, template)
    weight = np.where(region > 0.61, (region - 0.6) / 0.4, 0.0) * area
    weight[basis.part_mask(head, ("eye_left", "eye_right"), len(template))] = 0.0
    return weight


def point_mirror(head: HeadMesh) -> np.ndarray:
    """Mirror indices of vertices and joints, ``[V + 5]``."""
    return np.concatenate([head.mirror_vertices, len(head.mirror_vertices) + np.array(rig.JOINT_MIRROR)])


def metric_weights(head: HeadMesh, template: np.ndarray) -> np.ndarray:
    """Weights of the principal components: region times square root of the share of the area; joints 0."""
    area = basis.vertex_areas(head.triangles, template)
    weight = basis.region_weights(head, template) * np.sqrt(area / area.sum())
    return np.concatenate([weight, np.zeros(len(rig.JOINT_NAMES))])


def _components(head: HeadMesh, people: np.ndarray, count: int) -> basis.IdentityBasis:
    v = len(head.source_ids)
    mirror = point_mirror(head)
    mean = symmetrise(people.mean(axis=0, dtype=np.float64), mirror)
    origin = eye_centres(head, mean[:v]).mean(axis=0)
    people -= origin.astype(np.float32)
    weights = metric_weights(head, mean[:v] - origin)
    sampled = basis.principal_components(people, weights, mirror, SAMPLED_COMPONENTS)
    align = np.concatenate([_alignment_weights(head, sampled.mean[:v]), np.zeros(len(sampled.mean) - v)])
    smooth = prior.gaussian_process_modes(head, sampled.mean, align, mirror)
    measures = prior.find_measures(head, sampled.mean)
    rows = np.concatenate([sampled.basis, smooth])
    centre, rows = prior.calibrate(sampled.mean, rows, measures)
    centre = symmetrise(centre, mirror)
    centre -= eye_centres(head, centre[:v]).mean(axis=0)
    shapes = prior.recompress(centre, rows, weights, mirror, count)
    for name, shift in PLACEMENT.items():
        shapes.mean[head.part_vertices(name)] += np.array(shift)
    shapes.mean[:v] += seal_lips(head, shapes.mean[:v])
    shapes.mean[:] = symmetrise(shapes.mean, mirror)
    shapes.basis[:, :v] = follow_skin(head, shapes.mean[:v], shapes.basis[:, :v])
    return shapes
