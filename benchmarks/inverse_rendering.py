# SPDX-License-Identifier: Apache-2.0
"""Inverse rendering of people who do not exist: `python benchmarks/inverse_rendering.py [--photos DIR]`.

Portraits of hold-out people at 512 pixels, the face at least 45 % of the side, turned by 40 degrees at most,
in two rows: "bare" without hair, glasses, hats and things in front of the face, "all" with all effects of the
generator; wrinkles, marks, lamps with shadows and camera effects are in both. Compared at the pixels that
show the face's skin both in truth and in the fit, in axes turned so that the head lies straight ahead (how a
photo was cut cannot be known): normals of the coarse and of the detailed surface, displacement, albedo;
further the region error (`hiface.evaluation.regions`) of one and of three photos, the direction of the light
(first band), and times of each stage. With photos: what is left of the skin's brightness that coarse and
detailed faces do not explain.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import roma
import torch
import torch.nn.functional as F
from rich.progress import track
from torch import Tensor

from hiface.colour import LUMINANCE, linear_to_srgb, srgb_to_linear
from hiface.detail.basis import load_detail_basis
from hiface.detail.sd_detail import detailed_normals
from hiface.evaluation.regions import PROTOCOLS, ratio_to_mean
from hiface.export.relight import relit_photo
from hiface.fitting.fine_shading import read_fine_shading
from hiface.fitting.relief import fit_relief, skin_places
from hiface.morphable import MorphableModel
from hiface.reconstructor import Reconstructor
from hiface.render.interpolate import interpolate_surface, to_images
from hiface.render.pyramid import resize
from hiface.render.rasterize import fragments, rasterize
from hiface.render.texels import head_region
from hiface.render.texture import sample_texture
from hiface.result import FaceResult
from hiface.synthetic.datasets import HOLDOUT_SEED, SEED_STRIDE
from hiface.synthetic.effects import parse_effects
from hiface.synthetic.generator import PICTURES_PER_PERSON, Style, SyntheticSample, take_picture
from hiface.synthetic.shots import draw_shot, sitter_of
from hiface.types import Camera, FaceParams

SIZE_PX, VIEWS, LEAST_SHARE, MAX_YAW_DEG = 512, 3, 0.45, 40.0
ROWS = {"bare": "all,-hair,-glasses,-hats,-occluders", "all": "all"}
FIRST_PERSON = (HOLDOUT_SEED + 5) * (SEED_STRIDE // PICTURES_PER_PERSON)
EDGE_PX = 3  # pixels this near to something else are not compared


@dataclass(frozen=True)
class Portrait:
    """A picture with its truth.

    Attributes:
        sample: The picture.
        texture: [3, h, w] linear, true albedo.
        elsewhere: The same picture in another light.
    """

    sample: SyntheticSample
    texture: Tensor
    elsewhere: SyntheticSample


def portraits(model: MorphableModel, people: int, effects: frozenset[str]) -> list[list[Portrait]]:
    """`VIEWS` portraits of each person."""
    out, number = [], FIRST_PERSON
    style = Style(SIZE_PX, effects, frozenset({"basic", "displacement"}))
    while len(out) < people:
        sitter, views = sitter_of(model, number, effects), []
        for view in range(200):
            rng = np.random.default_rng([number, 31, view])
            shot = draw_shot(model, sitter, rng, SIZE_PX, effects)
            forward = shot.picture.T_cam_head[:3, 2]
            yaw = float(torch.rad2deg(torch.acos((-forward[2]).clamp(-1, 1))))
            if shot.view.box_share < LEAST_SHARE or yaw > MAX_YAW_DEG:
                continue
            same = copy.deepcopy(rng)
            sample = take_picture(model, shot, rng, style, number).sample
            inside = bool((sample.box[:2] > 0).all() and (sample.box[2:] < SIZE_PX).all())
            if inside and float(sample.visible68.float().mean()) > 0.6:
                other = draw_shot(model, sitter, np.random.default_rng([number, 32, view]), SIZE_PX, effects)
                params = shot.picture.params.replace(light=other.picture.params.light)
                picture = replace(shot.picture, params=params, lights=other.picture.lights)
                lit = replace(shot, picture=picture)
                elsewhere = take_picture(model, lit, same, style, number).sample
                views.append(Portrait(sample, sitter.texture, elsewhere))
            if len(views) == VIEWS:
                out.append(views)
                break
        number += 1
    return out


def ahead(camera: Camera) -> Tensor:
    """[3, 3] rotation of camera axes that brings the head straight ahead."""
    ray = F.normalize(camera.t, dim=0)
    axis = torch.linalg.cross(ray, torch.tensor([0.0, 0.0, 1.0]))
    angle = torch.atan2(axis.norm(), ray[2])
    return roma.rotvec_to_rotmat(F.normalize(axis, dim=0) * angle)


@dataclass(frozen=True)
class SkinPixels:
    """What a face shows at the pixels of its picture.

    Attributes:
        uv: [H, W, 2] texture coordinates.
        skin: [H, W] bool, where the skin of the face is.
        normals: [3, S, S] of the detailed surface, head-ahead axes.
    """

    uv: Tensor
    skin: Tensor
    normals: Tensor

    def at(self, maps: Tensor, mask: Tensor) -> Tensor:
        """[P, C] values of maps [C, S, S] at pixels."""
        return sample_texture(maps, self.uv[mask])


def skin_pixels(model: MorphableModel, params: FaceParams, displacement: Tensor) -> SkinPixels:
    """Rasterizes a face."""
    camera, verts_cam = params.camera, model.vertices_cam(params)
    flat = torch.cat([camera.cam_to_px(verts_cam), verts_cam[:, 2:]], dim=1)
    ids = rasterize(flat, model.triangles, camera.height, camera.width)
    frags = fragments(ids[None])
    rows = interpolate_surface(
        flat[None], flat[None, :, :0], model.uv[model.uv_triangles], model.triangles, frags
    )
    uv = to_images(rows[1:3], frags)[0].movedim(0, -1)
    face = (model.data.vertex_masks["face"] & model.data.vertex_masks["skin"])[model.triangles].all(1)
    face &= model.data.triangle_parts == model.data.part_names.index("skin")
    shape = model.vertices(params.identity, params.expression, params.pose)
    bent = detailed_normals(model, shape, displacement)
    turn = ahead(camera) @ camera.R
    skin = (ids >= 0) & face[ids.clamp_min(0).long()]
    return SkinPixels(uv, skin, torch.einsum("ij,jhw->ihw", turn, bent))


def correlation(a: Tensor, b: Tensor) -> float:
    """Pearson correlation, 0 for a constant."""
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / (a.norm() * b.norm()).clamp_min(1e-12))


def degrees(a: Tensor, b: Tensor) -> float:
    """Mean angle of unit vectors [P, 3]."""
    a, b = F.normalize(a, dim=1), F.normalize(b, dim=1)
    return float(torch.rad2deg(torch.acos((a * b).sum(1).clamp(-1, 1))).mean())


def light_direction(params: FaceParams) -> Tensor:
    """Unit vector towards the light, head-ahead axes."""
    first = (params.light @ torch.tensor(LUMINANCE))[[3, 1, 2]]
    return F.normalize(ahead(params.camera) @ first, dim=0)


def relighting(face: FaceResult, portrait: Portrait, mask: Tensor) -> dict[str, float]:
    """How near the photo comes to the one in another light, sRGB on skin; each channel's level matched."""
    image = portrait.sample.image_srgb.permute(1, 2, 0).contiguous().numpy()
    relit = relit_photo(face.model, face.fitted, image, portrait.elsewhere.params.light, face.displacement())
    true = srgb_to_linear(portrait.elsewhere.image_srgb[:, mask] / 255.0)

    def off(picture: np.ndarray) -> float:
        seen = srgb_to_linear(torch.from_numpy(picture).permute(2, 0, 1)[:, mask] / 255.0)
        gain = (seen * true).sum(1) / seen.square().sum(1).clamp_min(1e-6)
        return float((linear_to_srgb(seen * gain[:, None]) - linear_to_srgb(true)).square().mean().sqrt())

    return {"new light, photo as it is": off(image), "new light, relit": off(relit)}


