# SPDX-License-Identifier: Apache-2.0
"""Draws the landmark sets on the mean head: ``python tools/draw_landmarks.py --out docs/images``."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from hiface.morphable import MorphableModelData, load_model
from hiface.morphable.contour import gather_contour, select_contour
from hiface.render import render, sh_basis
from hiface.types import Camera, FaceMesh

DISTANCE = 1.0
PANEL = 440
HIDDEN_DEPTH = 0.004
SKIN = (0.50, 0.42, 0.37)
DOT = (20, 160, 60)
CHOSEN = (220, 40, 40)
REGION_COLOURS = {
    "forehead": (0.10, 0.40, 0.12),
    "cheek": (0.55, 0.45, 0.08),
    "nose": (0.60, 0.08, 0.06),
    "mouth": (0.08, 0.14, 0.55),
}


@dataclass(frozen=True)
class View:
    """Where one panel looks from.

    Attributes:
        yaw: degrees, positive turns the head to its own left.
        centre: looked-at point in object space, metres.
        width: width of the panel at the centre, metres.
        pitch: degrees, positive looks down.
    """

    yaw: float
    centre: tuple[float, float, float] = (0.0, -0.028, -0.02)
    width: float = 0.215
    pitch: float = 0.0

    def camera(self) -> Camera:
        """The panel's camera."""
        yaw, pitch = math.radians(self.yaw), math.radians(self.pitch)
        turn = torch.tensor(
            [[math.cos(yaw), 0, math.sin(yaw)], [0, 1, 0], [-math.sin(yaw), 0, math.cos(yaw)]]
        )
        nod = torch.tensor(
            [[1, 0, 0], [0, math.cos(pitch), -math.sin(pitch)], [0, math.sin(pitch), math.cos(pitch)]]
        )
        rotation = torch.diag(torch.tensor([1.0, -1.0, -1.0])) @ nod @ turn
        transform = torch.eye(4)
        transform[:3, :3] = rotation
        transform[:3, 3] = torch.tensor([0.0, 0.0, DISTANCE]) - rotation @ torch.tensor(self.centre)
        focal = DISTANCE * PANEL / self.width
        K = torch.tensor([[focal, 0, PANEL / 2], [0, focal, PANEL / 2], [0, 0, 1]])
        return Camera(K, transform, PANEL, PANEL)


def lamp() -> Tensor:
    """Soft light from the upper left of the picture, ``[9, 3]``."""
    directions = torch.nn.functional.normalize(
        torch.randn(4000, 3, generator=torch.Generator().manual_seed(0)), dim=-1
    )
    towards = torch.nn.functional.normalize(torch.tensor([-0.35, -0.55, -0.9]), dim=0)
    level = 0.35 + 0.9 * (directions @ towards).clamp_min(0.0)
    return torch.linalg.lstsq(sh_basis(directions), level[:, None]).solution.expand(9, 3)


def panel(data: MorphableModelData, view: View, colours: Tensor | None = None) -> tuple[Image.Image, Tensor]:
    """Renders the mean head.

    Args:
        data: the model.
        view: where from.
        colours: ``[V, 3]`` linear colour of each vertex; one skin colour if None.

    Returns:
        The picture and ``[H, W]`` depth in metres (inf where there is nothing).
    """
    mesh = FaceMesh(data.template, data.triangles, data.uv, data.uv_triangles)
    texture = torch.tensor(SKIN)[:, None, None].expand(3, 4, 4)
    out = render(mesh, view.camera(), texture, lamp(), background=torch.ones(3, 1, 1))
    image = out.image
    if colours is not None:
        corners = colours[data.triangles].mean(dim=1)
        ids = out.triangle_id.long()
        flat = corners[ids.clamp_min(0)].movedim(-1, 0)
        image = torch.where(ids >= 0, flat * out.shading, 1.0)
    srgb = image.clamp(0.0, 1.0) ** (1 / 2.2)
    picture = Image.fromarray((srgb.movedim(0, -1) * 255).round().byte().numpy())
    return picture, torch.where(out.mask[0], out.depth[0], torch.inf)


