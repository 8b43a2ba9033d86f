# SPDX-License-Identifier: Apache-2.0
"""Fits a face model of your own: FLAME, BFM, ICT, FaceScape, or one in hiface's file format.

    python examples/08_own_face_model.py portrait.jpg out [generic_model.pkl]

Without a model file the open model is written as one and read back, to show the format.
"""

import sys
from pathlib import Path

import hiface
from hiface.morphable.readers import read_model, write_model

photo, out = Path(sys.argv[1]), Path(sys.argv[2])
out.mkdir(parents=True, exist_ok=True)
path = Path(sys.argv[3]) if len(sys.argv) > 3 else out / "model.safetensors"
if len(sys.argv) < 4:
    write_model(hiface.load_model().data, path)

data = read_model(path)
print(f"{data.name}: {len(data.template)} vertices, {data.n_identity} identity axes, licence: {data.licence}")

faces = hiface.Reconstructor("fit", face_model=path).reconstruct(photo)  # by landmarks and pixels
for number, face in enumerate(faces, start=1):
    face.save(out / f"own_model{number}.glb")
    print(f"face {number} of {len(face.mesh.vertices)} vertices in own_model{number}.glb")
