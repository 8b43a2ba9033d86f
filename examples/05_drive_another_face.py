# SPDX-License-Identifier: Apache-2.0
"""Recorded curves onto the face of a photo, and onto any GLB file with ARKit's names.

python examples/05_drive_another_face.py portrait.jpg blendshapes.csv out [other.glb]
"""

import sys
from pathlib import Path

import torch

import hiface
from hiface.animation.calibration import calibrate
from hiface.animation.motion_files import read_motion
from hiface.animation.onto_glb import animate_glb
from hiface.animation.retarget import drive
from hiface.export.clips import Clip
from hiface.export.morphs import morph_weights
from hiface.saving import save_animation

photo, curves, out = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
out.mkdir(parents=True, exist_ok=True)

motion = read_motion(curves)  # Live Link Face's CSV, hiface's CSV or JSON
motion = calibrate(motion, neutral_frames=[0]).applied(motion)  # the first frame counts as at rest

face = hiface.Reconstructor().reconstruct(photo)[0]
frames = drive(face.model, face.params, motion, with_pose=False)
weights = torch.stack([morph_weights(face.model, p.expression, p.pose) for p in frames])
clip = Clip("driven", motion.times.double().numpy(), weights.numpy())
save_animation(face.neutral(), out / "driven.glb", clip)

if len(sys.argv) > 4:  # somebody else's character
    other = Path(sys.argv[4])
    (out / other.name).write_bytes(animate_glb(other.read_bytes(), motion))
print(f"{len(motion)} frames in {out}")
