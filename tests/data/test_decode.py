"""Reliability tests 20 (images in the wild), 21 (broken images), 22 (bombs): one file at a time."""

import io
import os
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from ddpm_ip.data import Folder
from ddpm_ip.data.decode import BITS, MAX_PIXELS, UnusableImage, decode, fit, read
from ddpm_ip.errors import DataError

RED = np.array([255, 0, 0], np.uint8)


def u8(*rows):
    return np.array(rows, dtype=np.uint8)


def pixels(data, channels=1):
    """Decoded at its own size (the images here are square)."""
    return decode(data, "it", read(data, "it").width, channels)


def test_gray(make):
    image = u8([0, 100], [200, 255])
    assert np.array_equal(pixels(make.encoded(image)), image[None])
    assert np.array_equal(pixels(make.encoded(image), 3), np.stack([image] * 3))


def test_rgb_and_its_luma(make):
    image = np.array([[RED, [0, 255, 0]], [[0, 0, 255], [10, 20, 30]]], np.uint8)
    assert np.array_equal(pixels(make.encoded(image), 3), image.transpose(2, 0, 1))
    assert np.array_equal(pixels(make.encoded(image), 1)[0], u8([76, 150], [29, 18]))


def test_alpha_is_composited_on_white(make):
    la = make.encoded(Image.fromarray(np.array([[[7, 0], [7, 255]], [[0, 51], [0, 0]]], np.uint8), "LA"))
    assert read(la, "it").mode == "L"
    assert np.array_equal(pixels(la)[0], u8([255, 7], [204, 255]))
    rgba = make.encoded(np.array([[[1, 2, 3, 0], [1, 2, 3, 255]]] * 2, np.uint8))
    assert np.array_equal(pixels(rgba, 3)[:, 0].T, u8([255, 255, 255], [1, 2, 3]))


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_strips_on_white_are_the_whole_on_white(make, rng, mode, monkeypatch):
    image = Image.fromarray(rng.integers(0, 256, (23, 23, len(mode)), dtype=np.uint8), mode)
    whole = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    monkeypatch.setattr("ddpm_ip.data.decode.STRIP", 4)
    assert np.array_equal(pixels(make.encoded(image), 3), np.asarray(whole.convert("RGB")).transpose(2, 0, 1))


def test_palette_with_transparency(make):
    image = Image.fromarray(u8([0, 1], [1, 0]), "P")
    image.putpalette([9, 9, 9, 255, 0, 0])
    png, gif = (make.encoded(image, kind, transparency=0) for kind in ("PNG", "GIF"))
    for data in (png, gif):
        assert np.array_equal(pixels(data, 3)[:, 0].T, u8([255, 255, 255], [255, 0, 0]))


def test_transparent_colour_of_a_gray_png(make):
    assert np.array_equal(pixels(make.encoded(u8([5, 6], [6, 5]), transparency=5))[0], u8([255, 6], [6, 255]))


def test_one_bit(make):
    image = Image.fromarray(np.array([[True, False], [False, True]]))
    assert np.array_equal(pixels(make.encoded(image))[0], u8([255, 0], [0, 255]))


def test_cmyk(make):
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    assert np.abs(pixels(make.encoded(image, "TIFF"), 3)[:, 0, 0].astype(int) - RED).max() <= 2
    jpeg = pixels(make.encoded(image, "JPEG", quality=95), 3)
    assert np.abs(jpeg[:, 8, 8].astype(int) - RED).max() <= 6


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_gray_is_scaled_not_clipped(make, kind):
    image = np.array([[0, 257], [32768, 65535]], np.uint16)
    assert np.array_equal(pixels(make.encoded(image, kind))[0], u8([0, 1], [128, 255]))


def test_16_bit_rgb(make):
    row = b"\0" + np.array([0, 256, 65535], ">u2").tobytes()
    assert pixels(make.raw_png(1, 1, 16, 2, row), 3).ravel().tolist() == [0, 1, 255]


def test_float_in_0_to_1(make):
    assert np.array_equal(
        pixels(make.encoded(np.array([[0, 0.5], [0.25, 1]], np.float32), "TIFF"))[0], u8([0, 128], [64, 255])
    )


@pytest.mark.parametrize("value", [1.5, -0.1, 200.0, np.nan, np.inf])
def test_float_of_unknown_scale_is_refused(make, value):
    with pytest.raises(UnusableImage, match="only 0 to 1"):
        read(make.encoded(np.array([[0, value]], np.float32), "TIFF"), "it")


