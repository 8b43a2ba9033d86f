# SPDX-License-Identifier: Apache-2.0
"""Makes docs/images/viewer_server.webp: the interactive viewer with a person who does not exist, in Chromium.

Needs Chromium and the packages playwright and viser.
"""

from __future__ import annotations

import argparse
import io
import shutil
from pathlib import Path
from typing import Any

from PIL import Image

import hiface
from hiface.app.server import ViewerServer
from hiface.app.viewer_faces import ViewedFace, face_of_result
from hiface.synthetic.generator import Style, generate_picture

ARGUMENTS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
EFFECTS = frozenset({"hair", "skin", "wrinkles", "lashes", "lamps", "background"})
SEED = 42
STILL_MS = 1500


def person() -> ViewedFace:
    """Reconstructed from a synthetic portrait."""
    sample = generate_picture(hiface.load_model("open"), SEED, Style(768, EFFECTS))
    photo = sample.image_srgb.permute(1, 2, 0).contiguous().numpy()
    (face,) = hiface.Reconstructor(device="cpu").reconstruct(photo)
    return face_of_result(face, "synthetic person")


def shot(page: Any, whole: bool = False) -> Image.Image:
    """What the page shows; without `whole` the middle of the head's part."""
    page.mouse.move(400, 740)
    page.wait_for_timeout(STILL_MS)
    box = page.locator("canvas").first.bounding_box()
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    if whole:
        return picture
    left = int(box["width"] - box["height"] * 0.62) // 2
    return picture.crop((left, 0, int(box["width"]) - left, int(box["height"])))


def pictures(page: Any, viewer: ViewerServer) -> list[Image.Image]:
    """The page, then its head as clay, over the photo, and as normals with wires."""
    page.get_by_role("button", name="laugh").click()
    found = [shot(page, whole=True)]
    viewer.state.show(shading="clay")
    page.get_by_role("button", name="disgust").click()
    found.append(shot(page))
    viewer.state.show(shading="textured")
    viewer.state.photo_expression()
    viewer.face.handles["over_photo"].value = True
    found.append(shot(page))
    viewer.face.handles["over_photo"].value = False
    viewer.state.show(shading="normals", wires=True)
    page.get_by_role("button", name="surprise").click()
    return [*found, shot(page)]


def main() -> None:
    """Draws the picture."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/images/viewer_server.webp"))
    args = parser.parse_args()
    with ViewerServer([person()], port=0) as viewer, sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=shutil.which("chromium"), args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1200, "height": 760})
        page.goto(viewer.url)
        page.wait_for_timeout(STILL_MS)
        notice = page.locator(".mantine-Notification-closeButton")
        if notice.count():  # of a browser without a graphics processor
            notice.first.click()
        first, *rest = pictures(page, viewer)
        browser.close()
    height = first.height // len(rest)
    side = [p.resize((round(p.width * height / p.height), height), Image.Resampling.LANCZOS) for p in rest]
    sheet = Image.new("RGB", (first.width + side[0].width, first.height))
    sheet.paste(first, (0, 0))
    for i, picture in enumerate(side):
        sheet.paste(picture, (first.width, i * height))
    sheet.save(args.out, quality=82, method=6)


if __name__ == "__main__":
    main()
