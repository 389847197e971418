"""A folder of whatever people have becomes the pixels that they see: 8 bits, upright, on white, scaled and not clipped.

16 bits are scaled to 8, floats are taken from 0 to 1, transparency is put on white, EXIF orientation is applied, of an
animation the first picture is taken. Not promised: colour profiles are not applied, and CMYK and JPEG are only close.
Every kind by itself, and what is refused, is in tests/data/test_decode.py.
"""

import numpy as np
import pytest
from PIL import Image
from tests.data.conftest import encoded, raw_png

from ddpm_ip.data import Folder

SIDE = 4


def flat(mode, *values):
    return Image.new(mode, (SIDE, SIDE), values if len(values) > 1 else values[0])


def palette():
    image = Image.fromarray(np.zeros((SIDE, SIDE), np.uint8), "P")
    image.putpalette([9, 9, 9, 255, 0, 0])
    return image


def rotated() -> bytes:
    """Saved as red beside green, to be turned by 90 degrees: red above green."""
    pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
    pixels[:, : SIDE // 2, 0] = pixels[:, SIDE // 2 :, 1] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(pixels, "PNG", exif=exif)


def animation(kind: str) -> bytes:
    frames = [Image.new("RGB", (SIDE, SIDE), colour) for colour in ("red", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)


def deep_gray(value: int) -> Image.Image:
    return Image.fromarray(np.full((SIDE, SIDE), value, np.uint16))


def deep_rgb() -> bytes:
    row = b"\0" + np.array([0, 32768, 65535] * SIDE, ">u2").tobytes()
    return raw_png(SIDE, SIDE, 16, 2, row * SIDE)


WILD = {
    "bit.png": (encoded(flat("1", 1)), [255, 255, 255]),
    "gray.png": (encoded(flat("L", 77)), [77, 77, 77]),
    "gray_and_alpha.png": (encoded(flat("LA", 0, 51)), [204, 204, 204]),
    "rgb.png": (encoded(flat("RGB", 1, 2, 3)), [1, 2, 3]),
    "rgba.png": (encoded(flat("RGBA", 255, 0, 0, 128)), [255, 127, 127]),
    "rgba_hidden.png": (encoded(flat("RGBA", 9, 9, 9, 0)), [255, 255, 255]),
    "palette.png": (encoded(palette(), transparency=0), [255, 255, 255]),
    "palette.gif": (encoded(palette(), "GIF", transparency=0), [255, 255, 255]),
    "deep_gray.png": (encoded(deep_gray(32768)), [128, 128, 128]),
    "deep_gray_largest.tif": (encoded(deep_gray(65535), "TIFF"), [255, 255, 255]),
    "deep_gray_small.png": (encoded(deep_gray(257)), [1, 1, 1]),
    "deep_rgb.png": (deep_rgb(), [0, 128, 255]),
    "float.tif": (encoded(np.full((SIDE, SIDE), 0.5, np.float32), "TIFF"), [128, 128, 128]),
    "animation.gif": (animation("GIF"), [255, 0, 0]),
    "animation.webp": (animation("WEBP"), [255, 0, 0]),
    "one_pixel.png": (encoded(np.full((1, 1, 3), 50, np.uint8)), [50, 50, 50]),
    "long.png": (encoded(np.full((1, 5000), 60, np.uint8)), [60, 60, 60]),
    "large.bmp": (encoded(np.full((90, 40, 3), 70, np.uint8), "BMP"), [70, 70, 70]),
}
CLOSE = {
    "cmyk.tif": (encoded(flat("CMYK", 0, 255, 255, 0), "TIFF"), [255, 0, 0]),
    "cmyk.jpg": (encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95), [255, 0, 0]),
}


@pytest.fixture
def images(tmp_path):
    (tmp_path / "wild").mkdir()
    for name, (content, _) in {**WILD, **CLOSE, "rotated.png": (rotated(), None)}.items():
        (tmp_path / "wild" / name).write_bytes(content)
    opened = Folder(root=str(tmp_path / "wild"), image_size=SIDE, cache=str(tmp_path / "cache")).open(progress=False)
    names = sorted([*WILD, *CLOSE, "rotated.png"])
    assert opened.pixels.shape == (len(names), 3, SIDE, SIDE)
    assert opened.pixels.dtype == np.uint8
    return dict(zip(names, np.asarray(opened.pixels), strict=True))


def test_a_folder_of_all_kinds(images):
    wrong = {}
    for name, (_, colour) in WILD.items():
        if not (images[name] == np.array(colour, np.uint8)[:, None, None]).all():
            wrong[name] = images[name][:, 0, 0].tolist()
    assert wrong == {}
    for name, (_, colour) in CLOSE.items():
        assert np.abs(images[name].astype(int) - np.array(colour)[:, None, None]).max() <= 6, name
    assert images["rotated.png"][:, 0, 0].tolist() == images["rotated.png"][:, 0, -1].tolist() == [255, 0, 0]
    assert images["rotated.png"][:, -1, 0].tolist() == [0, 255, 0]