def test_32_bit_integers_are_refused(make):
    with pytest.raises(UnusableImage, match="scale is unknown"):
        read(make.encoded(np.array([[0, 7]], np.int32), "TIFF"), "it")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_exif_orientation_is_applied(make, kind):
    image = np.zeros((16, 32, 3), np.uint8)
    image[:, :16] = 255  # bright on the left; turned by 90 degrees clockwise: bright on top
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = np.asarray(read(make.encoded(image, kind, exif=exif), "it"))
    assert upright.shape == (32, 16, 3)
    assert upright[:12].min() > 240
    assert upright[20:].max() < 15


@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
def test_animation_gives_its_first_picture(kind):
    file = io.BytesIO()
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(file, kind, save_all=True, append_images=frames[1:], lossless=True)
    assert np.array_equal(pixels(file.getvalue(), 3)[:, 4, 4], RED)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 5000), (5000, 1), (3, 7), (300, 200)])
def test_any_shape_becomes_the_size(make, height, width):
    out = decode(make.encoded(np.full((height, width, 3), 77, np.uint8)), "it", 16)
    assert out.shape == (3, 16, 16)
    assert out.dtype == np.uint8
    assert (out == 77).all()


def test_fit_cuts_the_middle_and_keeps_the_right_size_untouched(rng):
    image = rng.integers(0, 256, (8, 15, 3), dtype=np.uint8)
    assert np.array_equal(np.asarray(fit(Image.fromarray(image), 8)), image[:, 3:11])
    square = Image.fromarray(image[:, :8])
    assert fit(square, 8) is square


def test_fit_to_height_and_width_cuts_the_middle(rng):
    wide, tall = (rng.integers(0, 256, shape, dtype=np.uint8) for shape in ((6, 11, 3), (9, 4, 3)))
    assert np.array_equal(np.asarray(fit(Image.fromarray(wide), (6, 4))), wide[:, 3:7])
    assert np.array_equal(np.asarray(fit(Image.fromarray(tall), (4, 4))), tall[2:6])
    assert np.array_equal(np.asarray(fit(Image.fromarray(tall), (2, 4))), tall[3:5])
    right = Image.fromarray(wide)
    assert fit(right, (6, 11)) is right


def test_fit_scales_until_height_and_width_are_covered():
    """A slope keeps its values: pixel j of the result lies in the middle of two of the 40 columns that are used."""
    slope = np.tile(np.arange(50, dtype=np.uint8) * 4, (20, 1))  # 20 x 50; of 10 x 20 the proportions are 20 x 40
    for image, size in ((slope, (10, 20)), (slope.T, (20, 10))):
        found = np.asarray(fit(Image.fromarray(np.ascontiguousarray(image)), size)).reshape(size)
        found = found if image is slope else found.T
        assert np.array_equal(found, np.tile(4 * (5 + 2 * np.arange(20)) + 2, (10, 1)))


def test_fit_enlarges_to_a_size_of_other_proportions():
    """Of 2 x 6 pixels one column is used, from 2 to 3: places 1.625, 1.875, ... between the middles of pixels."""
    slope = np.tile(np.arange(6, dtype=np.uint8) * 40, (2, 1))
    found = np.asarray(fit(Image.fromarray(slope), (8, 4)))
    assert found.tolist() == [[65, 75, 85, 95]] * 8


def test_a_square_said_by_two_numbers_is_the_same_square(rng):
    image = Image.fromarray(rng.integers(0, 256, (13, 20, 3), dtype=np.uint8))
    assert np.array_equal(np.asarray(fit(image, 7)), np.asarray(fit(image, (7, 7))))


def test_four_channels_keep_the_transparency(make):
    """(1, 2, 3) and so on are colours that compositing would have changed."""
    rgba = np.array([[[1, 2, 3, 0], [1, 2, 3, 255]], [[9, 8, 7, 40], [6, 5, 4, 3]]], np.uint8)
    assert np.array_equal(pixels(make.encoded(rgba), 4), rgba.transpose(2, 0, 1))
    la = make.encoded(Image.fromarray(np.array([[[7, 0], [7, 255]], [[0, 51], [9, 1]]], np.uint8), "LA"))
    assert pixels(la, 4).tolist() == [[[7, 7], [0, 9]]] * 3 + [[[0, 255], [51, 1]]]
    palette = Image.fromarray(u8([0, 1], [1, 0]), "P")
    palette.putpalette([9, 9, 9, 255, 0, 0])
    found = pixels(make.encoded(palette, "PNG", transparency=0), 4)
    assert found[:, 0].T.tolist() == [[9, 9, 9, 0], [255, 0, 0, 255]]


