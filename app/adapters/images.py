"""Pictures from strangers -> upright RGB pixels, and stored crops. Pillow lives here and nowhere else.

What comes in is hostile until decoded: the format is decided by content against a short list, size and frames are checked on the
header, and whatever Pillow raises is a refusal. Grey, palette, CMYK, YCCK, 1-bit and 16-bit samples (scaled, not clipped) become
8-bit RGB; 32-bit, floating-point and Lab samples are refused.
"""

from __future__ import annotations

import io
import re
from contextlib import suppress
from itertools import islice

import numpy as np
from PIL import ExifTags, Image, ImageCms, PngImagePlugin, TiffImagePlugin
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from app.domain.boxes import MIN_SIDE_PX, check_box
from app.domain.posterior import Fit
from app.domain.regions import GREY
from app.domain.values import Box, Picture, PixelArray
from app.errors import FirstsightError, InvalidPicture, TooLarge, UnsupportedPicture

# Opened by class, so that no other decoder is ever entered, and an MPO is its first JPEG.
FORMATS: tuple[tuple[re.Pattern[bytes], type[ImageFile]], ...] = (
    (re.compile(rb"\xff\xd8\xff"), JpegImageFile),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), PngImageFile),
    (re.compile(rb"RIFF.{4}WEBP", re.DOTALL), WebPImageFile),
    (re.compile(rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0", re.DOTALL), BmpImageFile),  # the sizes a BMP header can have
    (re.compile(rb"GIF8[79]a"), GifImageFile),
    (re.compile(rb"II\*\0|MM\0\*"), TiffImageFile),
)
FORMAT_NAMES = "JPEG, PNG, WebP, BMP, GIF or TIFF"

# A scan costs up to 0.1 s of a core at 50 megapixels, however few bytes it has. Encoders write 1 to about 20.
MAX_JPEG_SCANS = 32
# Every true start of scan looks like this, its length fixed by its components; chance matches are one in 2**38.
JPEG_SCAN = re.compile(rb"\xff\xda\0(?:\x08\x01|\x0a\x02|\x0c\x03|\x0e\x04)")

# Pillow walks chunks, segments and blocks in Python, about 2 µs a read. 20 MB of GIF in full blocks need 160,000 reads.
MAX_READS = 200_000
MAX_PNG_TEXT_BYTES = 4 * 1024 * 1024  # unpacked; Pillow allows 64 MiB, which 64 KiB of PNG can ask for

TURNS = {  # EXIF orientation -> what makes the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = {Image.Transpose.TRANSPOSE, Image.Transpose.ROTATE_270, Image.Transpose.TRANSVERSE, Image.Transpose.ROTATE_90}

BMP_RUN_LENGTH = (1, 2)  # BI_RLE8 and BI_RLE4 in the header
WHITE_IS_ZERO = 0  # TIFF 6.0, PhotometricInterpretation; Pillow inverts 8 bits of it, not 16

CROP_JPEG_QUALITY = 92


class PictureDecoder:
    """Fits `ports.Decode`. Refuses more than `max_pixels` before a pixel is decoded."""

    def __init__(self, *, max_pixels: int) -> None:
        self._max_pixels = max_pixels
        # Pillow knows these limits for a whole process only. Twice the first, it does not even open; WebP allocates on opening.
        Image.MAX_IMAGE_PIXELS = max_pixels
        PngImagePlugin.MAX_TEXT_MEMORY = MAX_PNG_TEXT_BYTES
        # Its own reader lists the strips of an uncompressed TIFF in Python: a second and 250 MiB for 5 MB of them.
        TiffImagePlugin.READ_LIBTIFF = True

    def __call__(self, data: bytes, *, box: Box | None, wanted_px: int, field: str) -> Picture:
        open_format = _format_of(data, field)
        try:
            if open_format is JpegImageFile:
                _check_scans(data, field)
            return self._decode(open_format(_MeteredBytes(data)), box=box, wanted_px=wanted_px, field=field)
        except FirstsightError:
            raise
        except Image.DecompressionBombError as error:
            raise self._too_large(field) from error
        except Exception as error:  # Pillow documents no exceptions: broken files raise whatever broke
            raise InvalidPicture(f"The picture cannot be decoded: {str(error) or type(error).__name__}.", field=field) from error

    def _decode(self, image: ImageFile, *, box: Box | None, wanted_px: int, field: str) -> Picture:
        self._check_header(image, field)
        turn = _turn_of(image)
        width, height = reversed(image.size) if turn in SIDEWAYS else image.size
        box = Box(0, 0, width, height) if box is None else check_box(box, width, height, field=f"{field}.box")
        if isinstance(image, JpegImageFile):
            _draft(image, shrink=max(box.width, box.height) // wanted_px)
        image.load()
        upright = image if turn is None else image.transpose(turn)
        region = _region(_reducible(upright, field), _scaled(box, upright, width, height), wanted_px)
        return Picture(np.asarray(_in_srgb(_over_white(region), image.info.get("icc_profile"))), box, width, height)

    def _check_header(self, image: ImageFile, field: str) -> None:
        if image.width * image.height > self._max_pixels:
            raise self._too_large(field)
        if min(image.size) < MIN_SIDE_PX:
            raise InvalidPicture(
                f"A picture has sides of {MIN_SIDE_PX} pixels or more, this one is {image.width} x {image.height}.",
                field=field,
                limit=MIN_SIDE_PX,
            )
        if getattr(image, "is_animated", False):
            raise InvalidPicture("The picture has several frames or pages: send one of them.", field=field, limit=1)
        if isinstance(image, BmpImageFile):
            _check_bmp(image, field)
        if isinstance(image, TiffImageFile):
            self._check_tiff(image, field)

    def _check_tiff(self, image: TiffImageFile, field: str) -> None:
        # A tile may be larger than its picture, and is unpacked whole.
        if image.tag_v2.get(TiffImagePlugin.TILEWIDTH, 0) * image.tag_v2.get(TiffImagePlugin.TILELENGTH, 0) > self._max_pixels:
            raise self._too_large(field)
        if image.mode == "I;16" and image.tag_v2.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == WHITE_IS_ZERO:
            raise InvalidPicture("A 16-bit TIFF whose white is zero is not read: invert it.", field=field)

    def _too_large(self, field: str) -> TooLarge:
        return TooLarge(f"The picture has more than {self._max_pixels} pixels.", field=field, limit=self._max_pixels)


class _MeteredBytes(io.BytesIO):
    """A file whose patience ends after `MAX_READS`: against megabytes of empty chunks, one-byte blocks or padding."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._reads_left = MAX_READS

    def read(self, size: int | None = -1, /) -> bytes:
        self._reads_left -= 1
        if self._reads_left < 0:
            raise OSError("the file is cut into too many small pieces")
        return super().read(size)


def encode_crop(pixels: PixelArray, *, max_side_px: int) -> bytes:
    """Pixels (h, w, 3) -> JPEG of at most `max_side_px` a side, colours not subsampled; the same bytes every time."""
    image = Image.fromarray(pixels)
    image.thumbnail((max_side_px, max_side_px), Image.Resampling.LANCZOS)
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=CROP_JPEG_QUALITY, subsampling="4:4:4")
    return encoded.getvalue()


def decode_crop(data: bytes) -> PixelArray:
    """What `encode_crop` wrote -> pixels (h, w, 3). Trusted: no limits."""
    return np.asarray(JpegImageFile(io.BytesIO(data)))


def resize(pixels: PixelArray, side_px: int) -> PixelArray:
    """Pixels (h, w, 3) -> (side, side, 3) by stretching, antialiased."""
    return np.asarray(Image.fromarray(pixels).resize((side_px, side_px), Image.Resampling.BICUBIC, reducing_gap=2.0))


def squared(pixels: PixelArray, fit: Fit) -> PixelArray:
    """Pixels (h, w, 3) of a picture as it lies in a grey square -> (side, side, 3), antialiased."""
    square = np.full((fit.side_px, fit.side_px, 3), GREY, np.uint8)
    (left, top), (width, height) = fit.corner, fit.size
    sized = Image.fromarray(pixels).resize(fit.size, Image.Resampling.BICUBIC, reducing_gap=2.0)
    square[top : top + height, left : left + width] = np.asarray(sized)
    return square


def _format_of(data: bytes, field: str) -> type[ImageFile]:
    if not data:
        raise InvalidPicture("The picture is empty.", field=field)
    for signature, image_class in FORMATS:
        if signature.match(data):
            return image_class
    raise UnsupportedPicture(
        f"This is no picture that can be read: it is not a {FORMAT_NAMES} file.", field=field, limit=FORMAT_NAMES
    )


def _check_scans(data: bytes, field: str) -> None:
    if any(islice(JPEG_SCAN.finditer(data), MAX_JPEG_SCANS, None)):
        raise InvalidPicture(f"The JPEG has more than {MAX_JPEG_SCANS} scans.", field=field, limit=MAX_JPEG_SCANS)


def _check_bmp(image: BmpImageFile, field: str) -> None:
    # Pillow unpacks these in Python: 5 s at 36 megapixels, from 24 KB.
    if image.info["compression"] in BMP_RUN_LENGTH:
        raise InvalidPicture("A run-length encoded BMP is not read: save it uncompressed, or as PNG.", field=field)


def _turn_of(image: ImageFile) -> Image.Transpose | None:
    if isinstance(image, TiffImageFile):  # Pillow turns these while it decodes them
        return None
    with suppress(Exception):  # malformed EXIF says nothing about the pixels
        return TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    return None


def _draft(image: JpegImageFile, *, shrink: int) -> None:
    """Has a JPEG decoded at 1/2, 1/4 or 1/8 of its size, whichever is nearest to 1/`shrink` and not smaller."""
    if shrink > 1:
        # Rounded up, so that Pillow, which divides again and rounds down, never comes to more than `shrink`.
        image.draft(None, (-(-image.width // shrink), -(-image.height // shrink)))


def _scaled(box: Box, upright: Image.Image, width: int, height: int) -> tuple[int, int, int, int]:
    """Left, top, right, bottom in a width x height picture decoded at any smaller size; partly covered pixels are in."""
    return (
        box.x * upright.width // width,
        box.y * upright.height // height,
        -(-(box.x + box.width) * upright.width // width),
        -(-(box.y + box.height) * upright.height // height),
    )


def _reducible(image: Image.Image, field: str) -> Image.Image:
    """Any mode -> L, LA, RGB, RGBA or CMYK of 8 bits: those of which pixels can be averaged."""
    if image.mode.startswith("I;16"):
        return _eight_bits(image)
    if image.mode in ("I", "F", "LAB"):
        raise InvalidPicture("Samples of 32 bits, floating point or Lab are not read: save it with 8 or 16 bits.", field=field)
    if image.mode in ("LA", "RGBA"):
        return image
    if image.has_transparency_data:
        return image.convert("RGBA")
    return image if image.mode in ("L", "RGB", "CMYK") else image.convert("RGB")


def _region(image: Image.Image, corners: tuple[int, int, int, int], wanted_px: int) -> Image.Image:
    """What is inside the corners, shrunk by a whole number to `wanted_px` or a little more."""
    left, top, right, bottom = corners
    shrink = max(right - left, bottom - top) // wanted_px
    # Both at once, because a crop of a whole large picture is a second one in memory.
    return image.reduce(shrink, corners) if shrink > 1 else image.crop(corners)


def _over_white(image: Image.Image) -> Image.Image:
    if image.mode not in ("LA", "RGBA"):
        return image
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA")).convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey -> L by the high byte, as Pillow does for 16-bit colour; its own conversion of grey clips at 255."""
    samples = np.asarray(image)  # (h, w) uint16
    grey = (samples >> 8).astype(np.uint8)
    grey[samples == image.info.get("transparency")] = 255  # white, as all that is transparent
    return Image.fromarray(grey)


def _in_srgb(image: Image.Image, icc_profile: bytes | None) -> Image.Image:
    """A profile that is broken, or about other channels, is ignored, as browsers do."""
    if icc_profile:
        with suppress(ImageCms.PyCMSError, OSError):
            profile = ImageCms.ImageCmsProfile(io.BytesIO(icc_profile))
            # Grey pictures are often saved with the RGB profile of their editor.
            mode = "RGB" if profile.profile.xcolor_space == "RGB " else image.mode
            to_srgb = ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), mode, "RGB")
            return to_srgb.apply(image.convert(mode))
    return image.convert("RGB")
