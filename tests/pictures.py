"""Pictures drawn in memory: good ones of every kind that is accepted, and hostile ones of every kind that must be refused.

Each function makes the bytes anew, so that a test can say which picture it is about in one word.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageCms
from PIL.Image import Transpose

from app.errors import CallerError, InvalidPicture, TooLarge, UnsupportedPicture

RED, GREEN, BLUE, YELLOW = (200, 40, 30), (20, 160, 60), (30, 60, 200), (230, 210, 40)

# EXIF orientation -> what a camera that was held like this does to the picture.
CAMERA_TURNS = {
    1: None,
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_90,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_270,
}
ORIENTATION_TAG = 0x0112


def drawing(width: int = 96, height: int = 64) -> Image.Image:
    """Four plain quarters, red and green above blue and yellow: no two of the eight orientations look the same."""
    pixels = np.empty((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2] = RED
    pixels[: height // 2, width // 2 :] = GREEN
    pixels[height // 2 :, : width // 2] = BLUE
    pixels[height // 2 :, width // 2 :] = YELLOW
    return Image.fromarray(pixels)


def encoded(image: Image.Image, file_format: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def oriented(orientation: int, file_format: str = "JPEG", size: tuple[int, int] = (96, 64)) -> bytes:
    """The drawing as a turned camera stores it, with the tag that says so."""
    turn = CAMERA_TURNS[orientation]
    image = drawing(*size) if turn is None else drawing(*size).transpose(turn)
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    return encoded(image, file_format, exif=exif)


def swapped_profile() -> bytes:
    """The sRGB profile with red and blue exchanged: what it is applied to shows that it was."""
    return _srgb_profile().replace(b"rXYZ", b"swap").replace(b"bXYZ", b"rXYZ").replace(b"swap", b"bXYZ")


def linear_profile() -> bytes:
    """The sRGB profile with the exponent of its curve, 2.4, made 1."""
    return _srgb_profile().replace(b"\0\x02\x66\x66", b"\0\x01\0\0")


def _srgb_profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def animated(file_format: str, frames: int = 3) -> bytes:
    others = [Image.new("RGB", (96, 64), (number % 256, number // 256, 255)) for number in range(1, frames)]
    return encoded(drawing(), file_format, save_all=True, append_images=others)


def progressive_jpeg(scans: int, image: Image.Image | None = None) -> bytes:
    """A progressive JPEG whose last scan is repeated: every repetition costs a whole pass over the picture."""
    jpeg = encoded(image or drawing(), "JPEG", progressive=True)
    end_of_image = jpeg[-2:]
    last_scan = jpeg[jpeg.rindex(b"\xff\xda") : -2]
    return jpeg[:-2] + last_scan * (scans - jpeg.count(b"\xff\xda")) + end_of_image


def png_of(width: int, height: int, *, bits: int, colour_type: int, rows: bytes, extra: bytes = b"") -> bytes:
    """A PNG of these unpacked rows, each with its filter byte; `extra` are finished chunks before the pixels."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def deep_grey_png(sample: int, *, transparent: int | None = None) -> bytes:
    """16 x 16 pixels of one 16-bit grey."""
    extra = b"" if transparent is None else png_chunk(b"tRNS", struct.pack(">H", transparent))
    return png_of(16, 16, bits=16, colour_type=0, rows=(b"\0" + struct.pack(">H", sample) * 16) * 16, extra=extra)


def deep_colour_png(samples: tuple[int, int, int]) -> bytes:
    """16 x 16 pixels of one colour of 16 bits a channel."""
    return png_of(16, 16, bits=16, colour_type=2, rows=(b"\0" + struct.pack(">HHH", *samples) * 16) * 16)


def png_of_broken_exif() -> bytes:
    """EXIF as ImageMagick writes it into text, in hexadecimal digits, that are none."""
    exif = png_chunk(b"tEXt", b"Raw profile type exif\0\nexif\n4\nnone\n")
    return png_of(16, 16, bits=8, colour_type=0, rows=(b"\0" + b"\x78" * 16) * 16, extra=exif)