def test_four_channels_of_images_without_transparency_are_opaque(make):
    gray, color = u8([5, 6], [7, 8]), np.array([[RED, RED], [[1, 2, 3], RED]], np.uint8)
    assert np.array_equal(pixels(make.encoded(gray), 4), np.stack([gray] * 3 + [np.full((2, 2), 255)]))
    found = pixels(make.encoded(color), 4)
    assert np.array_equal(found[:3], color.transpose(2, 0, 1))
    assert (found[3] == 255).all()
    for mode in ("1", "P", "CMYK"):
        kind = "TIFF" if mode == "CMYK" else "PNG"
        assert (pixels(make.encoded(Image.fromarray(color).convert(mode), kind), 4)[3] == 255).all(), mode


def test_four_channels_of_a_transparent_colour(make):
    found = pixels(make.encoded(u8([5, 6], [6, 5]), transparency=5), 4)
    assert found[3].tolist() == [[0, 255], [255, 0]]
    rows = b"".join(b"\0" + np.array(row, ">u2").tobytes() for row in ([257, 514], [514, 257]))
    deep = make.raw_png(2, 2, 16, 0, rows)
    assert pixels(deep, 4).tolist() == [[[1, 2], [2, 1]]] * 3 + [[[255, 255], [255, 255]]]


def test_what_cannot_be_seen_does_not_bleed_when_an_image_shrinks(make):
    image = np.array([[[200, 0, 0, 255], [0, 255, 0, 0]], [[200, 0, 0, 255], [0, 255, 0, 0]]], np.uint8)
    red, green, blue, alpha = decode(make.encoded(image), "it", 1, 4)[:, 0, 0].tolist()
    assert (green, blue) == (0, 0)
    assert abs(red - 200) <= 2
    assert abs(alpha - 128) <= 1


def test_fit_is_antialiased():
    board = (np.indices((512, 512)).sum(axis=0) % 2 * 255).astype(np.uint8)
    assert np.abs(np.asarray(fit(Image.fromarray(board), 16)).astype(int) - 127).max() <= 2


def test_center_crop(make, rng):
    image = rng.integers(0, 256, (10, 12, 3), dtype=np.uint8)
    out = decode(make.encoded(image), "it", 4, center_crop=4)
    assert np.array_equal(out, image[3:7, 4:8].transpose(2, 0, 1))
    with pytest.raises(DataError, match="12 x 10 is smaller than center_crop 11"):
        decode(make.encoded(image), "it", 4, center_crop=11)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"])
def test_truncated(make, rng, kind):
    data = make.encoded(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8), kind)
    with pytest.raises(DataError, match=r"^dir/x\.png: ."):
        decode(data[: len(data) * 2 // 3], "dir/x.png", 32)


def test_broken_files_are_named_with_a_reason(tmp_path):
    def reason(name):
        with pytest.raises(UnusableImage) as caught:
            read(tmp_path / name, name)
        assert caught.value.bad.where == name
        return caught.value.bad.reason

    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "empty.png").touch()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "link.png").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe.png")
    assert "known format" in reason("text.png")
    assert reason("empty.png") == "empty"
    assert reason("folder.png") == reason("pipe.png") == reason("missing.png") == "not a regular file"
    assert reason("link.png") == "a broken link"


def test_postscript_is_never_interpreted():
    with pytest.raises(DataError, match="known format"):
        read(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "it")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [8001, 10_000, 20_000])
