"""Small data in the layouts of REALY, NoW and 300-W, with the truth known."""

import json

import numpy as np
import torch
from PIL import Image

import hiface
from hiface.evaluation.method import Prediction
from hiface.geometry.mesh_files import obj_text
from scans import UNIT_M, shape, subject

PICTURE = (64, 48)


class Known:
    """A method that gives back known shapes: the number of the person is the colour of the picture."""

    name, licence, description = "known", "none", "truth with a known change"

    def __init__(self, change=lambda vertices: vertices):
        self.change, self.calls, self.loads = change, 0, 0

    def load(self):
        self.loads += 1

    def reconstruct(self, photo):
        self.calls += 1
        number = int(photo.image_srgb[0, 0, 0])
        if number == 0:
            return []
        model = hiface.load_model()
        vertices = self.change(shape(number))
        names = [name for name in ("ibug68", "now7", "realy85") if name in model.data.landmark_sets]
        sets = {name: model.data.landmark_sets[name] for name in names}
        points = torch.full((68, 2), 10.0) + torch.arange(68)[:, None] * torch.tensor([0.3, 0.2])
        box = torch.tensor([5.0, 5.0, 40.0, 40.0])
        return [Prediction(box, points, vertices, vertices, model.triangles, sets, "open", True)]


def picture(path, number):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", PICTURE, (number, 90, 90)).save(path)


def write_realy(root, people=(1, 2)):
    """REALY's folders and a folder of pictures; returns both."""
    data, images = root / "realy", root / "images"
    for number in people:
        truth = subject(shape(number), name=str(number))
        keypoints = data / "REALY_HIFI3D_keypoints" / f"{number}.obj"
        keypoints.parent.mkdir(parents=True, exist_ok=True)
        keypoints.write_text(obj_text(truth.keypoints))
        for region, mesh in truth.regions.items():
            path = data / "REALY_scan_region" / str(number) / f"{region}.obj"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(obj_text(mesh.vertices, mesh.triangles))
        picture(images / f"{number}.png", number)
    np.savetxt(data / "metrical_scale.txt", np.full(max(people), 1e3 * UNIT_M))
    return data, images


def write_now(root, people=(1, 2)):
    """NoW's folders."""
    data, model, lines = root / "now", hiface.load_model(), []
    for number in people:
        vertices = 1e3 * shape(number)
        scan = data / "scans" / f"P{number}" / "scan.obj"
        scan.parent.mkdir(parents=True, exist_ok=True)
        scan.write_text(obj_text(vertices, model.triangles))
        rows = [
            f' <point x="{x:.5f}" y="{y:.5f}" z="{z:.5f}" name="{i}" active="1"/>'
            for i, (x, y, z) in enumerate(model.landmarks("now7", vertices).tolist())
        ]
        picked = data / "scans_lmks_onlypp" / f"P{number}" / "scan_picked_points.pp"
        picked.parent.mkdir(parents=True, exist_ok=True)
        head = '<!DOCTYPE PickedPoints>\n<PickedPoints>\n <DocumentData>\n  <DateTime date="2018-01-01"/>\n'
        picked.write_text(head + " </DocumentData>\n" + "\n".join(rows) + "\n</PickedPoints>\n")
        for challenge in ("multiview_neutral", "selfie"):
            line = f"P{number}/{challenge}/IMG_{number}.png"
            lines.append(line)
            picture(data / "final_release_version" / "iphone_pictures" / line, number)
    (data / "imagepathsvalidation.txt").write_text("".join(f"iphone_pictures/{line}\n" for line in lines))
    return data


def write_pts(root, points, number=1):
    """A picture with its .pts file, counted from 1 as in 300-W."""
    picture(root / "afw" / "a.png", number)
    rows = "\n".join(f"{x + 0.5:.3f} {y + 0.5:.3f}" for x, y in points)
    (root / "afw" / "a.pts").write_text(f"version: 1\nn_points: 68\n{{\n{rows}\n}}\n")
    return root


def write_reference(root, faces, other=(), number=1):
    """A picture with its entry in reference.json."""
    picture(root / "b.png", number)
    entry = {"file": "b.png", "faces": faces, "other_faces": list(other)}
    (root / "reference.json").write_text(json.dumps([entry]))
    return root
