"""What the decoder promises: whatever comes in, upright sRGB pixels that are right, or a refusal that says why."""

from __future__ import annotations

import tracemalloc
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image

from app.adapters.images import FORMAT_NAMES, PictureDecoder, decode_crop, encode_crop, resize, squared
from app.domain.posterior import Fit
from app.domain.values import Box, Picture, PixelArray
from app.errors import CallerError, InvalidInput, InvalidPicture, TooLarge, UnsupportedPicture
from tests import pictures
from tests.pictures import BLUE, GREEN, HOSTILE, RED, YELLOW, drawing, encoded

MAX_PIXELS = 20_000_000
WHITE = (255, 255, 255)
LOSSY = 8  # grey levels that JPEG and WebP may be off in a plain field


def decode(data: bytes, *, box: Box | None = None, wanted_px: int = 4096) -> Picture:
    return PictureDecoder(max_pixels=MAX_PIXELS)(data, box=box, wanted_px=wanted_px, field="image")


def quarters(pixels: PixelArray) -> list[tuple[int, ...]]:
    """The colour in the middle of each quarter, row by row."""
    height, width = pixels.shape[:2]
    return [tuple(pixels[height * y // 4, width * x // 4].tolist()) for y in (1, 3) for x in (1, 3)]


def assert_colours(found: list[tuple[int, ...]], expected: list[tuple[int, ...]], *, tolerance: int = LOSSY) -> None:
    np.testing.assert_allclose(np.array(found), np.array(expected), atol=tolerance)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_every_format_gives_the_same_picture(file_format: str) -> None:
    picture = decode(encoded(drawing(), file_format))

    assert picture.pixels.dtype == np.uint8
    assert picture.pixels.shape == (64, 96, 3)
    assert (picture.width, picture.height, picture.box) == (96, 64, Box(0, 0, 96, 64))
    assert_colours(quarters(picture.pixels), [RED, GREEN, BLUE, YELLOW])


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"])
def test_every_tiff_compression_is_read(compression: str) -> None:
    assert_colours(quarters(decode(encoded(drawing(), "TIFF", compression=compression)).pixels), [RED, GREEN, BLUE, YELLOW])


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_picture_is_refused_and_the_next_good_one_is_not(name: str) -> None:
    make, error = HOSTILE[name]
    data = make()

    with pytest.raises(CallerError) as refusal:
        decode(data)

    assert type(refusal.value) is error, refusal.value.detail
    assert refusal.value.field == "image"
    assert decode(encoded(drawing())).width == 96


@pytest.mark.parametrize("name", ["jpeg of comments", "jpeg of padding", "png of empty chunks", "gif of empty blocks"])
def test_a_file_in_crumbs_is_given_up_before_its_end(name: str) -> None:
    make, _ = HOSTILE[name]

    with pytest.raises(InvalidPicture, match="too many small pieces"):
        decode(make())


def test_what_is_no_picture_is_told_what_is_one() -> None:
    with pytest.raises(UnsupportedPicture) as refusal:
        decode(b"no picture")

    assert refusal.value.limit == FORMAT_NAMES


def test_scans_are_counted_no_further_than_they_are_read() -> None:
    data = encoded(drawing(), "JPEG") + b"\xff\xda\0\x08\x01" * 100_000
    tracemalloc.start()

    with pytest.raises(InvalidPicture, match="more than 32 scans"):
        decode(data)

    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 100_000  # a byte for each scan


def test_strips_that_a_tiff_has_no_rows_for_are_not_read() -> None:
    picture = decode(pictures.tiff_of_strips(pictures.CRUMBS))

    assert_colours(quarters(picture.pixels), [(120, 120, 120)] * 4, tolerance=0)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_a_picture_cut_off_anywhere_is_refused(file_format: str) -> None:
    data = encoded(noise(), file_format)

    for percent in range(1, 100):
        with pytest.raises((InvalidPicture, UnsupportedPicture)):
            decode(data[: len(data) * percent // 100])


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_damage_anywhere_is_a_picture_or_a_refusal(file_format: str) -> None:
    whole = encoded(drawing(), file_format)
    draw = np.random.default_rng(0)

    for _ in range(200):
        damaged = np.frombuffer(whole, np.uint8).copy()
        damaged[draw.integers(0, len(damaged), 4)] = draw.integers(0, 256, 4)
        with suppress(CallerError):
            assert decode(damaged.tobytes()).pixels.shape[2] == 3


def test_a_progressive_picture_cut_off_anywhere_is_refused() -> None:
    data = encoded(noise(), "JPEG", progressive=True)

    for percent in range(1, 100):
        with pytest.raises(InvalidPicture):
            decode(data[: len(data) * percent // 100])


def test_an_ordinary_progressive_picture_is_read() -> None:
    assert_colours(quarters(decode(encoded(drawing(), "JPEG", progressive=True)).pixels), [RED, GREEN, BLUE, YELLOW])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_every_orientation_comes_out_upright(orientation: int, file_format: str) -> None:
    picture = decode(pictures.oriented(orientation, file_format))

    assert (picture.width, picture.height) == (96, 64)
    assert_colours(quarters(picture.pixels), [RED, GREEN, BLUE, YELLOW])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("wanted_px", [4096, 32])
def test_a_box_is_in_the_upright_picture_in_every_orientation_and_at_every_decoded_size(orientation: int, wanted_px: int) -> None:
    # The right half of the blue quarter of an 800 x 480 drawing: only the upright picture is blue there.
    box = Box(200, 240, 200, 240)

    picture = decode(pictures.oriented(orientation, size=(800, 480)), box=box, wanted_px=wanted_px)

    assert picture.box == box
    assert_colours(quarters(picture.pixels), [BLUE] * 4)


def test_decoding_shrinks_towards_what_is_wanted_and_never_below() -> None:
    for file_format in ("JPEG", "PNG"):
        for side in (100, 250, 799, 800, 801):
            pixels = decode(encoded(drawing(side, side // 2), file_format), wanted_px=100).pixels

            assert 100 <= max(pixels.shape[:2]) < 200, (file_format, side)


def test_a_small_box_in_a_large_picture_is_not_shrunk() -> None:
    picture = decode(encoded(drawing(1600, 800), "JPEG"), box=Box(100, 40, 120, 90), wanted_px=100)

    assert picture.pixels.shape == (90, 120, 3)
    assert (picture.width, picture.height) == (1600, 800)


def test_a_box_that_ends_between_decoded_pixels_has_them_all() -> None:
    # 1000 x 500 decoded at an eighth is 125 x 63; 801 x 401 of it is 100.1 x 50.5.
    picture = decode(encoded(drawing(1000, 500), "JPEG"), box=Box(0, 0, 801, 401), wanted_px=100)

    assert picture.pixels.shape == (51, 101, 3)


@pytest.mark.parametrize("box", [Box(0, 0, 97, 64), Box(-1, 0, 20, 20), Box(90, 60, 20, 20), Box(0, 0, 7, 20), Box(0, 0, 0, 0)])
def test_a_box_that_does_not_fit_is_refused_by_name(box: Box) -> None:
    with pytest.raises(InvalidInput) as refusal:
        decode(encoded(drawing()), box=box)

    assert refusal.value.field == "image.box"
    assert refusal.value.limit is not None


def test_a_picture_of_exactly_the_limit_is_read_and_one_row_more_is_not() -> None:
    at_the_limit = PictureDecoder(max_pixels=96 * 64)

    assert at_the_limit(encoded(drawing(96, 64)), box=None, wanted_px=96, field="image").height == 64
    with pytest.raises(TooLarge) as refusal:
        at_the_limit(encoded(drawing(96, 65)), box=None, wanted_px=96, field="image")
    assert refusal.value.limit == 96 * 64


def test_eight_pixels_a_side_are_enough() -> None:
    assert decode(encoded(drawing(8, 8))).pixels.shape == (8, 8, 3)


@pytest.mark.parametrize(("file_format", "mode"), [("PNG", "RGBA"), ("WEBP", "RGBA"), ("PNG", "LA"), ("PNG", "PA")])
def test_what_is_transparent_comes_out_white(file_format: str, mode: str) -> None:
    clear_left = drawing()
    clear_left.putalpha(Image.fromarray(np.repeat([[0, 255]], 64, axis=0).repeat(48, axis=1).astype(np.uint8)))
    image = clear_left.quantize(method=Image.Quantize.FASTOCTREE) if mode == "PA" else clear_left.convert(mode)

    found = quarters(decode(encoded(image, file_format)).pixels)

    assert_colours([found[0], found[2]], [WHITE, WHITE], tolerance=1)
    assert max(found[1]) < 250


def test_half_transparent_is_half_way_to_white() -> None:
    picture = decode(encoded(Image.new("RGBA", (16, 16), (0, 100, 200, 51))))  # 51 of 255 is a fifth

    assert_colours(quarters(picture.pixels), [(204, 224, 244)] * 4, tolerance=1)


def test_the_transparent_colour_of_a_gif_comes_out_white() -> None:
    image = drawing().quantize(4)
    red_index = image.getpixel((10, 10))

    picture = decode(encoded(image, "GIF", transparency=red_index))

    assert_colours(quarters(picture.pixels), [WHITE, GREEN, BLUE, YELLOW])


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    # By hand: 40,000 of 65,535 is 156 of 255.
    assert_colours(quarters(decode(pictures.deep_grey_png(40_000)).pixels), [(156, 156, 156)] * 4, tolerance=1)
    assert_colours(quarters(decode(pictures.deep_colour_png((40_000, 0, 65_535))).pixels), [(156, 0, 255)] * 4, tolerance=1)
    assert_colours(quarters(decode(pictures.deep_grey_tiff(photometric=1)).pixels), [(0, 0, 0)] * 4, tolerance=0)


def test_the_transparent_grey_of_sixteen_bits_comes_out_white() -> None:
    assert_colours(quarters(decode(pictures.deep_grey_png(7, transparent=7)).pixels), [WHITE] * 4, tolerance=0)


@pytest.mark.parametrize("file_format", ["JPEG", "TIFF"])
def test_cmyk_comes_out_as_the_colours_it_was_made_of(file_format: str) -> None:
    picture = decode(encoded(drawing().convert("CMYK"), file_format))

    assert_colours(quarters(picture.pixels), [RED, GREEN, BLUE, YELLOW])


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_grey_bilevel_and_palette_become_colour(mode: str) -> None:
    black_and_white = Image.fromarray(np.repeat([[0, 255]], 64, axis=0).repeat(48, axis=1).astype(np.uint8))

    picture = decode(encoded(black_and_white.convert(mode)))

    assert quarters(picture.pixels) == [(0, 0, 0), WHITE] * 2


@pytest.mark.parametrize(
    ("file_format", "mode"), [("JPEG", "RGB"), ("PNG", "RGB"), ("PNG", "RGBA"), ("WEBP", "RGB"), ("TIFF", "RGB")]
)
def test_the_embedded_profile_is_applied(file_format: str, mode: str) -> None:
    tagged = encoded(Image.new(mode, (16, 16), (255, 0, 0)), file_format, quality=95, icc_profile=pictures.swapped_profile())

    assert_colours(quarters(decode(tagged).pixels), [(0, 0, 255)] * 4, tolerance=2)


def test_the_profile_of_a_grey_picture_may_be_one_of_colours() -> None:
    tagged = encoded(Image.new("L", (16, 16), 120), icc_profile=pictures.linear_profile())

    # By hand: (120/255 + 0.055) / 1.055 = 0.498 of the light, which sRGB writes as 1.055 * 0.498 ** (1/2.4) - 0.055 = 0.734.
    assert_colours(quarters(decode(tagged).pixels), [(187, 187, 187)] * 4, tolerance=2)


def test_a_broken_profile_is_ignored() -> None:
    for profile in (b"no profile", pictures.swapped_profile()[:200]):
        tagged = encoded(drawing(), "JPEG", icc_profile=profile)

        assert_colours(quarters(decode(tagged).pixels), [RED, GREEN, BLUE, YELLOW])


def test_broken_exif_is_ignored() -> None:
    for exif in (b"Exif\0\0", b"Exif\0\0MM\0*\xff\xff\xff\xff", b"Exif\0\0II*\0\x08\0\0\0\xff\xff"):
        picture = decode(encoded(drawing(), "JPEG", exif=exif))

        assert_colours(quarters(picture.pixels), [RED, GREEN, BLUE, YELLOW])
    assert_colours(quarters(decode(pictures.png_of_broken_exif()).pixels), [(120, 120, 120)] * 4, tolerance=0)


def test_an_unknown_orientation_is_upright() -> None:
    exif = Image.Exif()
    exif[pictures.ORIENTATION_TAG] = 9

    assert_colours(quarters(decode(encoded(drawing(), "JPEG", exif=exif)).pixels), [RED, GREEN, BLUE, YELLOW])


def test_an_mpo_is_its_first_picture() -> None:
    second = Image.new("RGB", (96, 64))

    picture = decode(encoded(drawing(), "MPO", save_all=True, append_images=[second]))

    assert_colours(quarters(picture.pixels), [RED, GREEN, BLUE, YELLOW])


def test_a_crop_has_the_wanted_size_and_the_same_bytes_every_time() -> None:
    pixels = np.asarray(drawing(640, 320))

    data = encode_crop(pixels, max_side_px=256)

    assert data == encode_crop(pixels.copy(), max_side_px=256)
    assert decode_crop(data).shape == (128, 256, 3)
    assert_colours(quarters(decode_crop(data)), [RED, GREEN, BLUE, YELLOW])


def test_a_crop_is_never_enlarged_and_keeps_fine_colour() -> None:
    # Red and blue columns of one pixel: with subsampled colours both would come out purple.
    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[:, 0::2, 0] = stripes[:, 1::2, 2] = 255

    crop = decode_crop(encode_crop(stripes, max_side_px=256))

    assert crop.shape == stripes.shape
    np.testing.assert_allclose(crop.astype(int), stripes, atol=40)


def test_resizing_stretches_to_a_square_and_averages_what_it_cannot_show() -> None:
    checkers = (np.indices((256, 512)).sum(axis=0) % 2 * 255).astype(np.uint8)[:, :, None].repeat(3, axis=2)

    square = resize(checkers, 32)

    assert square.shape == (32, 32, 3)
    np.testing.assert_allclose(square, 127.5, atol=3)


def noise() -> Image.Image:
    """Nothing in it can be left out: a file cut off early has lost pixels."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8))


@pytest.mark.parametrize(("width", "height"), [(480, 360), (100, 300), (2000, 7), (32, 32)])
def test_a_square_has_the_pixels_that_pillow_makes(width: int, height: int) -> None:
    pixels, fit = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8), Fit(width, height, 32)
    pasted = Image.new("RGB", (32, 32), (128, 128, 128))
    pasted.paste(Image.fromarray(pixels).resize(fit.size, Image.Resampling.BICUBIC, reducing_gap=2.0), fit.corner)
    assert (squared(pixels, fit) == np.asarray(pasted)).all()


def test_a_picture_lies_in_the_middle_of_a_grey_square() -> None:
    square = squared(np.full((20, 40, 3), 255, np.uint8), Fit(40, 20, 32))
    assert square.shape == (32, 32, 3)
    assert square[7].tolist() == [[128] * 3] * 32
    assert square[8].tolist() == square[23].tolist() == [[255] * 3] * 32