def test_bomb_is_refused_before_allocation(make, side):
    bomb = make.raw_png(side, side, 8, 2, b"\0" * 100)
    assert len(bomb) < 100
    assert side**2 > MAX_PIXELS
    tracemalloc.start()
    with pytest.raises(DataError, match="pixels"):
        read(bomb, "it")
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("size", [(0, 0), (0, 5), (5, 0)])
def test_no_pixels(make, tmp_path, size):
    """Whatever a format makes of it, it is a sentence."""
    width, height = size
    bmp = bytearray(make.encoded(np.zeros((1, 1, 3), np.uint8), "BMP"))
    bmp[18:26] = np.array(size, "<i4").tobytes()
    pnm = f"P5 {width} {height} 255\n".encode()
    (tmp_path / "images").mkdir()
    for i, data in enumerate((make.raw_png(width, height, 8, 2, b""), bytes(bmp), pnm)):
        (tmp_path / "images" / f"{i}.png").write_bytes(data)
        for options in ({}, {"center_crop": 1}):
            with pytest.raises(UnusableImage, match=r"^it: ."):
                decode(data, "it", 8, **options)
    with pytest.raises(DataError, match="3 of 3 images cannot be used"):
        Folder(root=str(tmp_path / "images"), image_size=8).open(progress=False)


@pytest.mark.parametrize("source", ["x.png", None, 3, ["x.png"]])
def test_a_text_is_no_path(source):
    with pytest.raises(UnusableImage, match="instead of the bytes of an image file"):
        read(source, "it")


@pytest.mark.parametrize(
    ("largest", "bits", "said"),
    [
        (4095, 12, "use 12 bits at most: no value reaches 4,096 of 65,536, so that the brightest becomes at most 16"),
        (3000, 12, "multiply their pixels by 16 "),
        (1023, 10, "multiply their pixels by 64 "),
        (16383, 14, "multiply their pixels by 4 "),
        (255, 8, "multiply their pixels by 256 "),
        (40_000, 16, ""),
        (65535, 16, ""),
        (0, 0, ""),
    ],
)
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_a_range_of_16_bits_that_is_hardly_used(make, tmp_path, warnings_of, largest, bits, said, kind):
    (tmp_path / "images").mkdir()
    for i, top in enumerate((largest // 3, largest)):
        data = make.encoded(np.linspace(0, top, 64).reshape(8, 8).astype(np.uint16), kind)
        (tmp_path / "images" / f"{i}.{kind.lower()}").write_bytes(data)
    for _ in range(2):  # the second time from the cache
        images = Folder(root=str(tmp_path / "images"), image_size=8).open(progress=False)
        assert images.bits == bits
        assert said in images.hint
        assert bool(images.hint) == bool(said)
    assert len(warnings_of()) == (2 if said else 0)


def test_a_range_that_is_hardly_used_in_color(make):
    for largest, bits in ((4095, 12), (1023, 10), (16383, 14), (65535, 16), (255, 8)):
        row = b"\0" + np.array([0, largest, 7], ">u2").tobytes()
        assert read(make.raw_png(1, 1, 16, 2, row), "it").info[BITS] == bits
        assert read(make.raw_png(1, 1, 16, 2, row), "it", alpha=True).info[BITS] == bits
    assert BITS not in read(make.encoded(np.full((2, 2), 3, np.uint8)), "it").info


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM"])
def test_damaged_images(make, rng, kind):
    data = make.encoded(rng.integers(0, 256, (12, 9, 3), dtype=np.uint8), kind)
    make.survives(data, lambda damaged: decode(damaged, "it", 8))


def test_a_progressive_jpeg_of_thousands_of_scans_is_refused(make, tmp_path):
    """Each goes over all pixels again: 5,000 of 4000 x 4000 take minutes, from 3 MB."""
    whole = make.encoded(np.zeros((16, 16, 3), np.uint8), "JPEG", progressive=True)
    last = whole[whole.rfind(b"\xff\xda") : -2]
    many = whole[:-2] + last * 100 + whole[-2:]
    (tmp_path / "a.jpg").write_bytes(many)
    assert read(whole, "it").size == (16, 16)
    for source in (many, tmp_path / "a.jpg"):
        with pytest.raises(UnusableImage, match="a progressive JPEG of more than 100 scans, where 10 are usual"):
            read(source, "it")


@pytest.mark.parametrize("mode", ["F", "I;16"])
def test_large_deep_images_are_scaled_strip_by_strip(make, rng, mode, monkeypatch):
    values = rng.random((23, 23), np.float32) if mode == "F" else rng.integers(0, 2**16, (23, 23), np.uint16)
    expected = np.rint(values * 255.0) if mode == "F" else np.round(values / 257)
    monkeypatch.setattr("ddpm_ip.data.decode.STRIP", 4)
    assert np.array_equal(pixels(make.encoded(Image.fromarray(values), "TIFF"))[0], expected)