def scores(model: MorphableModel, face: FaceResult, portrait: Portrait) -> dict[str, float]:
    """Comparison of one reconstruction with its truth."""
    sample, fitted = portrait.sample, face.fitted
    true_relief = sample.maps["displacement"][None]
    relief = resize(face.with_params(fitted).displacement(), true_relief.shape[-1])
    truth = skin_pixels(model, sample.params, true_relief)
    coarse = skin_pixels(model, fitted, torch.zeros_like(relief))
    fine = skin_pixels(model, fitted, relief)
    mask = truth.skin & coarse.skin & (sample.segmentation == 1)
    mask = F.max_pool2d((~mask).float()[None, None], 2 * EDGE_PX + 1, 1, EDGE_PX)[0, 0] == 0
    basis = load_detail_basis()
    usual = basis.scatter(basis.static.mean[None])[0]
    found, known = coarse.at(relief, mask)[:, 0], truth.at(true_relief, mask)[:, 0]
    mean = truth.at(usual, mask)[:, 0]
    normals = truth.at(truth.normals, mask)
    albedo = truth.at(linear_to_srgb(portrait.texture), mask)

    def colour(srgb: Tensor) -> tuple[float, float]:
        off = srgb - albedo
        return float(off.square().mean().sqrt()), float((off - off.mean(0)).square().mean().sqrt())

    nobody = torch.zeros_like(fitted.albedo)
    model_colour = colour(linear_to_srgb(coarse.at(model.albedo_map(fitted.albedo), mask)))
    mean_colour = colour(linear_to_srgb(coarse.at(model.albedo_map(nobody), mask)))
    photo_colour = colour(coarse.at(face.texture(1024), mask))
    cosine = (light_direction(fitted) @ light_direction(sample.params)).clamp(-1, 1)
    return {
        "normals, coarse, degrees": degrees(coarse.at(coarse.normals, mask), normals),
        "normals, detailed, degrees": degrees(coarse.at(fine.normals, mask), normals),
        "displacement, correlation": correlation(found, known),
        "displacement, correlation of people's mean map": correlation(coarse.at(usual, mask)[:, 0], known),
        "displacement beyond the mean map, correlation": correlation(found - mean, known - mean),
        "displacement beyond the mean map, correlation of none": correlation(-mean, known - mean),
        "displacement, rms um": float((found - known).square().mean().sqrt() * 1e6),
        "displacement, rms um of none": float(known.square().mean().sqrt() * 1e6),
        "albedo, mean of people": mean_colour[0],
        "albedo, coarse": model_colour[0],
        "albedo, texture": photo_colour[0],
        "albedo without tone, mean of people": mean_colour[1],
        "albedo without tone, coarse": model_colour[1],
        "albedo without tone, texture": photo_colour[1],
        "light, degrees": float(torch.rad2deg(torch.acos(cosine))),
        **relighting(face, portrait, mask),
    }