def mark(picture: Image.Image, depth: Tensor, points_cam: Tensor, camera: Camera, style: dict) -> None:
    """Draws the visible ones of some camera-space points ``[N, 3]``; ``style``: radius, colour, labels."""
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(style.get("font", 10))
    r = style.get("radius", 2)
    for i, ((x, y), z) in enumerate(
        zip(camera.cam_to_px(points_cam).tolist(), points_cam[:, 2].tolist(), strict=True)
    ):
        inside = 0 <= x < PANEL and 0 <= y < PANEL
        if not inside or z > float(depth[int(y), int(x)]) + HIDDEN_DEPTH:
            continue
        draw.ellipse([x - r, y - r, x + r, y + r], fill=style.get("colour", DOT))
        if style.get("labels"):
            draw.text((x + r + 1, y - 6), str(style["labels"][i]), fill=(10, 10, 60), font=font)


def points_sheet(data: MorphableModelData, name: str, views: list[View], style: dict) -> Image.Image:
    """One set seen from several sides."""
    sheet = Image.new("RGB", (PANEL * len(views), PANEL), "white")
    points = data.landmark_sets[name].positions(data.template, data.triangles)
    for k, view in enumerate(views):
        picture, depth = panel(data, view)
        camera = view.camera()
        mark(picture, depth, camera.to_cam(points), camera, style)
        sheet.paste(picture, (PANEL * k, 0))
    return sheet


def contour_sheet(data: MorphableModelData, views: list[View]) -> Image.Image:
    """Candidates of the jaw contour and the chosen ones, from several sides."""
    if data.contour is None:
        raise ValueError(f"model {data.name!r} has no contour")
    sheet = Image.new("RGB", (PANEL * len(views), PANEL), "white")
    candidates = data.contour.positions(data.template, data.triangles)
    for k, view in enumerate(views):
        picture, depth = panel(data, view)
        camera = view.camera()
        cam = camera.to_cam(candidates.reshape(-1, 3)).reshape(candidates.shape)
        chosen = gather_contour(cam, select_contour(cam, data.contour.valid))
        mark(picture, depth, cam.reshape(-1, 3), camera, {"radius": 1})
        mark(picture, depth, chosen, camera, {"radius": 3, "colour": CHOSEN, "labels": list(range(17))})
        sheet.paste(picture, (PANEL * k, 0))
    return sheet


def mask_sheet(data: MorphableModelData, views: list[View]) -> Image.Image:
    """The four regions of the face, from several sides."""
    colours = torch.tensor(SKIN).repeat(data.n_vertices, 1)
    for name, colour in REGION_COLOURS.items():
        colours[data.vertex_masks[name]] = torch.tensor(colour)
    sheet = Image.new("RGB", (PANEL * len(views), PANEL), "white")
    for k, view in enumerate(views):
        sheet.paste(panel(data, view, colours)[0], (PANEL * k, 0))
    return sheet


def save(sheet: Image.Image, path: Path) -> None:
    """Writes a small palette PNG."""
    sheet.quantize(128, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(path, optimize=True)


def main() -> None:
    """Draws all pictures of docs/landmarks.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    data = load_model("open").data
    head = [View(0.0), View(-40.0)]
    eyes = [View(0.0, (-0.031, -0.002, 0.015), 0.05), View(0.0, (0.031, -0.002, 0.015), 0.05)]
    mouth = [View(0.0, (0.0, -0.06, 0.03), 0.085), View(-40.0, (0.0, -0.06, 0.03), 0.085)]
    numbers = {"labels": list(range(68))}
    save(points_sheet(data, "ibug68", head, numbers), out / "landmarks_ibug68.png")
    detail = {"labels": list(range(68)), "radius": 3, "font": 12}
    save(points_sheet(data, "ibug68", [eyes[0], mouth[0]], detail), out / "landmarks_ibug68_close.png")
    save(
        points_sheet(data, "now7", [View(0.0)], {"radius": 4, "labels": list(range(7)), "font": 14}),
        out / "landmarks_now7.png",
    )
    extra = {"labels": ["" if i < 68 else i for i in range(85)], "radius": 3, "font": 14}
    save(points_sheet(data, "realy85", head, extra), out / "landmarks_realy85.png")
    save(points_sheet(data, "dense", head, {}), out / "landmarks_dense.png")
    save(
        points_sheet(data, "iris", eyes, {"radius": 4, "labels": list(range(10)), "font": 14}),
        out / "landmarks_iris.png",
    )
    save(
        contour_sheet(data, [View(0.0), View(-40.0), View(20.0, pitch=-20.0)]), out / "landmarks_contour.png"
    )
    if set(REGION_COLOURS) <= set(data.vertex_masks):
        save(mask_sheet(data, head), out / "masks_face.png")


if __name__ == "__main__":
    main()
