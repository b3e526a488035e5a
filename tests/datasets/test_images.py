"""Image files are found and decoded as an image viewer shows them, and other files are rejected with the reason."""

import os
import struct
import zlib
from collections import Counter
from errno import EACCES
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import posix
from PIL import Image

from mnist_lit.datasets.images import SUFFIXES, crop_square, find_images, open_image, open_square

GREY = np.full((40, 30), 200, dtype=np.uint8)
GREY[10:20, 5:10] = 50  # (H, W), without symmetry


def saved(image: Image.Image, path: Path, **settings: Any) -> str:
    image.save(path, **settings)
    return str(path)


def png(width: int, height: int) -> bytes:
    """Return a PNG file whose header states a size, whatever its data."""
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(bytes(1_000))),
        (b"IEND", b""),
    ]
    chunks = [struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize("suffix", ["png", "bmp", "gif", "tif", "webp", "pgm"])
def test_formats_give_the_same_pixels(suffix: str, tmp_path: Path) -> None:
    settings = {"lossless": True} if suffix == "webp" else {}
    assert (open_image(saved(Image.fromarray(GREY), tmp_path / f"a.{suffix}", **settings))[..., 0] == GREY).all()


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "I;16", "CMYK", "F", "I"])
def test_modes_give_the_same_picture(mode: str, tmp_path: Path) -> None:
    image = Image.fromarray(GREY)
    if mode == "I;16":
        image = Image.fromarray(GREY.astype(np.uint16) * 257)
    elif mode == "1":
        image = Image.fromarray(GREY > 127)
    else:
        image = image.convert(mode)
    pixels = open_image(saved(image, tmp_path / "a.tif"))
    assert pixels.shape == (40, 30, 1)
    assert np.corrcoef(pixels.ravel(), GREY.ravel())[0, 1] > 0.999
    assert pixels.min() >= 0
    assert 100 < pixels.max() <= 255


@pytest.mark.parametrize(
    ("dtype", "suffix", "largest"),
    [
        *(("uint16", suffix, 65_535) for suffix in ("png", "pgm", "tif")),
        *(("float32", "tif", largest) for largest in (1, 255)),
        ("int32", "tif", 65_535),
    ],
)
def test_more_than_8_bits_are_scaled_by_the_range_of_their_type(
    dtype: str, suffix: str, largest: float, tmp_path: Path
) -> None:
    """A picture of half the exposure is half as bright."""
    for brightness in (0.5, 1):
        levels = (GREY / 255 * largest * brightness).astype(dtype)
        pixels = open_image(saved(Image.fromarray(levels), tmp_path / f"a.{suffix}"))[..., 0]
        assert np.abs(pixels - GREY * brightness).max() < 0.6


def test_every_suffix_of_a_format_is_found_and_its_file_is_read(tmp_path: Path) -> None:
    """A picture cannot be read by its name and invisible in its folder."""
    names = []
    for suffix, name in Image.registered_extensions().items():
        if suffix in SUFFIXES:
            image = Image.fromarray(GREY).convert("RGB" if name in {"AVIF", "MPO"} else "L")
            names.append(saved(image, tmp_path / f"a{suffix.upper()}", format=name))
    assert {".jfif", ".jpe", ".jpg", ".jp2", ".png", ".tiff"} <= {Path(name).suffix.lower() for name in names}
    assert sorted(find_images([str(tmp_path)], print, Counter())) == sorted(names)
    for name in names:
        assert open_image(name).shape[:2] == GREY.shape


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_exif_orientation_is_applied(orientation: int, suffix: str, tmp_path: Path) -> None:
    stored = {1: GREY, 2: GREY[:, ::-1], 3: GREY[::-1, ::-1], 4: GREY[::-1], 5: GREY.T}
    stored |= {6: np.rot90(GREY), 7: GREY[::-1, ::-1].T, 8: np.rot90(GREY, -1)}
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(stored[orientation].copy())
    settings = {"compression": "tiff_lzw"} if suffix == "tif" else {}  # Pillow 13.0 rotates others wrongly
    pixels = open_image(saved(image, tmp_path / f"a.{suffix}", exif=exif, **settings))
    assert abs(pixels[..., 0] - GREY).mean() < 5


