"""Images of every mode, depth and orientation, as one sees them."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin, TiffImagePlugin

from mmtransmamba.utils.images import ImageError, open_image, to_rgb

ORIENTATION = 0x0112
GREY = np.linspace(0, 255, 64).round().astype(np.uint8).reshape(8, 8)
FULL = GREY.astype(np.uint16) * 257
PICTURE = np.zeros((20, 40, 3), np.uint8)
PICTURE[:10, :20] = 255, 0, 0
PICTURE[10:, 20:] = 0, 0, 255


def encoded(image, format, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def off_by(image, expected) -> int:
    """Largest difference from grey values [H, W] or colours [H, W, 3]."""
    assert image.mode == 'RGB'
    expected = np.asarray(expected, int)
    if expected.ndim == 2:
        expected = expected[..., None].repeat(3, 2)
    assert np.asarray(image).shape == expected.shape
    return int(abs(np.asarray(image).astype(int) - expected).max())


# A viewer's reading of rows that do not belong to the picture.
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize('format', ['JPEG', 'PNG', 'TIFF', 'WEBP'])
@pytest.mark.parametrize('orientation', UPRIGHT)
def test_images_are_turned_upright_once(format, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    options = dict(JPEG=dict(quality=100), WEBP=dict(lossless=True)).get(format, {})
    data = encoded(Image.fromarray(PICTURE), format, exif=exif, **options)
    image = open_image(data)
    assert image.size == ((40, 20) if orientation < 5 else (20, 40))
    inner = np.s_[::2, ::2] if format == 'JPEG' else np.s_[:]
    wanted = UPRIGHT[orientation](PICTURE)
    off = abs(np.asarray(image).astype(int) - wanted)[inner]
    assert np.median(off) <= 2 and off.mean() < 6
    # A picture that has been read is upright when it is read again.
    assert not image.getexif() and to_rgb(image).tobytes() == image.tobytes()


def test_orientation_in_xmp_alone():
    xmp = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/'
        b'1999/02/22-rdf-syntax-ns#"><rdf:Description tiff:Orientation="6" '
        b'xmlns:tiff="http://ns.adobe.com/tiff/1.0/"/></rdf:RDF></x:xmpmeta>'
    )
    info = PngImagePlugin.PngInfo()
    info.add_itxt('XML:com.adobe.xmp', xmp.decode())
    data = encoded(Image.fromarray(PICTURE), 'PNG', pnginfo=info)
    assert open_image(data).size == (20, 40)


@pytest.mark.parametrize('value', [0, 9, 'left'])
def test_an_orientation_that_is_none_turns_nothing(value):
    image = Image.fromarray(PICTURE)
    image.getexif()[ORIENTATION] = value
    assert off_by(to_rgb(image), PICTURE) == 0


def test_damaged_exif_turns_nothing():
    data = encoded(Image.fromarray(PICTURE), 'PNG', exif=b'Exif\0\0MM\0*\xff\xff\xff')
    assert off_by(open_image(data), PICTURE) == 0


@pytest.mark.parametrize('orientation', [6, 8])
@pytest.mark.parametrize('mode', ['L', 'P', 'LA', 'I;16', 'CMYK'])
def test_images_of_other_modes_are_turned_too(mode, orientation):
    data = Image.fromarray(np.tile(GREY[:4], (1, 2)))
    image = Image.fromarray(np.asarray(data).astype(np.uint16) * 257)
    image = image if mode == 'I;16' else data.convert(mode)
    image.getexif()[ORIENTATION] = orientation
    wanted = UPRIGHT[orientation](np.asarray(data)[..., None].repeat(3, 2))
    assert off_by(to_rgb(image), wanted) <= 2


def other_modes():
    grey = Image.fromarray(GREY)
    for mode in ('L', 'LA', 'RGB', 'RGBA', 'RGBX', 'CMYK', 'YCbCr', 'HSV', 'P', 'I'):
        yield mode, grey.convert(mode)
    yield 'La', grey.convert('LA').convert('La')
    yield 'RGBa', grey.convert('RGBA').convert('RGBa')
    yield 'PA', grey.convert('P').convert('PA')
    profiles = ImageCms.createProfile('sRGB'), ImageCms.createProfile('LAB')
    rgb = grey.convert('RGB')
    yield 'LAB', ImageCms.profileToProfile(rgb, *profiles, outputMode='LAB')
    yield 'I;16', Image.fromarray(FULL)
    data = FULL.astype('>u2').tobytes()
    yield 'I;16B', Image.frombytes('I;16B', (8, 8), data, 'raw', 'I;16B')
    yield 'I, 16 bits', Image.fromarray(FULL.astype(np.int32))
    high = GREY.astype(np.int64) * (2**31 - 1) // 255
    yield 'I, 32 bits', Image.fromarray(high.astype(np.int32))
    for top in (1, 255, 65535, 1e6):
        yield f'F to {top:g}', Image.fromarray((GREY / 255 * top).astype(np.float32))


@pytest.mark.parametrize(
    'name, image', [pytest.param(*case, id=case[0]) for case in other_modes()]
)
def test_every_mode_shows_the_same_picture(name, image):
    before = image.tobytes()
    assert off_by(to_rgb(image), GREY) <= (8 if name in ('LAB', 'PA', 'P') else 1)
    assert image.tobytes() == before


def test_black_and_white():
    image = Image.fromarray(GREY > 127)
    assert image.mode == '1' and off_by(to_rgb(image), (GREY > 127) * 255) == 0


@pytest.mark.parametrize(
    'values, grey',
    [
        ([-3.0, float('nan'), 0.5, 1.0], [0, 0, 128, 255]),
        # A sharpened picture leaves 0..1 a little.
        ([-0.1, 0.0, 1.0, 1.1], [0, 0, 255, 255]),
        ([0.0, 1.0, 2.0, 200.0], [0, 1, 2, 200]),
        ([0.0, float('inf'), 0.0, 0.0], [0, 255, 0, 0]),
        ([-float('inf'), float('inf'), 0.2, 1.0], [0, 255, 51, 255]),
        ([0.0, 0.0, 0.0, 0.0], [0, 0, 0, 0]),
    ],
)
def test_floating_point_values_outside_of_the_range(values, grey):
    image = Image.fromarray(np.array([values], np.float32))
    assert off_by(to_rgb(image), [grey]) == 0


def test_negative_integers_are_black():
    image = Image.fromarray(np.array([[-70000, 0, 128, 255]], np.int32))
    assert off_by(to_rgb(image), [[0, 0, 128, 255]]) == 0


@pytest.mark.parametrize('format', ['PNG', 'TIFF', 'PPM', 'JPEG2000'])
def test_dark_files_of_16_bits_stay_dark(format):
    """The depth is the file's, whatever the values."""
    values = FULL // 512
    if format == 'PPM':  # older releases of Pillow only read it
        height, width = values.shape
        data = b'P5 %d %d 65535\n' % (width, height) + values.astype('>u2').tobytes()
    else:
        options = dict(irreversible=False) if format == 'JPEG2000' else {}
        data = encoded(Image.fromarray(values), format, **options)
    assert off_by(open_image(data), values / 257) <= 1


