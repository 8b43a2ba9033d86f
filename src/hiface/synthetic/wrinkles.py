# SPDX-License-Identifier: Apache-2.0
"""A person's wrinkles and pores as displacement: at rest, and what compression and stretching add.

Each line of the model's library (`wrinkles.json`) is a groove between raised lips whose course, depth and
gaps differ from person to person. What lies near a line is worked out once per model; a person costs a few
products over those texels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hiface.assets import load_json_asset
from hiface.detail.tension import combine_detail, tension_maps, vertex_tension
from hiface.geometry.constants import cached_per_tensor
from hiface.geometry.normals import vertex_normals
from hiface.morphable import MorphableModel
from hiface.render.uv_space import UvSpace, uv_space
from hiface.synthetic.noise import noise_pool, sample_noise
from hiface.synthetic.posing import rest_of
from hiface.types import LandmarkSet

DETAIL_PX = 256
MAX_DEPTH_M = 0.0014
_DEEPEST_M = 0.002  # of what compression adds, reached only where the skin of the model is compressed in full

_LIP_REACH = 2.2  # how much wider the raised lips are than the groove between them
_LIP_SHARE = 0.36  # how high they are
_FLATTENED = 0.75  # share of a groove at rest that stretching takes away
_LEAST_COMPRESSIBLE = 0.25  # grooves are made deeper where no expression compresses the model's skin much
_NOISE_M = 0.064  # length of a line that one tile of noise covers
_REGIONS = ("face", "lips", "eyelids", "nose", "forehead", "cheek", "neck", "ears", "scalp")
_CHIN_M = (0.010, 0.009)  # how far the dimpled part of the chin lies below the crease of the chin, its radius


@cache
def _library() -> dict[str, Any]:
    return load_json_asset("open/wrinkles.json")


@dataclass(frozen=True)
class WrinkleStyle:
    """What skin one person has.

    Attributes:
        age: 0 (about 18 years) to 1 (about 80).
        kinds: Kind of line to how much deeper than the average it is, 1 for the average.
        pores: Depth of pores and skin grain, metres.
        crepe: Strength of the fine crossing lines of old skin, 0..1.
        seed: Seed of course, gaps and grain.
    """

    age: float
    kinds: dict[str, float]
    pores: float
    crepe: float
    seed: int


@dataclass(frozen=True)
class PersonDetail:
    """Displacement maps of one person, metres, positive outward.

    Attributes:
        static: [S, S] at rest.
        compressed: [S, S] added where skin is compressed.
        stretched: [S, S] added where skin is stretched.
        neutral: [V, 3] the person's vertices at rest, which expressions are compared with.
    """

    static: Tensor
    compressed: Tensor
    stretched: Tensor
    neutral: Tensor


@dataclass(frozen=True)
class WrinkleTables:
    """Where the lines of a model lie in a square texture of S texels.

    Attributes:
        kinds: [L] kind of each line.
        sides: [L] "right", "left" (the twin of the line before) or "both", over the midline.
        settings: Kind to its numbers, from the library.
        length_m: [L].
        line: [N] int64 line of each entry; an entry is a texel near a line.
        texel: [N] int64.
        along_m: [N] metres along the line.
        across_m: [N] metres from the line; positive is to the right when walking along it, seen from outside.
        window: [N] 1 near the line to 0 at the edge of its reach.
        space: Texels of the model.
        regions: Name to weights [S, S].
        texel_m: Size of a texel on the face.
        compressible: [S, S] mask M+ that the expressions which compress a place most reach there, 0..1.
    """

    kinds: tuple[str, ...]
    sides: tuple[str, ...]
    settings: dict[str, dict[str, Any]]
    length_m: Tensor
    line: Tensor
    texel: Tensor
    along_m: Tensor
    across_m: Tensor
    window: Tensor
    space: UvSpace
    regions: dict[str, Tensor]
    texel_m: float
    compressible: Tensor


def _nearest_on_line(points: Tensor, normals: Tensor, line: Tensor) -> tuple[Tensor, Tensor]:
    """Metres along and across (signed) a polyline [K, 3] of points [N, 3] with normals [N, 3]."""
    start, step = line[:-1], line[1:] - line[:-1]
    length = step.norm(dim=1).clamp_min(1e-9)
    t = (((points[:, None] - start) * step).sum(-1) / length.square()).clamp(0, 1)
    off = points[:, None] - start - t[..., None] * step
    distance, k = off.norm(dim=-1).min(dim=1)
    pick = k[:, None]
    along = (length.cumsum(0) - length)[k] + t.gather(1, pick)[:, 0] * length[k]
    off = off.gather(1, pick[..., None].expand(-1, -1, 3))[:, 0]
    side = (torch.linalg.cross(step[k], normals) * off).sum(-1)
    return along, distance * side.sign()


def _reach_m(kind: dict[str, Any]) -> float:
    return 1.6 * kind["width_m"][1] + kind["wobble_m"] + kind["shift_m"]


def _regions(model: MorphableModel, space: UvSpace) -> dict[str, Tensor]:
    data = model.data
    empty = torch.zeros(data.n_vertices)
    rows = [data.vertex_masks[name].float() if name in data.vertex_masks else empty for name in _REGIONS]
    maps = space.lift(torch.stack(rows, dim=1)).clamp(0, 1)
    smooth = F.avg_pool2d(F.avg_pool2d(maps[None], 5, 1, 2), 5, 1, 2)[0]
    inside = space.triangle_id >= 0
    part = data.triangle_parts[space.triangle_id.clamp_min(0).long()]
    skin = (inside & (part == data.part_names.index("skin"))).float()
    # Two texels beyond the charts, so that slopes at the edges of lids and lips see no step.
    skin = torch.where(inside, skin, F.max_pool2d(skin[None, None], 5, 1, 2)[0, 0])
    return {"skin": skin, **dict(zip(_REGIONS, smooth, strict=True))}


def _chin(places: Tensor, crease: Tensor) -> Tensor:
    """[N] weights of the part of the chin that dimples, from the crease above it."""
    centre = crease[len(crease) // 2] - torch.tensor([0.0, _CHIN_M[0], 0.0])
    off = places - centre
    near = torch.exp(-0.5 * off[:, :2].square().sum(dim=1) / _CHIN_M[1] ** 2)
    return near * (off[:, 2].abs() < 2 * _CHIN_M[1])


def _texel_m(places: Tensor, face: Tensor) -> float:
    """Size of a texel on the face from a map of positions [S, S, 3], metres."""
    step = (places[:, 1:] - places[:, :-1]).norm(dim=-1)[:-1], (places[1:] - places[:-1]).norm(dim=-1)[:, :-1]
    areas = (step[0] * step[1])[face[:-1, :-1] > 0.5]
    return float(areas.median().sqrt()) if areas.numel() else 0.3 / len(face)


def _compressible(model: MorphableModel, space: UvSpace) -> Tensor:
    """[S, S] strongest M+ of two expressions together: the most compressing one and 0.7 of the next."""
    data = model.data
    stems = [name.removesuffix("Left").removesuffix("Right") for name in data.expression_names]
    moved = [
        data.template
        + data.expression_basis[[i for i, other in enumerate(stems) if other == stem]].sum(dim=0)
        for stem in sorted(set(stems))
    ]
    tension = vertex_tension(torch.stack(moved), data.template, model.cells, smooth_steps=1).clamp_min(0)
    most = tension.sort(dim=0, descending=True).values[:2]
    return tension_maps(most[0] + 0.7 * most[1:].sum(dim=0), space)[0][0]


@cached_per_tensor
def _tables(template: Tensor, model: MorphableModel, side: int) -> WrinkleTables:
    data = model.data
    library = _library()
    fits = library["model"] == data.name and library["n_vertices"] == data.n_vertices
    lines = library["lines"] if fits else []
    space = uv_space(data.uv, data.uv_triangles, data.triangles, data.n_vertices, side)
    normals = vertex_normals(template, data.triangles)
    surface = space.lift(torch.cat([template, normals], dim=1)).flatten(1).T
    places, normals = surface[:, :3], F.normalize(surface[:, 3:], dim=1)
    regions = _regions(model, space)
    skin = ((regions["skin"] > 0.99).reshape(-1) & space.mask.reshape(-1)).nonzero().reshape(-1)
    found: list[tuple[Tensor, ...]] = []
    lengths, regions["chin"] = [], torch.zeros(side, side)
    for i, content in enumerate(lines):
        points = LandmarkSet(
            "line", torch.tensor(content["triangle_ids"]), torch.tensor(content["barycentric"])
        ).positions(template, data.triangles)
        reach = _reach_m(library["kinds"][content["kind"]])
        low, high = points.min(dim=0).values - reach, points.max(dim=0).values + reach
        near = skin[((places[skin] > low) & (places[skin] < high)).all(dim=1)]
        along, across = _nearest_on_line(places[near], normals[near], points)
        chosen = across.abs() < reach
        window = ((reach - across.abs()) / (0.3 * reach)).clamp(0, 1)
        rows = (torch.full_like(near, i), near, along, across, window * window * (3 - 2 * window))
        found.append(tuple(row[chosen] for row in rows))
        if content["kind"] == "chin":
            regions["chin"] = (_chin(places, points) * (regions["skin"].reshape(-1) > 0.99)).reshape(
                side, side
            )
        lengths.append(float((points[1:] - points[:-1]).norm(dim=1).sum()))
    none = torch.zeros(0, dtype=torch.int64)
    found.append((none, none, none.float(), none.float(), none.float()))
    line, texel, along, across, window = (torch.cat(rows) for rows in zip(*found, strict=True))
    kinds = tuple(content["kind"] for content in lines)
    return WrinkleTables(
        kinds,
        tuple(content["side"] for content in lines),
        library["kinds"],
        torch.tensor(lengths),
        *(line, texel, along, across, window, space, regions),
        _texel_m(places.reshape(side, side, 3), regions["face"]),
        _compressible(model, space),
    )


def wrinkle_tables(model: MorphableModel, side: int = DETAIL_PX) -> WrinkleTables:
    """Where a model's lines lie; made at the first call, then remembered.

    Args:
        model: Face model; models other than the one the library was made for get no lines, only pores.
        side: Side S of the maps in texels.

    Returns:
        WrinkleTables.
    """
    return _tables(model.data.template, model, side)


def sample_wrinkles(rng: np.random.Generator, age: float) -> WrinkleStyle:
    """Draws the skin of a person.

    Args:
        rng: Source of randomness.
        age: 0..1; lines of people of one age differ by a factor of about two.

    Returns:
        WrinkleStyle.
    """
    general = np.exp(rng.normal(0, 0.25))
    kinds = _library()["kinds"]
    return WrinkleStyle(
        age=float(age),
        kinds={name: float(general * np.exp(rng.normal(0, 0.35))) for name in kinds},
        pores=float(rng.uniform(0.00001, 0.00004) * (0.8 + 0.6 * age)),
        crepe=float(np.clip(age * rng.uniform(0.4, 1.2), 0, 1)),
        seed=int(rng.integers(2**31)),
    )


def _line_numbers(tables: WrinkleTables, style: WrinkleStyle, rng: np.random.Generator) -> Tensor:
    """[L, 13] depth at rest and compressed, width, shift, wobble, fades, gaps, bulge, noise place, ends."""
    age, rows = style.age, []
    own, there = 1.0, 1.0
    for kind, side in zip(tables.kinds, tables.sides, strict=True):
        s = tables.settings[kind]
        late = float(np.clip((age - s["onset"]) / (1 - s["onset"]), 0, 1))
        if side != "left":  # the left twin follows its right one and is much like it
            own = style.kinds[kind] * np.exp(rng.normal(0, 0.3))
            there = 1.0 if rng.random() < s["share"] else 0.15
        else:
            own *= np.exp(rng.normal(0, 0.2))
            there = there if rng.random() < 0.85 else 1.15 - there
        still = s["static_m"] * late * (0.5 + 0.5 * late) * own * there
        moved = (s["dynamic_m"][0] * (1 - age) + s["dynamic_m"][1] * age) * min(own, 1.6) * there
        width = (s["width_m"][0] * (1 - age) + s["width_m"][1] * age) * rng.uniform(0.8, 1.15)
        rows.append(
            (
                *(min(still, MAX_DEPTH_M), moved, width / 2.4),
                *(np.clip(rng.normal(0, 0.5), -1, 1) * s["shift_m"], s["wobble_m"], *s["fade"]),
                *(s["broken"], s["bulge"], rng.random(), rng.random()),
                *(s["fade"][0] * rng.uniform(-0.3, 0.7), 1 - s["fade"][1] * rng.uniform(-0.3, 0.7)),
            )
        )
    return torch.from_numpy(np.array(rows, dtype=np.float32).reshape(-1, 13))


def _grooves(tables: WrinkleTables, style: WrinkleStyle, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Grooves at rest and what compression adds, [S, S] each, metres."""
    side = tables.space.triangle_id.shape[0]
    numbers = _line_numbers(tables, style, rng)
    rows = numbers.T.contiguous().index_select(1, tables.line)
    still, moved, width, shift, wobble, fade0, fade1, broken, bulge, where, row, first, last = rows.unbind(0)
    clouds, pinks = noise_pool("cloud")[int(rng.integers(8))], noise_pool("pink")[int(rng.integers(8))]
    at = tables.along_m / _NOISE_M + where
    course = sample_noise(clouds, at, row)
    offset = shift + wobble * course.clamp(-1.6, 1.6) * 0.7
    x = tables.across_m - offset
    strength = sample_noise(pinks, 0.25 * at, row) * 0.5 + sample_noise(clouds, at + 0.37, row) * 0.5
    gaps = (1 - broken * (0.75 - 0.9 * strength)).clamp(0.08, 1.25)
    share = (tables.along_m / tables.length_m[tables.line] - first) / (last - first)
    ends = (share / fade0).clamp(0, 1) * ((1 - share) / fade1).clamp(0, 1) * (tables.along_m > 0)
    ends = ends * ends * (3 - 2 * ends)
    sigma = width * (0.75 + 0.25 * ends)
    soft = (sigma.square() + (0.45 * tables.texel_m) ** 2).sqrt()
    u = (x / soft).square()
    lips = torch.exp(u * (-0.5 / _LIP_REACH**2))
    lips = lips * (1 + bulge * torch.tanh(1.5 * x / soft))
    profile = (_LIP_SHARE * lips - torch.exp(-0.5 * u)) * (1 / (1 - _LIP_SHARE))
    profile = profile * (ends * gaps * (sigma / soft) * tables.window)
    both = torch.stack([profile * still, profile * moved])
    maps = torch.zeros(2, side * side).index_add_(1, tables.texel, both).clamp_(-MAX_DEPTH_M, MAX_DEPTH_M)
    return maps[0].reshape(side, side), maps[1].reshape(side, side)


