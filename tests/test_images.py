import gc
import io
import tracemalloc
import weakref

import numpy as np
import pytest
from PIL import Image

from hiface.data.images import STORED_PHOTOS, PhotoStore, StoredPhoto, read_photo
from hiface.errors import ImageError, ImageTooLargeError, ImageTooSmallError, UnreadableImageError

RNG = np.random.default_rng(0)
GRADIENT = np.stack(np.meshgrid(np.arange(64), np.arange(48)), -1).astype(np.uint8) * 3
RGB = np.concatenate([GRADIENT, GRADIENT[..., :1] // 2], axis=-1)


def save(tmp_path, picture, name, **options):
    path = tmp_path / name
    picture.save(path, **options)
    return path


def test_rgb_png_is_exact(tmp_path):
    photo = read_photo(save(tmp_path, Image.fromarray(RGB), "a.png"))
    assert np.array_equal(photo.image_srgb, RGB)
    assert (photo.width, photo.height) == (64, 48)


def test_grey(tmp_path):
    grey = RGB[..., 0]
    photo = read_photo(save(tmp_path, Image.fromarray(grey), "a.png"))
    assert np.array_equal(photo.image_srgb, np.repeat(grey[..., None], 3, 2))


def test_palette(tmp_path):
    picture = Image.fromarray(RGB).quantize(64)
    photo = read_photo(save(tmp_path, picture, "a.gif"))
    assert np.array_equal(photo.image_srgb, np.asarray(picture.convert("RGB")))


def test_alpha_is_composited_on_white(tmp_path):
    rgba = np.dstack([RGB, np.zeros(RGB.shape[:2], np.uint8)])
    rgba[:10, :, 3] = 255
    photo = read_photo(save(tmp_path, Image.fromarray(rgba), "a.png"))
    assert np.array_equal(photo.image_srgb[:10], RGB[:10])
    assert (photo.image_srgb[10:] == 255).all()


def test_cmyk_jpeg(tmp_path):
    picture = Image.fromarray(RGB).convert("CMYK")
    photo = read_photo(save(tmp_path, picture, "a.jpg", quality=95))
    assert np.abs(photo.image_srgb.astype(int) - RGB).mean() < 6


def test_sixteen_bit_grey(tmp_path):
    deep = (RGB[..., 0].astype(np.uint16) << 8) + 17
    photo = read_photo(save(tmp_path, Image.fromarray(deep), "a.png"))
    assert np.abs(photo.image_srgb[..., 0].astype(int) - RGB[..., 0]).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation(tmp_path, orientation):
    upright = Image.fromarray(RGB)
    undo = {
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }.get(orientation, [])
    stored = upright
    for step in undo:
        stored = stored.transpose(step)
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = read_photo(save(tmp_path, stored, "a.png", exif=exif))
    assert np.array_equal(photo.image_srgb, RGB)


def test_focal_length_from_exif(tmp_path):
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA405] = 50
    photo = read_photo(save(tmp_path, Image.fromarray(RGB), "a.jpg", exif=exif))
    assert photo.focal_px == pytest.approx(50 / 43.267 * np.hypot(64, 48), rel=1e-4)
    assert read_photo(RGB).focal_px is None


@pytest.mark.parametrize("keep", [0.0, 0.02, 0.5, 0.9])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_truncated_file(tmp_path, kind, keep):
    buffer = io.BytesIO()
    Image.fromarray(RNG.integers(0, 255, (200, 200, 3), np.uint8)).save(buffer, kind)
    path = tmp_path / "a.img"
    path.write_bytes(buffer.getvalue()[: int(len(buffer.getvalue()) * keep)])
    with pytest.raises(UnreadableImageError, match=r"a\.img"):
        read_photo(path)


def test_corrupted_file(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, "PNG")
    raw = bytearray(buffer.getvalue())
    raw[60:120] = bytes(60)
    path = tmp_path / "a.png"
    path.write_bytes(raw)
    with pytest.raises(UnreadableImageError):
        read_photo(path)


def test_text_folder_and_missing(tmp_path):
    (tmp_path / "notes.jpg").write_text("not a picture")
    for bad, word in [
        (tmp_path / "notes.jpg", "convert"),
        (tmp_path, "folder"),
        (tmp_path / "no.jpg", "exist"),
    ]:
        with pytest.raises(UnreadableImageError, match=word):
            read_photo(bad)


def test_image_bomb_is_refused_without_decoding(tmp_path):
    path = save(tmp_path, Image.new("L", (12_000, 12_000)), "bomb.png")
    tracemalloc.start()
    with pytest.raises(ImageTooLargeError, match="resize"):
        read_photo(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6


def test_tiny_pictures(tmp_path):
    with pytest.raises(ImageTooSmallError):
        read_photo(save(tmp_path, Image.new("RGB", (1, 1)), "one.png"))
    assert read_photo(np.zeros((8, 8, 3), np.uint8)).width == 8


def test_arrays():
    assert np.array_equal(read_photo(RGB).image_srgb, RGB)
    assert np.array_equal(read_photo(RGB.astype(np.float32) / 255).image_srgb, RGB)
    assert np.array_equal(read_photo(RGB[..., :1]).image_srgb[..., 1], RGB[..., 0])
    for bad in [
        np.zeros((4, 4, 2), np.uint8),
        np.zeros(5),
        np.zeros((0, 4, 3), np.uint8),
        RGB.astype(np.int64),
    ]:
        with pytest.raises(ImageError):
            read_photo(bad)


def test_stored_photos_keep_few_in_memory(tmp_path):
    """Ten photos, of which a few are alive at a time; pixels and focal length are those of `read_photo`."""
    photos, store = [], PhotoStore()
    for k in range(10):
        pixels = np.random.default_rng(k).integers(0, 255, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{k}.png")
        photos.append((StoredPhoto(tmp_path / f"{k}.png", store), pixels))
    alive = [weakref.ref(photo.image_srgb) for photo, _ in photos]
    gc.collect()
    assert sum(ref() is not None for ref in alive) <= STORED_PHOTOS
    for photo, pixels in photos:
        assert np.array_equal(photo.image_srgb, pixels) and photo.path is not None
        assert (photo.width, photo.height, photo.focal_px) == (50, 40, None)
    Image.fromarray(255 - photos[1][1]).save(tmp_path / "1.png")
    assert np.array_equal(photos[1][0].image_srgb, 255 - photos[1][1])
    (tmp_path / "0.png").unlink()
    with pytest.raises(UnreadableImageError, match=r"0\.png"):
        _ = photos[0][0].image_srgb
    with pytest.raises(UnreadableImageError, match="none"):
        StoredPhoto(tmp_path / "none.png", store)