def tiff(values, **tags) -> bytes:
    """A TIFF of one strip of words of 16 bits."""
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for number, value in tags.values():
        info[number] = value
    return encoded(Image.fromarray(values), 'TIFF', tiffinfo=info)


def test_tiff_whose_zero_is_white():
    data = tiff(FULL, photometric=(262, 0))
    assert Image.open(io.BytesIO(data)).tag_v2[262] == 0
    assert off_by(open_image(data), 255 - GREY) == 0


def test_tiff_of_12_bits():
    tags = {256: 2, 257: 1, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: 1, 279: 3}
    entries = [struct.pack('<HHII', tag, 4, 1, value) for tag, value in tags.items()]
    directory = struct.pack('<H', len(tags)) + b''.join(entries) + bytes(4)
    pixels = bytes([0x80, 0x0F, 0xFF])  # 0x800 and 0xfff
    data = b'II*\0' + struct.pack('<I', 12) + pixels + b'\0' + directory
    assert off_by(open_image(data), [[128, 255]]) == 0


@pytest.mark.parametrize(
    'values, sample_format, zero, grey',
    [
        (np.array([-5, 0, 2**14, 2**15 - 1], '<i2'), 2, 1, [0, 0, 128, 255]),
        (np.array([0, 1, 2**15, 2**16 - 1], '<u2'), 1, 1, [0, 0, 128, 255]),
        (np.array([0, 2**30, 2**31, 2**32 - 1], '<u4'), 1, 1, [0, 64, 128, 255]),
        (np.array([-9, 0, 2**30, 2**31 - 1], '<i4'), 2, 1, [0, 0, 128, 255]),
        (np.array([0, 0.2, 0.4, 1], '<f4'), 3, 0, [255, 204, 153, 0]),
    ],
    ids=['int16', 'uint16', 'uint32', 'int32', 'float whose zero is white'],
)
def test_tiff_of_signed_unsigned_and_real_numbers(values, sample_format, zero, grey):
    data = values.tobytes()
    tags = {256: 4, 257: 1, 258: 8 * values.itemsize, 259: 1, 262: zero, 273: 8}
    tags |= {277: 1, 278: 1, 279: len(data), 339: sample_format}
    entries = [struct.pack('<HHII', tag, 4, 1, value) for tag, value in tags.items()]
    directory = struct.pack('<H', len(tags)) + b''.join(entries) + bytes(4)
    file = b'II*\0' + struct.pack('<I', 8 + len(data)) + data + directory
    assert off_by(open_image(file), [grey]) == 0


