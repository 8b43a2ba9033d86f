# SPDX-License-Identifier: Apache-2.0
"""What the fit reads of a face model, gathered once per model and kept as long as the model lives."""

from __future__ import annotations

from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from hiface.fitting.config import FitConfig
from hiface.fitting.landmark_energy import LandmarkModel, gather_landmarks
from hiface.fitting.linearised import is_linear, layout_of, linearised
from hiface.fitting.parameters import ParamLayout
from hiface.fitting.samples import SurfaceSamples, build_samples, with_geometry
from hiface.morphable import MorphableModel, MorphableModelData


@dataclass(frozen=True)
class FitModel:
    """Parts of a face model at landmarks and samples.

    Attributes:
        layout: Layout of the parameters.
        landmarks: The model at its landmarks.
        samples: The model at the photometric samples, or None for a model without skin masks.
        template: [V, 3] mean shape.
        basis: [K + E, V * 3] all vertices, for visibility.
        triangles: [T, 3].
        dtype: Precision of the landmarks.
        curved: The whole model where it is not linear, of which this is the expansion about some point; None
            of a linear model.
    """

    layout: ParamLayout
    landmarks: LandmarkModel
    samples: SurfaceSamples | None
    template: Tensor
    basis: Tensor
    triangles: Tensor
    dtype: torch.dtype
    curved: MorphableModelData | None

    def at(self, x: Tensor) -> FitModel:
        """The model expanded about x [P]; itself if it is linear."""
        if self.curved is None:
            return self
        layout, data = self.layout, linearised(self.curved, self.layout, x)
        samples = self.samples
        return replace(
            self,
            landmarks=gather_landmarks(data, layout.n_identity, self.dtype),
            samples=None if samples is None else with_geometry(samples, data, layout.n_identity),
            template=data.template,
            basis=_whole_basis(data, layout.n_identity),
        )

    def vertices(self, x: Tensor) -> Tensor:
        """[V, 3] object-space vertices at x [P], eyes straight ahead, metres."""
        n = self.basis.shape[0]
        return self.template + (x[:n].to(self.basis.dtype) @ self.basis).unflatten(-1, (-1, 3))


_KNOWN: WeakKeyDictionary[MorphableModel, dict[tuple[int, int, torch.dtype], FitModel]] = WeakKeyDictionary()


def prepare_model(model: MorphableModel, config: FitConfig) -> FitModel:
    """Gathers a model for fitting, or returns what was gathered before.

    Args:
        model: Face model, on any device; the fit runs on the CPU.
        config: Number of coefficients and samples.

    Returns:
        FitModel.
    """
    known = _KNOWN.setdefault(model, {})
    key = (config.n_identity, config.samples, config.dtype)
    if key not in known:
        known[key] = _gather(model, config)
    return known[key]


def _gather(model: MorphableModel, config: FitConfig) -> FitModel:
    data = model.data
    layout = layout_of(data, config.n_identity)
    n_identity = layout.n_identity
    has_skin = "skin" in data.part_names and "face" in data.vertex_masks and "skin" in data.vertex_masks
    prepared = FitModel(
        layout=layout,
        landmarks=gather_landmarks(data, n_identity, config.dtype),
        samples=build_samples(model, config.samples, n_identity, torch.float32) if has_skin else None,
        template=data.template,
        basis=_whole_basis(data, n_identity),
        triangles=data.triangles,
        dtype=config.dtype,
        curved=None if is_linear(data) else data,
    )
    return prepared.at(torch.zeros(layout.size, dtype=config.dtype))


def _whole_basis(data: MorphableModelData, n_identity: int) -> Tensor:
    return torch.cat([data.identity_basis[:n_identity], data.expression_basis]).flatten(1)
