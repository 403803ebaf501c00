import pytest
import torch
from flashface_pack.flashface_core.errors import FlashFaceError
from flashface_pack.flashface_core.people.place import Place, mask_to_bool


def extent(mask: torch.Tensor) -> tuple[int, int, int, int]:
    """First and last row, first and last column."""
    rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
    return rows[0].item(), rows[-1].item(), columns[0].item(), columns[-1].item()


@pytest.mark.parametrize(
    ("box", "size", "expected"),
    [
        ((0.3, 0.1, 0.3, 0.3), (96, 96), (10, 38, 29, 57)),  # FLASHFACE.md section 8
        ((0.3, 0.2, 0.3, 0.3), (96, 96), (20, 47, 29, 57)),
        ((0.3, 0.1, 0.3, 0.2), (96, 96), (10, 38, 29, 57)),  # a square of the longer side
        ((0.5, 0.5, 0.25, 0.25), (96, 64), (48, 71, 32, 55)),  # grows to the longer side in pixels
        ((-0.25, 0.0, 0.5, 0.5), (64, 64), (0, 31, 0, 15)),  # clipped at the left
        ((0.75, 0.75, 0.5, 0.5), (65, 65), (49, 64, 49, 64)),  # clipped below, odd size
    ],
)
def test_box_to_position_mask(box, size, expected):
    (mask,) = Place(box).position_mask(*size)
    assert extent(mask) == expected
    top, bottom, left, right = expected
    assert mask.sum() == (bottom - top + 1) * (right - left + 1)


@pytest.mark.parametrize(
    ("width", "left", "side"),
    [(832, 120, 128), (832, 424, 256), (896, 488, 128), (1216, 424, 256), (1344, 408, 256)],
)
def test_a_painted_square_is_the_square_of_as_many_latent_pixels(width, left, side):
    """Fractions of these widths are no binary numbers."""
    painted = torch.zeros(1, width, width)
    painted[:, 104 : 104 + side, left : left + side] = 1
    place = Place((0.0, 0.0, 1.0, 1.0), mask_to_bool(painted))
    (mask,) = place.position_mask(width // 8, width // 8)
    first, last = (104, left), (104 + side, left + side)
    assert extent(mask) == (first[0] // 8, last[0] // 8 - 1, first[1] // 8, last[1] // 8 - 1)


@pytest.mark.parametrize(
    ("box", "words"),
    [
        ((1.0, 0.1, 0.3, 0.3), "outside the picture"),
        ((0.1, 1.0, 0.3, 0.3), "outside the picture"),
        ((-0.5, 0.1, 0.5, 0.3), "outside the picture"),
        ((0.1, 0.1, 0.0, 0.3), "width 0"),
        ((0.1, 0.1, 0.3, 0.0), "height 0"),
    ],
)
def test_a_place_outside_or_without_size_is_an_error(box, words):
    with pytest.raises(FlashFaceError, match=words):
        Place(box)


def test_a_box_smaller_than_a_latent_pixel_is_an_error_that_names_the_pixels():
    with pytest.raises(FlashFaceError, match="128x128"):
        Place((0.51, 0.51, 0.01, 0.01)).position_mask(16, 16)


def test_a_mask_gives_its_square_box_to_the_network_and_itself_to_the_region():
    mask = torch.zeros(1, 128, 128)
    mask[0, 32:64, 16:32] = 1  # 16 wide, 32 high
    place = Place((0, 0, 1, 1), mask_to_bool(mask))
    (position,) = place.position_mask(16, 16)
    (region,) = place.region(16, 16)
    assert extent(position) == (4, 7, 2, 5)
    assert extent(region) == (4, 7, 2, 3)


def test_every_mask_of_a_batch_has_its_own_box():
    masks = torch.zeros(2, 64, 64)
    masks[0, :16, :16] = 1
    masks[1, 32:, 32:] = 1
    positions = Place((0, 0, 1, 1), mask_to_bool(masks)).position_mask(8, 8)
    assert extent(positions[0]) == (0, 1, 0, 1)
    assert extent(positions[1]) == (4, 7, 4, 7)


def test_an_empty_mask_is_an_error():
    masks = torch.zeros(2, 64, 64)
    masks[0] = 1
    with pytest.raises(FlashFaceError, match="mask 1"):
        Place((0, 0, 1, 1), mask_to_bool(masks))


def test_disjoint_regions_stay_disjoint_at_every_site():
    from flashface_pack.flashface_core.features import Person
    from flashface_pack.flashface_core.row_references import RowReferences, StepReferences

    left = Place((0.0, 0.0, 0.47, 1.0), inside_region=True)
    right = Place((0.47, 0.0, 0.53, 1.0), inside_region=True)
    people = (Person((), left), Person((), right))
    regions = torch.stack([left.region(15, 21), right.region(15, 21)], 1)
    assert torch.equal(regions.sum(1), torch.ones(1, 15, 21))
    rows = RowReferences(torch.ones(1), None, regions, StepReferences(people, {}), {})
    for size in ((15, 21), (8, 11), (4, 6), (2, 3)):
        assert (rows._covered_at(size, people).tokens.sum(1) == 1).all()
