"""A piece of a picture around its face: cut out, and put back where it was."""

import pytest
import torch
from flashface_pack.flashface_core.errors import FlashFaceError
from flashface_pack.flashface_core.faces.piece import Piece, cut_out, piece_around, put_back

HEIGHT, WIDTH = 96, 160
BOX = {"x": 100, "y": 20, "width": 16, "height": 24}


@pytest.fixture
def picture() -> torch.Tensor:
    return torch.rand(1, HEIGHT, WIDTH, 3, generator=torch.Generator().manual_seed(1))


def cut(image, boxes=BOX, size=72, margin=1.0, select="largest", index=0):
    return cut_out(
        image, select=select, index=index, margin=margin, size=size, detector=None, boxes=boxes
    )


@pytest.mark.parametrize(
    ("box", "margin", "expected"),
    [
        ((100, 20, 116, 44), 1.0, (72, 0)),  # 72 around the middle 108, 32: moved down by 4
        ((100, 40, 116, 64), 0.5, (84, 28)),
        ((-10, -10, 20, 20), 0.5, (0, 0)),  # only what is in the picture counts: 20 x 20
        ((150, 80, 190, 120), 0.0, (144, 80)),
    ],
)
def test_the_square_lies_around_the_face_and_in_the_picture(box, margin, expected):
    piece = piece_around(box, margin, HEIGHT, WIDTH)
    assert (piece.left, piece.top) == expected
    assert piece.left + piece.side <= WIDTH and piece.top + piece.side <= HEIGHT


@pytest.mark.parametrize(("dtype", "error"), [(torch.float16, 1e-3), (torch.bfloat16, 1e-2)])
def test_half_precision_pictures_are_cut_out_and_put_back(picture, dtype, error):
    """What newer cores keep pictures in with --fp16-intermediates."""
    expected, _, pieces = cut(picture, size=40)
    crops, _, _ = cut(picture.to(dtype), size=40)
    assert crops.dtype == dtype and (crops.float() - expected).abs().max() <= error
    expected = put_back(picture, 1 - expected, pieces, feather=0.1)
    result = put_back(picture.to(dtype), 1 - crops, pieces, feather=0.1)
    assert result.dtype == dtype and (result.float() - expected).abs().max() <= 2 * error