def reconstructed(reconstructor: Reconstructor, sample: SyntheticSample) -> FaceResult | None:
    """The reconstruction of a picture's person, or None if the face is not found."""
    faces = reconstructor.reconstruct(sample.image_srgb.permute(1, 2, 0).contiguous().numpy())
    return next((face for face in faces if _shows(face, sample)), None)


def _shows(face: FaceResult, sample: SyntheticSample) -> bool:
    """Whether a reconstruction is of the picture's person, and not of one on a poster behind."""
    distance = (face.detection.landmarks68_px.mean(0) - sample.landmarks68_px.mean(0)).norm()
    return float(distance) < 0.3 * float((sample.box[2:] - sample.box[:2]).max())


def region_ratios(model: MorphableModel, pairs: list[tuple[Tensor, Tensor]]) -> dict[str, float]:
    """Region error over the mean face's, of identities (fitted, true), by protocol."""
    none = torch.zeros(len(model.data.expression_names))
    fitted, true = (torch.stack([model.shape(pair[k], none) for pair in pairs]) for k in (0, 1))
    return {p: round(ratio_to_mean(model.data, fitted, true, p)["mean"], 4) for p in PROTOCOLS}


def look_at(reconstructor: Reconstructor, people: list[list[Portrait]], name: str) -> dict:
    """All scores of one row."""
    model, rows, shared, one, three = reconstructor.model, [], [], [], []
    for views in track(people, description=name):
        faces = [reconstructed(reconstructor, view.sample) for view in views]
        for view, face in zip(views, faces, strict=True):
            if face is not None:
                rows.append(scores(model, face, view))
                one.append((face.fitted.identity, view.sample.params.identity))
        if all(face is not None for face in faces):
            photos = [view.sample.image_srgb.permute(1, 2, 0).contiguous().numpy() for view in views]
            together = reconstructor.reconstruct_person(photos)
            three.append((together[0].fitted.identity, views[0].sample.params.identity))
            pairs = zip(together, views, strict=True)
            shared += [scores(model, face, view) for face, view in pairs if _shows(face, view.sample)]
    return {
        "pictures": len(rows),
        "region error over the mean face's, one photo": region_ratios(model, one),
        "region error over the mean face's, three photos": region_ratios(model, three),
        "people with three photos": len(three),
        **middle(rows),
        "three photos": middle(shared),
    }


