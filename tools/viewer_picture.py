# SPDX-License-Identifier: Apache-2.0
"""Makes docs/images/viewer.webp: the viewer page of the NASA portrait shipped with scikit-image, in Chromium.

Needs Chromium and the package playwright.
"""

from __future__ import annotations

import argparse
import io
import shutil
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from skimage import data

import hiface
from hiface.app import write_viewer_page
from hiface.app.results import find_results
from hiface.saving import save_person

ARGUMENTS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
STILL_MS = 1500  # drafts of a browser without a graphics processor are over


def reconstructed(folder: Path) -> Path:
    """Writes the result and its page as the command does; returns the page."""
    photo = folder / "astronaut.png"
    Image.fromarray(data.astronaut()).save(photo)
    (face,) = hiface.Reconstructor(device="cpu").reconstruct(photo)
    person = folder / "astronaut" / "person1"
    person.mkdir(parents=True)
    save_person(face, person, ("glb", "json", "maps"))
    write_viewer_page(person / "face.html", find_results(person)[0])
    return person / "face.html"


def shot(page: Any, clip: bool = True) -> Image.Image:
    """What the page shows; with `clip` the head alone."""
    page.wait_for_timeout(STILL_MS)
    target = page.locator("#stage") if clip else page
    return Image.open(io.BytesIO(target.screenshot())).convert("RGB")


def pictures(page: Any) -> list[Image.Image]:
    """The page, then its head as it smiles, over the photo, with wires and as normals."""
    page.get_by_role("button", name="laugh").click()
    found = [shot(page, clip=False)]
    page.check("#backdrop")
    found.append(shot(page))
    page.uncheck("#backdrop")
    page.get_by_role("button", name="surprise").click()
    page.check("#wires")
    page.check("input[value=clay]")
    found.append(shot(page))
    page.uncheck("#wires")
    page.check("input[value=normals]")
    page.get_by_role("button", name="wink").click()
    return [*found, shot(page)]


def main() -> None:
    """Draws the picture."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/images/viewer.webp"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as tools:
        address = reconstructed(Path(folder)).as_uri()
        browser = tools.chromium.launch(executable_path=shutil.which("chromium"), args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1180, "height": 760})
        page.goto(address)
        page.evaluate("window.hifaceViewer.then(Boolean)")
        first, *rest = pictures(page)
        browser.close()
    height = first.height // len(rest)
    side = [p.crop((125, 0, p.width - 125, p.height)) for p in rest]
    side = [p.resize((round(p.width * height / p.height), height), Image.Resampling.LANCZOS) for p in side]
    sheet = Image.new("RGB", (first.width + side[0].width, first.height))
    sheet.paste(first, (0, 0))
    for i, picture in enumerate(side):
        sheet.paste(picture, (first.width, i * height))
    sheet.save(args.out, quality=82, method=6)


if __name__ == "__main__":
    main()