def test_transparent_background_contrasts_with_the_ink(tmp_path: Path) -> None:
    for ink in (0, 255):
        layers = np.full((40, 30, 4), ink, dtype=np.uint8)
        layers[..., 3] = np.where(GREY < 127, 255, 0)
        pixels = open_image(saved(Image.fromarray(layers), tmp_path / "a.png"))[..., 0]
        assert set(np.unique(pixels[GREY < 127])) == {ink}
        assert set(np.unique(pixels[GREY > 127])) == {255 - ink}


def test_transparent_areas_get_the_median_colour(tmp_path: Path) -> None:
    layers = np.dstack([GREY, GREY, GREY, np.full_like(GREY, 255)])
    layers[:3] = 0  # a rounded corner, say
    pixels = open_image(saved(Image.fromarray(layers), tmp_path / "a.png"))[..., 0]
    assert (pixels[:3] == 200).all()
    assert (pixels[3:] == GREY[3:]).all()


def test_colours_are_kept_and_large_images_are_reduced(tmp_path: Path) -> None:
    image = Image.new("RGB", (3_000, 2_000), (200, 100, 50))
    for suffix in ("png", "jpg"):
        pixels = open_image(saved(image, tmp_path / f"a.{suffix}"))
        assert 512 <= max(pixels.shape) < 1_024
        assert pixels.shape[2] == 3
        assert abs(pixels - (200, 100, 50)).max() < 3


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "an empty file"),
        (b"hello", "not a supported image: save it as JPEG or PNG"),
        (b"GIF89a", "not a supported image"),
        (png(50_000, 50_000), "too many pixels: make it smaller"),
        (png(13_000, 13_000), "13,000 x 13,000 pixels are too many: make it smaller"),  # Pillow would warn
        (png(1, 80_000_000), "1 x 80,000,000 pixels are too many: make it smaller"),
        (png(80_000_000, 1), "80,000,000 x 1 pixels are too many: make it smaller"),
        (png(1, 100_000), "1 x 100,000 pixels are too many: make it smaller"),
        (png(600, 600), "damaged: "),
        (b"P5 99999999999999 1 255\n", "damaged: "),
        (b"P5 1 0 255\n", "not a supported image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "not a supported image"),  # Pillow would run Ghostscript
    ],
)
def test_invalid_files_are_rejected_with_the_reason(content: bytes, reason: str, tmp_path: Path) -> None:
    (path := tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ValueError, match=f"^{reason}"):
        open_image(str(path))


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "tif", "webp", "bmp"])
def test_truncated_files_are_rejected(suffix: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (100, 100), dtype=np.uint8)
    path = Path(saved(Image.fromarray(noise), tmp_path / f"a.{suffix}"))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"damaged: |not a supported image"):
        open_image(str(path))


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_files_with_several_images_are_rejected(suffix: str, tmp_path: Path) -> None:
    images = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    path = saved(images[0], tmp_path / f"a.{suffix}", save_all=True, append_images=images[1:])
    with pytest.raises(ValueError, match="several images in one file: save the one to classify"):
        open_image(path)


@posix
def test_pipes_folders_and_unreadable_files_are_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for name, reason in (("pipe.png", "not a file"), (".", "not a file"), ("none.png", "No such file or directory")):
        with pytest.raises(ValueError, match=reason):
            open_image(str(tmp_path / name))

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")  # a mode of 000 would not stop root

    path = saved(Image.fromarray(GREY), tmp_path / "a.png")
    monkeypatch.setattr(Image, "open", refuse)
    with pytest.raises(ValueError, match=r"^Permission denied$"):
        open_image(path)