def middle(rows: list[dict[str, float]]) -> dict[str, float]:
    """Means of scores, but the median of the light's error."""
    out = {key: round(statistics.mean(row[key] for row in rows), 4) for key in rows[0]}
    out["light, degrees"] = round(statistics.median(row["light, degrees"] for row in rows), 4)
    return out


def median_ms(run: Callable[[], object], count: int = 7) -> float:
    """Median time of a call, milliseconds."""
    run()
    times = []
    for _ in range(count):
        start = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - start))
    return round(statistics.median(times), 1)


def stage_times(reconstructor: Reconstructor, views: list[Portrait]) -> dict:
    """Milliseconds of the stages, and how they grow with pixels, photos and map size."""
    photos = [view.sample.image_srgb.permute(1, 2, 0).contiguous().numpy() for view in views]
    faces = reconstructor.reconstruct(photos[0])
    face = faces[0]
    region, camera = head_region(face.model, face.fitted, face.photo.image_srgb, 1024)
    seen, linear = face.fitted.replace(camera=camera), srgb_to_linear(region)
    basis, known = load_detail_basis(), face.displacement()

    def fresh(size: int) -> Tensor:
        face._textures.clear()
        return face.texture(size)

    def scaled(factor: float) -> np.ndarray:
        picture = torch.from_numpy(photos[0]).permute(2, 0, 1)[None].float()
        larger = F.interpolate(picture, scale_factor=factor, mode="bicubic", antialias=True)[0]
        return larger.clamp(0, 255).byte().permute(1, 2, 0).contiguous().numpy()

    whole = {}
    for factor in (0.5, 1, 2, 4):
        picture = scaled(factor)
        whole[f"{round(SIZE_PX * factor)} px"] = median_ms(lambda p=picture: reconstructor.reconstruct(p))
    return {
        "stages of one photo": {k: round(1e3 * v, 1) for k, v in face.timings_s.items()},
        "all but the texture, by pixels": whole,
        "texture, by size": {str(s): median_ms(lambda s=s: fresh(s), 3) for s in (512, 1024, 2048)},
        "relief, by map size": {
            str(s): median_ms(lambda s=s: fit_relief(face.model, seen, linear, resize(known, s), basis), 3)
            for s in (256, 512, 1024)
        },
        "photos of one person, by number": {
            str(n): median_ms(lambda n=n: reconstructor.reconstruct_person((photos * 3)[:n]), 1)
            for n in (1, 2, 3, 6)
        },
    }


def photo_residuals(reconstructor: Reconstructor, folder: Path) -> dict[str, dict[str, float]]:
    """What is left of the skin's fine brightness (logarithm), median, before and after detail."""
    out = {}
    for photo in json.loads((folder / "reference.json").read_text(encoding="utf-8")):
        faces = reconstructor.reconstruct(folder / photo["file"])
        if not faces:
            continue
        face, relief = faces[0], faces[0].displacement()
        region, camera = head_region(face.model, face.fitted, face.photo.image_srgb, 1024)
        size, params = relief.shape[-1], face.fitted.replace(camera=camera)
        places, sides = skin_places(face.model, size), (size, 7 * size // 4)
        seen = read_fine_shading(face.model, params, srgb_to_linear(region), places, sides, 16)
        if seen is not None:
            good = seen.weight > 0.5
            left = seen.target - seen.modelled(relief.flatten()[places.texels])[0]
            parts = {"coarse": seen.target, "detail": left}
            out[photo["file"]] = {k: round(float(v[good].abs().median()), 4) for k, v in parts.items()}
    return out


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--people", type=int, default=24)
    parser.add_argument("--photos", type=Path, default=None)
    parser.add_argument("--method", choices=("hiface", "fit"), default="hiface")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=None, help="JSON file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    reconstructor = Reconstructor(options.method, device="cpu", refine=options.method == "hiface")
    results: dict = {"people": options.people, "method": options.method, "threads": options.threads}
    views = None
    with torch.no_grad():
        for name, effects in ROWS.items():
            people = portraits(reconstructor.model, options.people, parse_effects(effects))
            views = views or people[0]
            results[name] = look_at(reconstructor, people, name)
            print(json.dumps({name: results[name]}, indent=1), flush=True)
    assert views is not None
    results["milliseconds"] = stage_times(reconstructor, views)
    if options.photos is not None:
        results["photos"] = photo_residuals(reconstructor, options.photos)
    results["machine"] = platform.processor() or platform.machine()
    print(json.dumps({k: results[k] for k in ("milliseconds", "photos") if k in results}, indent=1))
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
