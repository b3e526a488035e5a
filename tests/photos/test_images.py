"""A person's files are found and opened as that person sees them, and what is none is named and does no harm."""

import os
import struct
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import posix
from PIL import Image, PngImagePlugin

from mnist_lit.photos.images import find_images, open_image

GREY = np.full((40, 30), 200, dtype=np.uint8)
GREY[10:20, 5:10] = 50  # (H, W): not alike in any direction


def saved(image: Image.Image, path: Path, **settings: Any) -> str:
    image.save(path, **settings)
    return str(path)


def png(width: int, height: int) -> bytes:
    """Return a PNG file that claims a size."""
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(bytes(1_000))),
        (b"IEND", b""),
    ]
    chunks = [struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize("suffix", ["png", "bmp", "gif", "tif", "webp", "pgm"])
def test_every_format_gives_the_same_pixels(suffix: str, tmp_path: Path) -> None:
    settings = {"lossless": True} if suffix == "webp" else {}
    assert (open_image(saved(Image.fromarray(GREY), tmp_path / f"a.{suffix}", **settings))[..., 0] == GREY).all()


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "I;16", "CMYK", "F", "I"])
def test_every_mode_gives_the_same_picture(mode: str, tmp_path: Path) -> None:
    """Up to brightness: what has more than 8 bits is scaled."""
    image = Image.fromarray(GREY)
    if mode == "I;16":
        image = Image.fromarray(GREY.astype(np.uint16) * 20)
    elif mode == "1":
        image = Image.fromarray(GREY > 127)
    else:
        image = image.convert(mode)
    pixels = open_image(saved(image, tmp_path / "a.tif"))
    assert pixels.shape == (40, 30, 1)
    assert np.corrcoef(pixels.ravel(), GREY.ravel())[0, 1] > 0.999
    assert pixels.min() >= 0
    assert 100 < pixels.max() <= 255


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_a_picture_is_turned_as_the_camera_was_held(orientation: int, suffix: str, tmp_path: Path) -> None:
    turned = {1: GREY, 2: GREY[:, ::-1], 3: GREY[::-1, ::-1], 4: GREY[::-1], 5: GREY.T}
    turned |= {6: np.rot90(GREY), 7: GREY[::-1, ::-1].T, 8: np.rot90(GREY, -1)}
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(turned[orientation].copy())
    settings = {"compression": "tiff_lzw"} if suffix == "tif" else {}  # Pillow 13.0 mixes up others that are turned
    pixels = open_image(saved(image, tmp_path / f"a.{suffix}", exif=exif, **settings))
    assert abs(pixels[..., 0] - GREY).mean() < 5


def test_ink_on_nothing_is_seen_on_a_paper_that_shows_it(tmp_path: Path) -> None:
    for ink in (0, 255):
        layers = np.full((40, 30, 4), ink, dtype=np.uint8)
        layers[..., 3] = np.where(GREY < 127, 255, 0)
        pixels = open_image(saved(Image.fromarray(layers), tmp_path / "a.png"))[..., 0]
        assert set(np.unique(pixels[GREY < 127])) == {ink}
        assert set(np.unique(pixels[GREY > 127])) == {255 - ink}


def test_a_picture_with_holes_has_its_own_paper_in_them(tmp_path: Path) -> None:
    layers = np.dstack([GREY, GREY, GREY, np.full_like(GREY, 255)])
    layers[:3] = 0  # a rounded corner, say
    pixels = open_image(saved(Image.fromarray(layers), tmp_path / "a.png"))[..., 0]
    assert (pixels[:3] == 200).all()
    assert (pixels[3:] == GREY[3:]).all()


def test_colours_are_kept_and_large_pictures_reduced(tmp_path: Path) -> None:
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
        (b"hello", "not an image that can be read: save it as JPEG or PNG"),
        (b"GIF89a", "not an image that can be read"),
        (png(50_000, 50_000), "too many pixels: make it smaller"),
        (png(10_000, 10_000), "10,000 x 10,000 pixels are too many: make it smaller"),  # Pillow would warn
        (png(1, 80_000_000), "1 x 80,000,000 pixels are too many: make it smaller"),
        (png(80_000_000, 1), "80,000,000 x 1 pixels are too many: make it smaller"),
        (png(1, 100_000), "1 x 100,000 pixels are too many: make it smaller"),
        (png(600, 600), "damaged: "),
        (b"P5 99999999999999 1 255\n", "damaged: "),
        (b"P5 1 0 255\n", "not an image that can be read"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "not an image that can be read"),  # no interpreter is started
    ],
)
def test_what_is_no_picture_is_refused_with_its_reason(content: bytes, reason: str, tmp_path: Path) -> None:
    (path := tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ValueError, match=f"^{reason}"):
        open_image(str(path))


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "tif", "webp", "bmp"])
def test_a_truncated_picture_is_refused(suffix: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (100, 100), dtype=np.uint8)
    path = Path(saved(Image.fromarray(noise), tmp_path / f"a.{suffix}"))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"damaged: |not an image"):
        open_image(str(path))


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_several_pictures_in_a_file_are_refused(suffix: str, tmp_path: Path) -> None:
    images = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    path = saved(images[0], tmp_path / f"a.{suffix}", save_all=True, append_images=images[1:])
    with pytest.raises(ValueError, match="several pictures in one file: save the one with the digit"):
        open_image(path)


def test_a_text_that_unpacks_to_gigabytes_is_refused(tmp_path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("a", "b" * 10_000_000, zip=True)
    with pytest.raises(ValueError, match="damaged: Decompressed data too large"):
        open_image(saved(Image.fromarray(GREY), tmp_path / "a.png", pnginfo=info))


@posix
def test_a_pipe_a_folder_and_what_may_not_be_read_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for name, reason in (("pipe.png", "not a file"), (".", "not a file"), ("none.png", "No such file or directory")):
        with pytest.raises(ValueError, match=reason):
            open_image(str(tmp_path / name))

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")  # root, who may run this, may read all

    path = saved(Image.fromarray(GREY), tmp_path / "a.png")
    monkeypatch.setattr(Image, "open", refuse)
    with pytest.raises(ValueError, match=r"^Permission denied$"):
        open_image(path)


def test_what_a_camera_calls_mpo_is_a_jpeg(tmp_path: Path) -> None:
    content = BytesIO()
    preview = Image.fromarray(GREY).resize((10, 12))
    Image.fromarray(GREY).save(content, "MPO", save_all=True, append_images=[preview])
    (path := tmp_path / "a.jpg").write_bytes(content.getvalue())
    assert open_image(str(path)).shape == (40, 30, 1)


@posix  # its links and slashes
def test_folders_are_searched_in_order_and_files_come_as_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("b/2.png", "b/1.JPG", "b/a/3.webp", "b/.hidden.png", "b/.git/4.png", "b/notes.txt", "x"):
        (path := tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "b/a/back").symlink_to(tmp_path / "b")
    complaints: list[tuple[str, str]] = []
    found = list(find_images(["x", "./b/", "empty", "none"], lambda *complaint: complaints.append(complaint)))
    assert found == ["x", "./b/1.JPG", "./b/2.png", "./b/a/3.webp", "none"]
    assert [name for name, _ in complaints] == ["./b/a/back", "empty"]
    assert complaints[0][1] == "a link to a folder that is read anyway"
    assert complaints[1][1].startswith("no image in this folder: their names end in .bmp, ")