def test_mpo_is_read_as_a_jpeg(tmp_path: Path) -> None:
    content = BytesIO()
    preview = Image.fromarray(GREY).resize((10, 12))
    Image.fromarray(GREY).save(content, "MPO", save_all=True, append_images=[preview])
    (path := tmp_path / "a.jpg").write_bytes(content.getvalue())
    assert open_image(str(path)).shape == (40, 30, 1)


@posix  # its links and slashes
def test_find_images_searches_folders_in_alphabetical_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("b/2.png", "b/1.JPG", "b/a/3.webp", "b/.hidden.png", "b/.git/4.png", "b/notes.txt", "x"):
        (path := tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "b/a/back").symlink_to(tmp_path / "b")
    errors: list[tuple[str, str]] = []
    found = list(find_images(["x", "./b/", "empty", "none"], lambda *error: errors.append(error), Counter()))
    assert found == ["x", "./b/1.JPG", "./b/2.png", "./b/a/3.webp", "none"]
    assert [name for name, _ in errors] == ["./b/a/back", "empty"]
    assert errors[0][1] == "a link to a folder that is searched anyway"
    assert errors[1][1].startswith("no image in this folder: their names end in .apng, ")


def test_a_folder_that_cannot_be_opened_is_reported_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> None:
        raise PermissionError(EACCES, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refuse)
    errors: list[tuple[str, str]] = []
    assert list(find_images([str(tmp_path)], lambda *error: errors.append(error), Counter())) == []
    assert errors == [(str(tmp_path), "Permission denied")]


def test_crop_square_keeps_the_middle_and_scales_it() -> None:
    pixels = GREY[..., None].astype(np.float32)
    assert (crop_square(pixels, 30) == GREY[None, 5:35]).all()
    assert (crop_square(pixels.transpose(1, 0, 2), 30) == GREY.T[None, :, 5:35]).all()
    for shape in ((40, 30), (1, 1), (1, 500), (64, 64)):
        plain = np.full((*shape, 3), (200, 100, 50), dtype=np.float32)
        scaled = crop_square(plain, 28)
        assert scaled.shape == (3, 28, 28)
        assert scaled.dtype == np.uint8
        assert (scaled.transpose(1, 2, 0) == (200, 100, 50)).all()


def test_open_square_crops_or_pads(tmp_path: Path) -> None:
    tall = np.full((40, 20, 3), (200, 100, 50), dtype=np.uint8)
    for name, pixels in {"tall": tall, "wide": tall.transpose(1, 0, 2)}.items():
        Image.fromarray(pixels).save(path := tmp_path / f"{name}.png")
        assert (open_square(str(path), 20) == tall[:20].transpose(2, 0, 1)).all()
        padded = open_square(str(path), 40, fit="pad")
        padded = padded if name == "tall" else padded.transpose(0, 2, 1)
        assert (padded[:, :, 10:30] == tall.transpose(2, 0, 1)).all()
        assert (padded[:, :, :10] == 0).all()
        assert (padded[:, :, 30:] == 0).all()


def test_crop_square_converts_to_the_given_channels() -> None:
    grey = np.full((40, 30, 1), 200, dtype=np.float32)
    colour = np.full((40, 30, 3), (255, 0, 0), dtype=np.float32)
    assert crop_square(grey, 8).shape == crop_square(grey, 8, 1).shape == (1, 8, 8)
    assert (crop_square(grey, 8, 3) == np.full((3, 8, 8), 200)).all()
    assert (crop_square(colour, 8, 3) == crop_square(colour, 8)).all()
    assert (crop_square(colour, 8, 1) == np.full((1, 8, 8), 76)).all()  # the luminance of red: 29.9 % of white's


def test_crop_square_rounds_and_clips() -> None:
    pixels = np.array([[-3, 99.6], [99.4, 300]], dtype=np.float32)[..., None]
    assert crop_square(pixels, 2).tolist() == [[[0, 100], [99, 255]]]
