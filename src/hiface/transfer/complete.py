# SPDX-License-Identifier: Apache-2.0
"""Fills what a face model of another project lacks from the open model, through a bridge."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from hiface.geometry.oriented import OrientedSurface, normals_of
from hiface.morphable import ContourLines, MorphableModel, MorphableModelData, load_model
from hiface.render.texture import sample_texture
from hiface.render.uv_space import uv_space
from hiface.transfer.bridge import Bridge, make_bridge
from hiface.types import LandmarkSet

NEEDED_SETS = ("ibug68", "dense", "now7", "realy85")
NEEDED_MASKS = ("face", "skin", "nose", "mouth", "forehead", "cheek")
_EYES = ("eye_left", "eye_right")
_ALBEDO_PX = 256
_MASK_ABOVE = 0.5


def is_complete(data: MorphableModelData) -> bool:
    """Whether a model has what fitting, textures and scores need: landmark sets, masks, an albedo."""
    has = (data.landmark_sets, NEEDED_SETS), (data.vertex_masks, NEEDED_MASKS)
    return all(set(wanted) <= set(there) for there, wanted in has) and len(data.albedo_names) > 0


def completed(data: MorphableModelData, bridge: Bridge | None = None) -> MorphableModelData:
    """A model with the open model's landmark sets, masks, pairs, jaw contour and albedo where it has none.

    Nothing that the model has is replaced, and what is added has its dtype. Points and masks are those of the
    corresponding places of the mean faces; the set "iris" is added only to models whose eyes can turn. The
    albedo (mean and axes, linear) is resampled into the model's own UV layout if its file has no albedo axes.

    Args:
        data: The model.
        bridge: Bridge from the open model to it; made if None (some seconds).

    Returns:
        The same model with more in it. `metadata["completed"]` names what was added.

    Raises:
        ModelFormatError: No face is found on its mean shape.
        TopologyError: The bridge is for another model.
        FitError: The bending failed.
        MissingExtraError: libigl or scipy is not installed.
    """
    model = load_model("open").data
    if data.name == model.name:
        return data
    bridge = bridge or make_bridge(model, data)
    bridge.source.check(model)
    bridge.target.check(data)
    added: dict[str, list[str]] = {}
    sets = _sets(data, model, bridge)
    masks = _masks(data, model, bridge)
    pairs = _pairs(data, model, bridge)
    changes: dict[str, object] = {}
    for field, found in (("landmark_sets", sets), ("vertex_masks", masks), ("pairs", pairs)):
        own = getattr(data, field)
        new = {key: value for key, value in found.items() if key not in own}
        if new:
            added[field] = sorted(new)
            changes[field] = {**new, **own}
    if data.contour is None:
        changes["contour"] = _contour(data, model, bridge)
        added["contour"] = ["contour"]
    if len(data.albedo_names) == 0:
        changes |= _albedo(data, model, bridge)
        added["albedo"] = ["albedo"]
    listed = ", ".join(name for names in added.values() for name in names)
    metadata = {**data.metadata, "completed": f"from the open model {model.version}: {listed or 'nothing'}"}
    return replace(data, metadata=metadata, **changes)


def complete_model(model: MorphableModel) -> MorphableModel:
    """The same model if it has all that fitting needs, else one with `completed` data; errors as there."""
    complete = model.name == "open" or is_complete(model.data)
    return model if complete else MorphableModel(completed(model.data))


def _sets(data: MorphableModelData, model: MorphableModelData, bridge: Bridge) -> dict[str, LandmarkSet]:
    back = bridge.reversed()
    wanted = [
        name
        for name in model.landmark_sets
        if name not in data.landmark_sets and (name != "iris" or set(_EYES) <= set(data.joint_names))
    ]
    return {name: back.landmarks(model.landmark_sets[name], data) for name in wanted}


def _contour(data: MorphableModelData, model: MorphableModelData, bridge: Bridge) -> ContourLines | None:
    lines = model.contour
    if lines is None:
        return None
    back = bridge.reversed()
    valid = lines.valid & back.trusted_landmarks(lines.points).reshape(lines.valid.shape)
    if not bool(valid.any(1).all()):
        return None  # the model ends before the jaw does
    return ContourLines(back.landmarks(lines.points, data), valid)


def _masks(data: MorphableModelData, model: MorphableModelData, bridge: Bridge) -> dict[str, Tensor]:
    names = list(model.vertex_masks)
    stacked = torch.stack([model.vertex_masks[name] for name in names], dim=1).float()
    inside = (bridge.values(stacked) > _MASK_ABOVE) & bridge.trusted[:, None]
    return dict(zip(names, inside.unbind(1), strict=True))


def _pairs(data: MorphableModelData, model: MorphableModelData, bridge: Bridge) -> dict[str, Tensor]:
    """Vertex pairs of lids and lips, each vertex by the nearest on the other mesh."""
    places = bridge.to_source
    nearest = bridge.target.triangles[places.triangle_ids].gather(1, places.barycentric.argmax(1)[:, None])[
        :, 0
    ]
    found = {}
    for name, pairs in model.pairs.items():
        moved = nearest[pairs]
        kept = places.trusted[pairs].all(1) & (moved[:, 0] != moved[:, 1])
        found[name] = moved[kept].unique(dim=0)
    return found


def _albedo(data: MorphableModelData, model: MorphableModelData, bridge: Bridge) -> dict[str, object]:
    """Albedo mean and axes of the open model in the UV layout of `data`."""
    size = _ALBEDO_PX
    space = uv_space(data.uv, data.uv_triangles, data.triangles, data.n_vertices, size)
    source = model.template.double()
    normals = normals_of(source, model.triangles)
    values = torch.cat([source, normals], dim=1)
    lifted = space.lift(bridge.values(values).to(space.dtype)).flatten(1).T.double()
    covered = torch.nonzero(lifted.abs().sum(1) > 0)[:, 0]
    surface = OrientedSurface(source, model.triangles)
    asked = lifted[covered]
    found = surface.find(asked[:, :3], F.normalize(asked[:, 3:], dim=-1))
    weights = found.barycentric.to(model.uv.dtype)
    uv = (model.uv[model.uv_triangles[found.triangle_ids]] * weights[..., None]).sum(1)
    maps = []
    for picture in (model.albedo_mean[None], *model.albedo_basis.split(8)):
        colours = sample_texture(picture, uv.expand(len(picture), -1, 2))
        canvas = colours.mean(1, keepdim=True).expand(-1, size * size, -1).clone()
        canvas[:, covered] = colours
        maps.append(canvas.movedim(-1, 1).reshape(-1, 3, size, size))
    dtype = data.template.dtype
    return {
        "albedo_mean": maps[0][0].to(dtype),
        "albedo_basis": torch.cat(maps[1:]).to(dtype),
        "albedo_names": model.albedo_names,
    }