@pytest.mark.parametrize('bits', [np.int32, np.float32])
def test_tiff_of_32_bits(bits):
    values = FULL.astype(np.int32) if bits is np.int32 else (GREY / 255).astype(bits)
    assert off_by(open_image(encoded(Image.fromarray(values), 'TIFF')), GREY) <= 1


def png(width, height, depth, colour, rows, chunks=b'') -> bytes:
    """A PNG of raw rows, also of kinds that Pillow does not write."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack('>I', len(data)) + body + struct.pack('>I', zlib.crc32(body))

    header = struct.pack('>IIBBBBB', width, height, depth, colour, 0, 0, 0)
    data = zlib.compress(b''.join(b'\0' + row for row in rows))
    extra = b''.join(chunk(*each) for each in chunks)
    return (
        b'\x89PNG\r\n\x1a\n'
        + chunk(b'IHDR', header)
        + extra
        + chunk(b'IDAT', data)
        + chunk(b'IEND', b'')
    )


@pytest.mark.parametrize('colour, channels', [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_png_of_16_bits_of_every_colour_type(colour, channels):
    values = FULL.astype('>u2')[..., None].repeat(channels, 2)
    if channels in (2, 4):
        values[..., -1] = 65535
    data = png(8, 8, 16, colour, [row.tobytes() for row in values])
    assert off_by(open_image(data), GREY) <= 1


@pytest.mark.parametrize('depth', [1, 2, 4])
def test_png_of_few_bits(depth):
    top = 2**depth - 1
    byte = 0b11100100  # 3, 2, 1, 0 of two bits
    values = [(byte >> shift) & top for shift in range(8 - depth, -1, -depth)]
    image = open_image(png(8 // depth, 1, depth, 0, [bytes([byte])]))
    assert off_by(image, [[v * 255 // top for v in values]]) <= 1


@pytest.mark.parametrize('depth', [1, 2, 4, 8, 16])
def test_the_transparent_grey_of_a_png_has_the_depth_of_its_pixels(depth):
    rows = [bytes([0b01100100] * max(1, depth // 8))]
    columns = 8 // min(depth, 8)
    first = 0b01100100 >> (8 - depth) if depth < 8 else int.from_bytes(rows[0], 'big')
    key = (b'tRNS', struct.pack('>H', first))
    plain = np.asarray(open_image(png(columns, 1, depth, 0, rows)).convert('L'))
    shown = open_image(png(columns, 1, depth, 0, rows, [key]))
    assert off_by(shown, np.where(plain == plain[0, 0], 255, plain)) == 0


RED, WHITE = (255, 0, 0), (255, 255, 255)


def transparent_images():
    half = Image.new('RGBA', (2, 1), (*RED, 255))
    half.putpixel((1, 0), (*RED, 0))
    yield 'RGBA', half
    yield 'RGBa', half.convert('RGBa')
    palette = Image.new('P', (2, 1))
    palette.putpalette([*RED, 0, 255, 0])
    palette.putpixel((1, 0), 1)
    one, table = palette.copy(), palette.copy()
    one.info['transparency'] = 1
    table.info['transparency'] = bytes([255, 0])
    yield 'P, one', one
    yield 'P, table', table
    yield 'P, file', open_bytes(encoded(palette, 'PNG', transparency=1))
    colours = [*RED, 255, 0, 255, 0, 0]
    of_four = Image.frombytes('P', (2, 1), bytes([0, 1]))
    of_four.putpalette(colours, 'RGBA')
    yield 'P, palette of RGBA', of_four
    yield 'quantised', half.quantize(2)
    yield 'GIF', open_bytes(encoded(palette, 'GIF', transparency=1))
    colours = Image.new('RGB', (2, 1), RED)
    colours.putpixel((1, 0), (0, 255, 0))
    yield 'RGB', open_bytes(encoded(colours, 'PNG', transparency=(0, 255, 0)))
    deep = struct.pack('>6H', 65535, 0, 0, 0, 65535, 0)
    key = (b'tRNS', struct.pack('>3H', 0, 65535, 0))
    yield 'RGB, 16 bits', open_bytes(png(2, 1, 16, 2, [deep], [key]))


def open_bytes(data):
    return Image.open(io.BytesIO(data))


@pytest.mark.parametrize(
    'name, image', [pytest.param(*case, id=case[0]) for case in transparent_images()]
)
def test_what_is_transparent_shows_white(name, image):
    assert [to_rgb(image).getpixel((x, 0)) for x in (0, 1)] == [RED, WHITE]


@pytest.mark.parametrize('mode, value', [('1', 1), ('L', 7), ('I;16', 700)])
def test_a_transparent_grey_shows_white(mode, value):
    image = Image.new(mode, (2, 1), 0)
    image.putpixel((1, 0), value)
    data = encoded(image, 'PNG', transparency=value)
    assert off_by(open_image(data), [[0, 255]]) == 0
    image.putpixel((1, 0), 0)
    data = encoded(image, 'PNG', transparency=0)
    assert off_by(open_image(data), [[255, 255]]) == 0


def test_half_transparent_pixels_are_mixed():
    image = Image.new('LA', (1, 1), (0, 128))
    assert off_by(to_rgb(image), [[127]]) <= 1
    assert to_rgb(Image.new('RGBA', (1, 1), (0, 0, 0, 0))).getpixel((0, 0)) == WHITE


def test_cmyk_as_adobe_writes_it():
    data = encoded(Image.new('CMYK', (8, 8), (0, 255, 255, 0)), 'JPEG', quality=100)
    assert b'Adobe' in data
    red = np.asarray(open_image(data)).reshape(-1, 3).astype(int)
    assert (abs(red - RED) < 6).all()
    tiff_data = encoded(Image.new('CMYK', (8, 8), (0, 255, 255, 0)), 'TIFF')
    assert open_image(tiff_data).getpixel((0, 0)) == RED


@pytest.mark.parametrize('format', ['GIF', 'PNG', 'TIFF', 'WEBP'])
def test_of_several_frames_the_first_is_taken(format):
    frames = [Image.new('RGB', (8, 8), colour) for colour in ('red', 'blue')]
    options = dict(lossless=True) if format == 'WEBP' else {}
    data = encoded(
        frames[0], format, save_all=True, append_images=frames[1:], **options
    )
    assert open_bytes(data).n_frames == 2
    assert open_image(data).getpixel((3, 3)) == RED


def test_colour_profiles_are_not_applied():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile('XYZ')).tobytes()
    data = encoded(Image.fromarray(PICTURE), 'PNG', icc_profile=profile)
    assert off_by(open_image(data), PICTURE) == 0


WHOLE = encoded(Image.fromarray(PICTURE).resize((400, 300)), 'PNG')


@pytest.mark.parametrize(
    'data',
    [b'', b'no image', WHOLE[:20], WHOLE[: len(WHOLE) // 2]]
    + [encoded(Image.effect_noise((99, 99), 90), 'JPEG')[:900]]
    + [png(70000, 70000, 8, 0, [b''])],
    ids=['empty', 'text', 'header', 'half', 'half a JPEG', 'bomb'],
)
def test_files_that_do_not_decode_are_named(tmp_path, data):
    path = tmp_path / 'x.png'
    path.write_bytes(data)
    with pytest.raises(ImageError, match=r'x\.png does not decode: \w+Error'):
        open_image(path)
    with pytest.raises(ImageError, match=f'an image of {len(data)} bytes does not'):
        open_image(data)


def test_missing_files_and_images_without_pixels(tmp_path):
    with pytest.raises(FileNotFoundError, match='There is no image .*none'):
        open_image(tmp_path / 'none')
    with pytest.raises(ImageError, match='no pixels: 0 x 3'):
        to_rgb(Image.new('RGB', (0, 3)))
