# SPDX-License-Identifier: Apache-2.0
"""What `Reconstructor.reconstruct` returns for one person in one photo."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hiface.animation.gaze import pose_from_expression
from hiface.colour import srgb_to_linear
from hiface.data import Photo
from hiface.detail.sd_detail import Parts, detailed_normals
from hiface.export.delit import PhotoView
from hiface.export.dense import DenseMesh, dense_mesh
from hiface.export.light_gain import light_gain
from hiface.export.relight import head_camera, head_picture, head_rotation, read_light, relit_photo
from hiface.export.texture import ALBEDO_BLEND, TextureBake, bake_views, photo_view
from hiface.fitting.confidence import VertexEvidence, vertex_evidence
from hiface.morphable import MorphableModel
from hiface.networks.detect import Detection
from hiface.networks.eye_colour import IrisColour, packaged_eye_colour, shared_colour
from hiface.networks.sd_detail import SdDetail
from hiface.render.pyramid import resize
from hiface.render.texels import head_region
from hiface.saving import SaveOptions, save_face
from hiface.types import Camera, FaceMesh, FaceParams

DEFAULT_DETAIL_PX = 256
_EVIDENCE_PX = 512


@dataclass(frozen=True, eq=False)
class FaceResult:
    """One reconstructed face. Tensors carry no batch dimension and live on the CPU.

    Attributes:
        params: Coefficients of this face; `with_expression` and `neutral` return copies with others.
        model: The face model that the coefficients belong to.
        photo: The upright photo.
        detection: What the networks saw: box, score, landmarks with uncertainties.
        fitted: Coefficients that explain the photo; the texture is read through them.
        scale_source: Where the metric scale comes from, "model_prior" for a single photo.
        timings_s: Seconds by stage.
        detail: Makes displacement of `params.static` and the expression, or None where no detail was
            estimated.
        relief: [1, S, S] metres, displacement of the person beyond what `detail` makes, read off the photo's
            shading, or None.
        also: Results of other photos of this person, whose colours enter the texture.
        albedo_blend: Share of the model's albedo in what is smooth in the texture, 0..1.
    """

    params: FaceParams
    model: MorphableModel
    photo: Photo
    detection: Detection
    fitted: FaceParams
    scale_source: str = "model_prior"
    timings_s: Mapping[str, float] = field(default_factory=dict)
    detail: SdDetail | None = None
    relief: Tensor | None = None
    also: tuple[FaceResult, ...] = ()
    albedo_blend: float = ALBEDO_BLEND
    _textures: dict[tuple[int, float], TextureBake] = field(default_factory=dict, repr=False)

    @property
    def box(self) -> Tensor:
        """[4] x0, y0, x1, y1 in pixels of the upright photo."""
        return torch.as_tensor(self.detection.box)

    @property
    def score(self) -> float:
        """Confidence that this is a face, 0..1."""
        return float(self.detection.score)

    @property
    def camera(self) -> Camera:
        """Intrinsics and head pose."""
        return self.params.camera

    @property
    def expression(self) -> dict[str, float]:
        """Expression coefficients by name: ARKit blendshapes, 0..1, of the open model."""
        return dict(zip(self.model.data.expression_names, self.params.expression.tolist(), strict=True))

    @cached_property
    def mesh(self) -> FaceMesh:
        """Mesh in object space (metres, +Y up, +Z out of the face), with the photo's expression."""
        with torch.no_grad():
            return self.model(self.params.identity, self.params.expression, self.params.pose)

    def mesh_in_camera(self) -> FaceMesh:
        """Mesh in camera space (metres; x right, y down, z forward), as it stands in the photo."""
        return self.mesh.with_vertices(self.camera.to_cam(self.mesh.vertices))

    def landmarks_3d(self, name: str = "ibug68") -> Tensor:
        """Landmarks on the mesh: [L, 3] metres, camera space. The jaw of "ibug68" follows the outline."""
        return self.model.landmarks_cam(name, self.mesh_in_camera().vertices)

    def landmarks(self, name: str = "ibug68") -> Tensor:
        """Landmarks of the fitted face: [L, 2] pixels of the upright photo."""
        return self.camera.cam_to_px(self.landmarks_3d(name))

    def with_expression(self, **weights: float) -> FaceResult:
        """Copy with some blendshapes set, the others as they are.

        Args:
            **weights: Names of the model's expressions, for the open model those of ARKit, with values in
                0..1, for example `jawOpen=0.6`; in sigma for models whose expressions are.

        Raises:
            ModelFormatError: A name is not one of the model's expressions.
            ValueError: A weight is outside 0..1.
        """
        unit = self.model.data.expression_kind == "unit"
        expression = self.params.expression.clone()
        for name, value in weights.items():
            if unit and not 0.0 <= value <= 1.0:
                raise ValueError(f"{name} must be within 0..1, got {value}")
            expression[self.model.expression_index(name)] = value
        pose = self.params.pose
        if any(name.startswith("eyeLook") for name in weights):
            pose = pose_from_expression(self.model, expression, pose)
        return replace(self, params=self.params.replace(expression=expression, pose=pose))

    def with_params(self, params: FaceParams) -> FaceResult:
        """Copy with other coefficients, of another expression or of another person's motion."""
        return replace(self, params=params)

    def neutral(self) -> FaceResult:
        """Copy with a neutral expression, all joints at rest."""
        rest = {
            "expression": torch.zeros_like(self.params.expression),
            "pose": torch.zeros_like(self.params.pose),
        }
        return replace(self, params=self.params.replace(**rest))

    def texture(self, size: int = 1024) -> Tensor:
        """UV texture: photo colour (light removed) where seen, mirrored or model colour elsewhere.

        Args:
            size: Side in pixels, a power of two.

        Returns:
            [3, size, size] sRGB in 0..1.
        """
        return self._bake(size).image_srgb

    def texture_seen(self, size: int = 1024) -> Tensor:
        """[size, size] bool, texels whose colour is a photo's, not from symmetry or the model."""
        return self._bake(size).seen

    def _bake(self, size: int) -> TextureBake:
        key = size, self.albedo_blend
        if key not in self._textures:
            views = (face._view() for face in (self, *self.also))
            self._textures[key] = bake_views(
                self.model, views, size=size, blend=self.albedo_blend, iris_colour=self.iris_colour().colour
            )
        return self._textures[key]

    def light_gain(self, size: int = 1024) -> Tensor:
        """[3] factors on fitted lights for the texture to look as the photo does; 1 without a photo.

        Args:
            size: Side of the texture, pixels.
        """
        if self.photo.image_srgb.size == 0:
            return torch.ones(3)
        return light_gain(self.model, self.fitted, self.photo.image_srgb, self.texture(size))

    def iris_colour(self) -> IrisColour:
        """Albedo of the irises, from all photos of this person, and how sure that is."""
        beliefs = []
        for face in (self, *self.also):
            points = face.with_params(face.fitted).landmarks()
            beliefs.append(packaged_eye_colour().read(face.photo.image_srgb, points))
        return shared_colour(beliefs)

    def _view(self) -> PhotoView:
        relief = self.with_params(self.fitted).displacement() if self.has_detail else None
        return photo_view(self.model, self.fitted, self.photo.image_srgb, relief)

    @cached_property
    def evidence(self) -> VertexEvidence:
        """What the photo shows of each vertex, how well the fit explains it, and which half is inferred."""
        region, camera = head_region(self.model, self.fitted, self.photo.image_srgb, _EVIDENCE_PX)
        return vertex_evidence(self.model, self.fitted.replace(camera=camera), srgb_to_linear(region))

    def displacement(self, parts: Parts = "both") -> Tensor:
        """Displacement map under the present expression.

        Args:
            parts: "static" (the person), "dynamic" (the expression), "both" or "none".

        Returns:
            [1, S, S] metres along the normals, positive outward; zero where no detail was estimated.
        """
        p, found = self.params, torch.zeros(1, DEFAULT_DETAIL_PX, DEFAULT_DETAIL_PX)
        if self.detail is not None and p.static is not None:
            with torch.no_grad():
                found = self.detail.maps(self.model, p.identity, p.expression, p.static, parts).displacement
        if self.relief is None:
            return found
        found = resize(found, self.relief.shape[-1])
        return found if parts in ("none", "dynamic") else found + self.relief

    @property
    def has_detail(self) -> bool:
        """Whether displacement was estimated."""
        return self.relief is not None or (self.detail is not None and self.params.static is not None)

    def normals(self, parts: Parts = "both") -> Tensor:
        """[3, S, S] unit normals of the detailed surface over the texture square, object space."""
        with torch.no_grad():
            return detailed_normals(self.model, self.mesh.vertices, self.displacement(parts))

    def dense_mesh(self, steps: int = 2) -> DenseMesh:
        """The mesh with the photo's expression, each triangle split into 4 ** steps, relief in its vertices.

        Raises:
            OptionError: `steps` is not 0 to 4.
        """
        return dense_mesh(self.model, self.mesh.vertices, self.displacement(), steps)

    def relight(self, light: Tensor | str | Path, onto: np.ndarray | None = None) -> np.ndarray:
        """The photo with this head in another light, which fades into the photo around it.

        Args:
            light: [9, 3] in camera axes, or what `hiface.read_light` takes: "left", "sunset", a panorama, the
                face.json of another photo.
            onto: [H, W, 3] uint8, the photo in which faces further away have been lit already; the photo
                itself if None.

        Returns:
            [H, W, 3] uint8 sRGB, the upright photo.

        Raises:
            OptionError: There is no such light.
            ImageError: The panorama cannot be used.
            FaceFileError: The face.json cannot be read.
            MissingExtraError: .hdr and .exr need OpenImageIO.
            ShapeError: The light is not [9, 3].
        """
        photo, relief = self.photo.image_srgb, self.with_params(self.fitted).displacement()
        return relit_photo(self.model, self.fitted, photo, _as_light(light), relief, onto)

    def picture(
        self,
        size: int = 512,
        *,
        yaw: float = 0.0,
        pitch: float = 0.0,
        roll: float = 0.0,
        light: Tensor | str | Path = "soft",
    ) -> Image.Image:
        """The head with its de-lit texture, present expression and relief, from any side, in any light.

        Args:
            size: Side of the picture, pixels.
            yaw: Degrees by which the head is turned to the picture's right.
            pitch: Degrees by which it looks up.
            roll: Degrees by which it is tilted clockwise.
            light: As for `relight`; it stays where it is when the head turns.

        Returns:
            RGB picture.

        Raises:
            OptionError: There is no such light.
            ImageError: The panorama cannot be used.
            FaceFileError: The face.json cannot be read.
            MissingExtraError: .hdr and .exr need OpenImageIO.
            ShapeError: The light is not [9, 3].
        """
        camera = head_camera(self.model, self.params, size, head_rotation(yaw, pitch, roll))
        relief, lamp = self.displacement(), _as_light(light)
        return head_picture(self.model, self.params, camera, self.texture(), lamp, relief)

    def save(self, path: str | Path, *, units: str = "m", wrinkles: bool = False) -> Path:
        """Writes the face to one file; the suffix chooses the format.

        Args:
            path: File ending in .glb, .obj, .ply or .json.
            units: "m", "cm" or "mm" for .obj and .ply; GLB and JSON are always metres.
            wrinkles: Put what expressions fold into the morph targets of a GLB file (`SaveOptions`); without
                effect on faces without detail and on other files.

        Returns:
            The path written. The file appears whole or not at all.

        Raises:
            OutputError: Unknown suffix or unwritable place.
        """
        save_face(self, Path(path), SaveOptions(units, wrinkles=wrinkles))
        return Path(path)


def _as_light(light: Tensor | str | Path) -> Tensor:
    return read_light(light) if isinstance(light, str | Path) else torch.as_tensor(light)