def test_a_square_larger_than_the_picture_reaches_over_both_of_its_shorter_edges():
    piece = piece_around((0, 0, 150, 90), 4.0, HEIGHT, WIDTH)
    assert piece == Piece(0, (HEIGHT - WIDTH) // 2, WIDTH, HEIGHT, WIDTH)


def test_the_crop_is_that_part_of_the_picture_and_the_mask_its_face(picture):
    crops, face, (piece,) = cut(picture)
    part = picture[:, piece.top : piece.top + 72, piece.left : piece.left + 72]
    assert torch.equal(crops, part)
    rows, columns = face[0].any(1).nonzero(), face[0].any(0).nonzero()
    assert (rows[0].item() + piece.top, rows[-1].item() + piece.top) == (20, 43)
    assert (columns[0].item() + piece.left, columns[-1].item() + piece.left) == (100, 115)


@pytest.mark.parametrize("size", [72, 40, 144])
@pytest.mark.parametrize("margin", [0.0, 1.0, 4.0])
def test_nothing_changes_outside_of_the_piece_and_the_new_face_is_inside(picture, size, margin):
    crops, _, pieces = cut(picture, size=size, margin=margin)
    new = torch.zeros_like(crops)
    (result,) = put_back(picture, new, pieces, feather=0.1)
    (piece,) = pieces
    inside = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    top, left = max(piece.top, 0), max(piece.left, 0)
    inside[top : piece.top + piece.side, left : piece.left + piece.side] = True
    assert torch.equal(result[~inside], picture[0][~inside])
    x, y = BOX["x"] + BOX["width"] // 2, BOX["y"] + BOX["height"] // 2
    assert result[y, x].max() == 0


def test_the_same_crop_put_back_is_the_same_picture(picture):
    crops, _, pieces = cut(picture)
    assert (put_back(picture, crops, pieces, 0.1) - picture).abs().max() < 1e-6


def test_with_a_mask_only_that_changes_and_softly(picture):
    crops, face, pieces = cut(picture)
    result = put_back(picture, torch.zeros_like(crops), pieces, 0.05, face)
    changed = (result != picture).any(-1)[0].nonzero()
    (y1, x1), (y2, x2) = changed.min(0).values.tolist(), changed.max(0).values.tolist()
    reach = 2  # 0.05 * 72 / 4 is one pixel, twice
    assert (20 - reach, 100 - reach) <= (y1, x1) and y2 <= 43 + reach and x2 <= 115 + reach
    assert y1 <= 20 and x1 <= 100
    edge = (result / picture)[0, 32, 96:104, 0]
    assert ((edge > 0.1) & (edge < 0.9)).any()


def test_a_mask_may_have_any_number_of_dimensions_before_its_sides(picture):
    crops, face, pieces = cut(picture)
    expected = put_back(picture, torch.zeros_like(crops), pieces, 0.05, face)
    for mask in (face[0], face[None]):
        assert torch.equal(put_back(picture, crops * 0, pieces, 0.05, mask), expected)


def test_three_pictures_have_a_face_each(picture):
    three = torch.cat([picture, picture.flip(1), picture.flip(2)])
    boxes = [BOX, {**BOX, "y": HEIGHT - 44}, {**BOX, "x": WIDTH - 116}]
    crops, _, pieces = cut(three, boxes)
    assert torch.equal(crops[0], crops[1].flip(0)) and torch.equal(crops[0], crops[2].flip(1))
    result = put_back(three, torch.zeros_like(crops), pieces, 0.1)
    assert torch.allclose(result[0], result[1].flip(0), atol=1e-6)
    assert torch.allclose(result[0], result[2].flip(1), atol=1e-6)


def test_at_the_edge_of_the_picture_nothing_old_shines_through(picture):
    crops, _, pieces = cut(picture, {**BOX, "x": 0, "y": 0})
    result = put_back(picture, torch.zeros_like(crops), pieces, 0.2)
    assert result[0, :30, 0].max() == 0 and result[0, 0, :30].max() == 0
    assert result[0, 71, 0].max() > 0.1 and result[0, 0, 71].max() > 0.1


def test_several_new_faces_of_one_picture_give_as_many_pictures(picture):
    crops, _, pieces = cut(picture)
    results = put_back(picture, torch.cat([crops * 0, crops, crops * 0 + 1]), pieces, 0.1)
    assert [round(one[32, 108, 0].item(), 3) for one in results][::2] == [0, 1]


def test_transparency_stays(picture):
    seen = torch.cat([picture, picture[..., :1]], -1)
    crops, _, pieces = cut(seen)
    result = put_back(seen, crops[..., :3] * 0, pieces, 0.1)
    assert torch.equal(result[..., 3], seen[..., 3]) and result[0, 32, 108, :3].max() == 0


def test_a_grey_picture_gets_the_luminance_of_the_crop(picture):
    grey = picture[..., :1]
    crops, _, pieces = cut(grey)
    red = torch.tensor([1.0, 0, 0]).expand(1, 72, 72, 3)
    for crop in (red, torch.cat([red, crops * 0], -1)):
        assert put_back(grey, crop, pieces, 0.1)[0, 32, 108].tolist() == pytest.approx([0.299])


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_grey_crop_goes_into_all_colours(picture, channels):
    seen = torch.cat([picture, picture[..., :1]], -1)[..., :channels]
    crops, _, pieces = cut(seen)
    result = put_back(seen, crops[..., :1] * 0, pieces, 0.1)
    assert result[0, 32, 108, :3].max() == 0
    assert torch.equal(result[..., 3:], seen[..., 3:])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda p: cut(p, boxes=None), "neither a detector nor boxes"),
        (lambda p: cut(p, boxes=[[]]), "Picture 0 has no face"),
        (lambda p: cut(p, select="index", index=2), "1 faces, and index is 2"),
        (lambda p: cut(p * torch.nan), "The picture has pixels that are no numbers"),
        (lambda p: cut(p[:0]), "batch of images is empty"),
        (lambda p: cut(p, size=100), "size is 100; it must be a multiple of 8"),
        (lambda p: put_back(p, *piece_of(p, crops=2, pictures=2), 0.1), "1 pictures, 2 places"),
        (lambda p: put_back(p, *piece_of(p, crops=0), 0.1), "and 0 crops; give one crop"),
        (lambda p: put_back(p, not_numbers(p), piece_of(p)[1], 0.1), "no numbers .NaN or inf"),
        (lambda p: put_back(p[:, :80], *piece_of(p), 0.1), "cut out of 160 x 96"),
        (lambda p: put_back(p, p[:, :90], piece_of(p)[1], 0.1), "must be square"),
        (lambda p: put_back(p, *piece_of(p), 0.1, torch.ones(3, 8, 8)), "3 masks for 1 crops"),
    ],
)
def test_what_does_not_fit_is_refused(picture, call, words):
    with pytest.raises(FlashFaceError, match=words):
        call(picture)


def not_numbers(picture):
    crops, _ = piece_of(picture)
    crops[0, 5, 5] = torch.nan
    return crops


def piece_of(picture, crops=1, pictures=1):
    cut_once = cut(picture)
    return cut_once.crops.repeat(crops, 1, 1, 1), cut_once.pieces * pictures
