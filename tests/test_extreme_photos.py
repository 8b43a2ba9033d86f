# SPDX-License-Identifier: Apache-2.0
"""Photos that say nothing or too much: every answer is finite, or an error that names itself."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import hiface
from hiface.data import Photo
from hiface.errors import NoFaceError
from hiface.synthetic.studio import render_person
from portrait import portrait, truth


def pictures():
    """Pictures of the portrait's size that hold nothing that can be fitted."""
    like = portrait()
    flat = np.zeros_like(like)
    return {
        "black": flat,
        "white": flat + 255,
        "grey": flat + 128,
        "green": flat + np.array([0, 255, 0], dtype=np.uint8),
        "noise": np.random.default_rng(0).integers(0, 256, like.shape, dtype=np.uint8),
        "burnt": np.where(like > 90, 255, 0).astype(np.uint8),
    }


@pytest.fixture(scope="module")
def reconstructors():
    return {
        "fit": hiface.Reconstructor("fit"),
        "refined": hiface.Reconstructor(device="cpu", refine=True),
    }


@pytest.fixture(scope="module")
def detection(reconstructors):
    return reconstructors["fit"].detector.detect(portrait())[0]


@pytest.mark.parametrize("name", pictures())
@pytest.mark.parametrize("method", ["fit", "refined"])
def test_a_face_that_the_picture_does_not_show(reconstructors, detection, method, name):
    """Landmarks are believed, colours are nonsense: as behind glass, in the dark, in a searchlight."""
    reconstructor, picture = reconstructors[method], pictures()[name]
    if method == "fit":
        face = reconstructor.fit(Photo(picture), detection)
    else:
        start = reconstructor.read(Photo(picture), [detection])[0]
        face = reconstructor.refined(start)
    p = face.params
    for value in (p.identity, p.expression, p.albedo, p.light, p.camera.K, p.camera.T_cam_object):
        assert bool(value.isfinite().all())
    assert float((face.landmarks() - torch.as_tensor(detection.landmarks68_px)).norm(dim=1).mean()) < 30
    texture = face.texture(256)
    assert bool(texture.isfinite().all()) and 0 <= float(texture.min()) and float(texture.max()) <= 1
    assert bool(face.displacement().isfinite().all()) and float(face.displacement().abs().max()) < 3e-3
    evidence = face.evidence
    assert bool(evidence.confidence.isfinite().all()) and 0 <= float(evidence.confidence.min())
    relit = face.relight("left")
    assert relit.shape == picture.shape
    assert np.asarray(face.picture(64, yaw=30.0)).std() > 1


@pytest.mark.parametrize("name", ["black", "white", "grey", "noise"])
def test_pictures_without_a_face(reconstructors, name):
    picture = pictures()[name]
    for reconstructor in reconstructors.values():
        assert reconstructor.reconstruct(picture) == []
        with pytest.raises(NoFaceError):
            reconstructor.reconstruct_person([picture, picture])


@pytest.mark.parametrize("yaw, hidden", [(1.2, "left"), (-1.4, "right")])
def test_profiles_say_which_half_is_inferred(reconstructors, tmp_path, yaw, hidden):
    model = hiface.load_model("open")
    behind = torch.full((3, 512, 512), 0.2)
    picture = render_person(model, truth(yaw), 512, background=behind).permute(1, 2, 0).contiguous().numpy()
    (face,) = reconstructors["refined"].reconstruct(picture)
    face.save(tmp_path / "face.json")
    provenance = json.loads((tmp_path / "face.json").read_text())["provenance"]
    assert face.evidence.inferred_half == provenance["inferred_half"] == hidden
    assert provenance["seen"][hidden] < 0.1
    seen = face.texture_seen(256).float()
    half = {"right": seen[:, :128].mean(), "left": seen[:, 128:].mean()}
    assert float(half[hidden]) < 0.3 * float(half["left" if hidden == "right" else "right"])