def tiff_of_strips(count: int) -> bytes:
    """16 x 16 grey pixels, one row a strip, and a list of `count` strips all the same."""
    pixels_at = 8 + 2 + 12 * 9 + 4
    offsets_at, counts_at = pixels_at + 16, pixels_at + 16 + 4 * count
    single = {256: 16, 257: 16, 258: 8, 259: 1, 262: 1, 277: 1, 278: 1}
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in single.items()]
    entries += [struct.pack("<HHII", 273, 4, count, offsets_at), struct.pack("<HHII", 279, 4, count, counts_at)]
    lists = struct.pack("<I", pixels_at) * count + struct.pack("<I", 16) * count
    return b"II*\0\x08\0\0\0" + struct.pack("<H", 9) + b"".join(sorted(entries)) + b"\0\0\0\0" + b"\x78" * 16 + lists


def tiff(entries: dict[int, int], pixels: bytes) -> bytes:
    """A little-endian TIFF of LONG entries; STRIPOFFSETS and TILEOFFSETS are filled in."""
    strip_offsets, tile_offsets = 273, 324
    at = 8 + 2 + 12 * len(entries) + 4
    located = {tag: at if tag in (strip_offsets, tile_offsets) else value for tag, value in entries.items()}
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(located.items()))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + directory + b"\0\0\0\0" + pixels


def deep_grey_tiff(*, photometric: int) -> bytes:
    """16 x 16 black or white pixels of 16 bits, by what zero means."""
    return tiff({256: 16, 257: 16, 258: 16, 259: 1, 262: photometric, 273: 0, 277: 1, 278: 16, 279: 512}, b"\0" * 512)


def jpeg_header(width: int, height: int) -> bytes:
    """A small JPEG whose header claims another size."""
    jpeg = encoded(drawing(), "JPEG")
    size_at = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:size_at] + struct.pack(">HH", height, width) + jpeg[size_at + 4 :]


def bmp(width: int, height: int, *, compression: int = 0, pixels: bytes = b"") -> bytes:
    """A BMP of 8 bits a pixel and a palette of 256 colours."""
    palette = bytes(value for index in range(256) for value in (index, 0, 0, 0))
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, compression, len(pixels), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 14 + 40 + 1024 + len(pixels), 0, 0, 14 + 40 + 1024) + info + palette + pixels


def webp_canvas(width: int, height: int) -> bytes:
    """An extended WebP header and nothing else."""
    size = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    return b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + size


def gif_of_empty_blocks(count: int) -> bytes:
    return b"GIF89a" + struct.pack("<HHBBB", 16, 16, 0, 0, 0) + b"!\xfe\x01 \0" * count


def png_of_text(megabytes: int) -> bytes:
    """Text chunks that unpack to a megabyte each, from a kilobyte each."""
    text = b"".join(png_chunk(b"zTXt", b"key%d\0\0" % number + zlib.compress(b" " * 2**20)) for number in range(megabytes))
    return png_of(16, 16, bits=8, colour_type=0, rows=b"\0" * 17 * 16, extra=text)


def tiff_of_one_huge_tile() -> bytes:
    """64 x 64 pixels in a tile of 16,384 x 16,384, which 255 KiB unpack to."""
    side = 16_384
    packed = zlib.compress(b"\0" * (side * side))
    return tiff({256: 64, 257: 64, 258: 8, 259: 8, 262: 1, 277: 1, 322: side, 323: side, 324: 0, 325: len(packed)}, packed)


CRUMBS = 250_000  # pieces of a few bytes that a file is cut into

