# SPDX-License-Identifier: Apache-2.0
"""This library's own reconstruction, in its three variants."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

from torch import Tensor

from hiface.data import Photo
from hiface.errors import OptionError
from hiface.evaluation.method import Prediction
from hiface.methods.shared import model_licence, model_prediction
from hiface.reconstructor import Reconstructor
from hiface.result import FaceResult

Variant = Literal["hiface", "hiface-refine", "hiface-fit"]
VARIANTS = get_args(Variant)
_DESCRIPTIONS = {
    "hiface": "one pass of the network, pose and expression moved to the landmarks",
    "hiface-refine": "the network's answer, then inverse rendering and detail from shading",
    "hiface-fit": "inverse rendering from landmarks and pixels, without the network",
}


class HifaceMethod:
    """`hiface.Reconstructor` as a method.

    Args:
        name: "hiface" (network and alignment), "hiface-refine" (then inverse rendering) or "hiface-fit"
            (inverse rendering alone).
        weights: Weights of the network; the packaged ones if None. Not for "hiface-fit".
        device: Device of the network; None takes CUDA if there is one.
        face_model: "open" or the path of another project's model; only for "hiface-fit".

    Raises:
        OptionError: Unknown variant, weights for a variant without network, or a model that the network does
            not know.
    """

    def __init__(
        self,
        name: Variant = "hiface",
        weights: Path | None = None,
        device: str | None = None,
        face_model: str | Path = "open",
    ) -> None:
        if name not in VARIANTS:
            raise OptionError(f"unknown variant {name!r}; choose one of {', '.join(VARIANTS)}")
        if name == "hiface-fit" and weights is not None:
            raise OptionError("hiface-fit runs no network of coefficients; leave the weights out")
        if name != "hiface-fit" and face_model != "open":
            raise OptionError(f"{name} knows the open model only; use hiface-fit with {face_model}")
        self.name: str = name
        self.description = _DESCRIPTIONS[name]
        self.licence = f"Apache-2.0; {model_licence(face_model)}; weights trained on synthetic people"
        self._weights, self._device, self._face_model = weights, device, face_model
        self._reconstructor: Reconstructor | None = None

    def load(self) -> None:
        """Reads model and networks.

        Raises:
            AssetError: Weights are missing or of another face model.
            OptionError: There is no such device.
        """
        if self._reconstructor is None:
            self._reconstructor = Reconstructor(
                "fit" if self.name == "hiface-fit" else "hiface",
                face_model=self._face_model,
                device=self._device,
                weights=self._weights,
                refine=self.name == "hiface-refine",
            )

    def reconstruct(self, photo: Photo) -> list[Prediction]:
        """Faces of one photo, the most certain first.

        Raises:
            FitError: The fit of a face diverged.
        """
        self.load()
        assert self._reconstructor is not None
        faces = self._reconstructor.reconstruct(photo)
        return [_prediction(face) for face in sorted(faces, key=lambda face: -face.score)]


def _prediction(face: FaceResult) -> Prediction:
    if not face.has_detail:
        return model_prediction(face.model, face.params, face.box)

    def reexpress(expression: Tensor) -> Tensor:
        return face.with_params(face.params.replace(expression=expression)).displacement()

    found = model_prediction(face.model, face.params, face.box, face.displacement())
    return replace(found, reexpress=reexpress)