def _tile(kind: str, side: int, rng: np.random.Generator) -> Tensor:
    tile = noise_pool(kind)[int(rng.integers(8))]
    shift = int(rng.integers(256)), int(rng.integers(256))
    repeat = -(-side // tile.shape[0])
    return tile.roll(shift, (0, 1)).repeat(repeat, repeat)[:side, :side]


def _grain(tables: WrinkleTables, style: WrinkleStyle, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Pores, lip creases and fine lines of old skin, and what compression adds, [S, S] each, metres."""
    side, regions = tables.space.triangle_id.shape[0], tables.regions
    # The finest noise has the size of a texel whatever that is; deep enough not to drown what it roughens.
    fine = _tile("white", side, rng).clamp(-2.5, 2.5)
    where = regions["skin"] * (
        0.35 + 0.5 * regions["face"] + 0.5 * regions["nose"] - 0.8 * regions["eyelids"]
    )
    pores = fine * (where.clamp_min(0) * (1 - regions["lips"]) * style.pores)
    strands = _tile("strand", side, rng).clamp(-2, 2)
    lips = strands * regions["lips"] * regions["skin"] * (0.00005 + 0.00005 * style.age)
    patches = _tile("curl", side, rng).clamp(-2, 2)
    thin = regions["cheek"] + regions["neck"] + 0.5 * regions["eyelids"]
    crepe = patches * (regions["skin"] * thin.clamp(0, 1) * (0.00006 * style.crepe))
    bumps = F.avg_pool2d(_tile("white", side, rng)[None, None], 3, 1, 1)[0, 0]
    dimples = bumps.clamp(-1, 0.5) * regions["chin"] * (0.0003 + 0.0004 * style.age)
    return pores + lips + crepe, 0.6 * crepe + 0.7 * lips + dimples


def person_detail(
    model: MorphableModel, identity: Tensor, style: WrinkleStyle, side: int = DETAIL_PX
) -> PersonDetail:
    """Displacement maps of a person; the same style gives the same maps.

    Args:
        model: Face model.
        identity: [K] sigma.
        style: Skin.
        side: Side S of the maps in texels.

    Returns:
        PersonDetail.
    """
    tables = wrinkle_tables(model, side)
    rng = np.random.default_rng([style.seed, 5])
    still, moved = _grooves(tables, style, rng)
    grain, finer = _grain(tables, style, rng)
    return PersonDetail(
        static=still + grain,
        compressed=(moved / tables.compressible.clamp_min(_LEAST_COMPRESSIBLE) + finer).clamp_min(
            -_DEEPEST_M
        ),
        stretched=-_FLATTENED * still - 0.35 * grain,
        neutral=rest_of(model, identity).shape,
    )


def picture_displacement(model: MorphableModel, detail: PersonDetail, vertices: Tensor) -> Tensor:
    """Displacement of one picture, D = D_sta + M+ D_com + M- D_str.

    Args:
        model: Face model.
        detail: From `person_detail`.
        vertices: [V, 3] of the same person with expression and pose, metres.

    Returns:
        [S, S] metres, positive outward.
    """
    space = wrinkle_tables(model, detail.static.shape[-1]).space
    masks = tension_maps(vertex_tension(vertices, detail.neutral, model.cells, smooth_steps=1), space)
    maps = combine_detail(detail.static[None], detail.compressed[None], detail.stretched[None], masks)
    return maps[0]