# Name -> how to make it, and the error that it must be answered with. Limits as in production or stricter.
HOSTILE: dict[str, tuple[Callable[[], bytes], type[CallerError]]] = {
    "empty": (lambda: b"", InvalidPicture),
    "text": (lambda: b"BMW and other words that begin like a picture", UnsupportedPicture),
    "svg": (lambda: b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', UnsupportedPicture),
    "pdf": (lambda: b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", UnsupportedPicture),
    "eps": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", UnsupportedPicture),
    "ico": (lambda: encoded(drawing(), "ICO"), UnsupportedPicture),
    "jpeg 2000": (lambda: encoded(drawing(), "JPEG2000"), UnsupportedPicture),
    "avif": (lambda: encoded(drawing(), "AVIF"), UnsupportedPicture),
    "ppm": (lambda: encoded(drawing(), "PPM"), UnsupportedPicture),
    "seven pixels high": (lambda: encoded(drawing(40, 7)), InvalidPicture),
    "one pixel": (lambda: encoded(drawing(1, 1)), InvalidPicture),
    "animated gif": (lambda: animated("GIF"), InvalidPicture),
    "animated webp": (lambda: animated("WEBP"), InvalidPicture),
    "animated png": (lambda: animated("PNG"), InvalidPicture),
    "gif of 2,000 frames": (lambda: animated("GIF", frames=2_000), InvalidPicture),
    "tiff of two pages": (lambda: animated("TIFF", frames=2), InvalidPicture),
    "truncated jpeg": (lambda: _half(encoded(drawing(), "JPEG")), InvalidPicture),
    "truncated png": (lambda: _half(encoded(drawing())), InvalidPicture),
    "jpeg of 65,535 a side": (lambda: jpeg_header(65_535, 65_535), TooLarge),
    "png of 2**31 - 1 a side": (lambda: png_of(2**31 - 1, 2**31 - 1, bits=8, colour_type=2, rows=b""), TooLarge),
    "webp of 16,383 a side": (lambda: webp_canvas(16_383, 16_383), TooLarge),
    "bmp of 65,535 a side": (lambda: bmp(65_535, 65_535), TooLarge),
    "gif of 65,535 a side": (
        lambda: encoded(drawing(), "GIF").replace(struct.pack("<HH", 96, 64), b"\xff\xff\xff\xff"),
        TooLarge,
    ),
    "tiff of 65,535 a side": (lambda: tiff({256: 65_535, 257: 65_535, 258: 8, 259: 1, 262: 1, 273: 0, 279: 1}, b"\0"), TooLarge),
    "tiff in one huge tile": (tiff_of_one_huge_tile, TooLarge),
    "jpeg of 156 scans": (lambda: progressive_jpeg(156), InvalidPicture),
    "jpeg of comments": (lambda: b"\xff\xd8" + b"\xff\xfe\0\x02" * CRUMBS, InvalidPicture),
    "jpeg of padding": (lambda: b"\xff\xd8" + b"\xff" * CRUMBS, InvalidPicture),
    "png of empty chunks": (
        lambda: png_of(16, 16, bits=8, colour_type=0, rows=b"", extra=png_chunk(b"abcd", b"") * CRUMBS),
        InvalidPicture,
    ),
    "png of packed text": (lambda: png_of_text(megabytes=40), InvalidPicture),
    "gif of empty blocks": (lambda: gif_of_empty_blocks(CRUMBS), InvalidPicture),
    "run-length bmp": (lambda: bmp(4_000, 4_000, compression=1, pixels=b"\x01\0\0\0" * 4_000), InvalidPicture),
    "floating-point tiff": (lambda: encoded(Image.new("F", (16, 16)), "TIFF"), InvalidPicture),
    "lab tiff": (lambda: encoded(Image.new("LAB", (16, 16)), "TIFF"), InvalidPicture),
    "16-bit tiff of white zeros": (lambda: deep_grey_tiff(photometric=0), InvalidPicture),
}


def _half(data: bytes) -> bytes:
    return data[: len(data) // 2]
