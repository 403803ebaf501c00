"""Photos and given boxes to an identity."""

import numpy as np
import pytest
import torch
from flashface_pack.flashface_core.errors import FlashFaceError
from flashface_pack.flashface_core.faces.align import ARCFACE_POINTS, align_face
from flashface_pack.flashface_core.faces.crop import crop_face, photo_to_uint8
from flashface_pack.flashface_core.faces.face import Face
from flashface_pack.flashface_core.faces.select import face_reference, make_identity
from flashface_pack.flashface_core.people.identity import FaceReference, Identity, join_people


def photo(*colours, size=(40, 60)) -> torch.Tensor:
    """IMAGE: one picture per grey value, brighter to the right."""
    height, width = size
    ramp = torch.linspace(0, 0.5, width).expand(height, width)
    return torch.stack([(ramp + colour)[..., None].expand(-1, -1, 3) for colour in colours])


def make(image, **options):
    defaults = dict(
        select="largest",
        index=0,
        margin=0.0,
        no_face="error",
        weight=1.0,
        as_four_photos=True,
        name="",
    )
    return make_identity(image, **(defaults | options))


def box(x, y, width, height) -> dict:
    return {"x": x, "y": y, "width": width, "height": height}


THREE = [box(2, 4, 10, 10), box(30, 5, 20, 22), box(15, 8, 8, 9)]


def test_without_boxes_every_image_is_a_face():
    made = make(photo(0.1, 0.3, 0.5))
    assert made.count == 3 and len(made.identity.references) == 3
    assert made.identity.references[0].crop.shape == (40, 60, 3)
    assert made.faces.shape == (3, 224, 224, 3) and made.preview.shape == (3, 40, 60, 3)
    assert (made.faces[0, :37] == 0).all() and (made.faces[0, 112] > 0).all()  # black above


@pytest.mark.parametrize(
    ("select", "index", "expected"),
    [
        ("largest", 0, [(22, 20)]),
        ("leftmost", 0, [(10, 10)]),
        ("rightmost", 0, [(22, 20)]),
        ("index", 2, [(9, 8)]),
        ("every face", 0, [(10, 10), (22, 20), (9, 8)]),
    ],
)
def test_selection_among_given_boxes(select, index, expected):
    made = make(photo(0.2), boxes=[THREE], select=select, index=index)
    assert [tuple(r.crop.shape[:2]) for r in made.identity.references] == expected


@pytest.mark.parametrize(
    "boxes",
    [
        box(2, 4, 10, 12),
        [box(2, 4, 10, 12)],
        [[box(2, 4, 10, 12)]],
        [box(2, 4, 10, 12), box(2, 4, 10, 12)],
        [2, 4, 10, 12],
        (2.0, 4.0, 10.0, 12.0),
        [[2, 4, 10, 12]],
        [[2, 4, 10, 12], [2, 4, 10, 12]],
        [[[2, 4, 10, 12]]],
        [[[2, 4, 10, 12]], box(2, 4, 10, 12)],
        np.array([2, 4, 10, 12]),
        torch.tensor([[2, 4, 10, 12], [2, 4, 10, 12]]),
        [[torch.tensor([2, 4, 10, 12])], np.array([[2, 4, 10, 12]])],
    ],
)
def test_all_shapes_of_bounding_boxes_are_read(boxes):
    made = make(photo(0.2, 0.3), boxes=boxes)
    assert [tuple(r.crop.shape[:2]) for r in made.identity.references] == [(12, 10)] * 2


@pytest.mark.parametrize("boxes", [[], [[]], torch.zeros(0, 4)])
def test_an_empty_list_says_that_nothing_was_found_in_any_image(boxes):
    """Core's Create Bounding Boxes gives one where nothing is drawn."""
    assert make(photo(0.2, 0.3), boxes=boxes, no_face="skip image").count == 0


@pytest.mark.parametrize(
    "boxes", [THREE, [torch.tensor([1.0, 1, 9, 9])] * 3, torch.tensor([[1, 1, 9, 9]] * 3)]
)
def test_a_list_of_boxes_is_all_of_a_single_image(boxes):
    assert make(photo(0.2), boxes=boxes, select="every face").count == 3
    assert make(photo(0.2, 0.3, 0.4), boxes=boxes, select="every face").count == 3  # one each
    with pytest.raises(FlashFaceError, match="boxes are for 3 images, there are 2"):
        make(photo(0.2, 0.3), boxes=boxes)


def test_the_crop_is_the_boxes_pixels_and_black_outside():
    image = photo(0.3)
    (reference,) = make(image, boxes=box(-4, 0, 10, 10)).identity.references
    assert (reference.crop[:, :4] == 0).all()
    expected = (image[0, :10, :6] * 255).round().to(torch.uint8)
    assert torch.equal(reference.crop[:, 4:], expected)


def test_margin_is_a_fraction_of_the_box_on_every_side():
    (reference,) = make(photo(0.3), boxes=box(20, 10, 10, 20), margin=0.5).identity.references
    assert reference.crop.shape[:2] == (40, 20)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"boxes": [[]]}, "Image 0 has no face"),
        ({"boxes": []}, "Image 0 has no face"),
        ({"boxes": torch.zeros(0, 4)}, "Image 0 has no face"),
        ({"boxes": [-100, 0, 100.3, 50]}, "outside of image 0"),
        ({"select": "index", "index": 1}, "neither a detector nor boxes are connected"),
        ({"weight": float("nan")}, "weight is nan"),
        ({"boxes": [THREE], "select": "index", "index": 3}, "has 3 faces.*set index below 3"),
        ({"boxes": [[box(1, 1, 2, 2)]] * 3}, "boxes are for 3 images, there are 1"),
        ({"boxes": [[1, 1, 2, 2], []]}, "boxes are for 2 images, there are 1"),
        ({"boxes": [box(60, 1, 5, 5)]}, "outside of image 0"),
        ({"boxes": [box(1, 1, 0, 5)]}, "0 x 5 pixels"),
        ({"boxes": [{"x": 1}]}, "expected x, y, width and height"),
        ({"boxes": "face"}, "boxes are for str"),
        ({"boxes": 5}, "boxes are for int"),
        ({"boxes": [[1, 2, 3]]}, r"A box is \[1, 2, 3\], expected x, y, width and height"),
        ({"boxes": [["face"]]}, "A box is 'face', expected"),
        ({"boxes": [5, 6]}, r"A box is \[5, 6\], expected"),
        ({"boxes": [1, 1, float("nan"), 5]}, "nan x 5 pixels"),
        ({"boxes": [1, 1, 5, float("inf")]}, "5 x inf pixels"),
        ({"boxes": [1, 1, 5, 10**400]}, "expected x, y, width and height"),
        ({"boxes": [0, 0, 121, 5]}, "more than twice as large as image 0, which is 60 x 40"),
    ],
)
def test_boxes_that_do_not_fit_are_told(options, words):
    with pytest.raises(FlashFaceError, match=words):
        make(photo(0.2), **options)


def test_only_the_box_that_is_chosen_must_lie_in_the_image():
    boxes = [[box(500, 1, 2, 2), box(2, 4, 10, 12)]]
    (reference,) = make(photo(0.2), boxes=boxes, select="largest").identity.references
    assert reference.crop.shape[:2] == (12, 10)
    with pytest.raises(FlashFaceError, match="outside of image 0"):
        make(photo(0.2), boxes=boxes, select="every face")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_pixels_that_are_no_numbers_are_told(value):
    image = photo(0.2)
    image[0, 3, 3] = value
    with pytest.raises(FlashFaceError, match="An image has pixels that are no numbers"):
        make(image)


def test_an_image_without_the_face_can_be_skipped_or_taken_whole():
    boxes = [[], [box(1, 1, 8, 8)]]
    skipped = make(photo(0.2, 0.3), boxes=boxes, no_face="skip image")
    assert [r.crop.shape[0] for r in skipped.identity.references] == [8]
    whole = make(photo(0.2, 0.3), boxes=boxes, no_face="use whole image")
    assert [r.crop.shape[0] for r in whole.identity.references] == [40, 8]
    nothing = make(photo(0.2), boxes=[[]], no_face="skip image")
    assert nothing.count == 0 and not nothing.identity.references
    assert nothing.faces.shape == (1, 224, 224, 3)


def test_an_empty_batch_is_told():
    with pytest.raises(FlashFaceError, match="batch of images is empty"):
        make(torch.zeros(0, 8, 8, 3))


@pytest.mark.parametrize("channels", [1, 4])
def test_grey_and_transparent_pictures_become_rgb(channels):
    image = torch.full((1, 20, 20, channels), 0.5)
    (reference,) = make(image).identity.references
    assert reference.crop.shape == (20, 20, 3)
    assert reference.crop.unique().tolist() == [128 if channels == 1 else 64]


def test_more_photos_of_a_person_are_appended():
    first = make(photo(0.1), name="Eileen", weight=0.5)
    both = make(photo(0.3, size=(30, 30)), append_to=first.identity)
    assert [r.weight for r in both.identity.references] == [0.5, 1.0]
    assert both.count == 1 and both.identity.name == "Eileen"


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ([1.0], [4.0]),
        ([1.0, 1.0], [2.0, 2.0]),
        ([1.0, 3.0], [1.0, 3.0]),
        ([1.0, 0.0], [4.0, 0.0]),
        ([0.0], [0.0]),
        ([1.0] * 4, [1.0] * 4),
        ([1.0] * 5, [1.0] * 5),
    ],
)
def test_fewer_than_four_photos_weigh_as_four(weights, expected):
    crop = torch.zeros(4, 4, 3, dtype=torch.uint8)
    references = tuple(FaceReference.from_crop(crop, weight) for weight in weights)
    assert list(Identity(references).key_weights()) == pytest.approx(expected)
    assert list(Identity(references, as_four_photos=False).key_weights()) == weights


def test_a_negative_weight_is_an_error():
    with pytest.raises(FlashFaceError, match="-1"):
        FaceReference.from_crop(torch.zeros(4, 4, 3, dtype=torch.uint8), -1.0)


def test_equal_crops_have_equal_content_and_others_not():
    crops = [torch.zeros(4, 6, 3), torch.zeros(6, 4, 3), torch.ones(4, 6, 3), torch.zeros(4, 6, 3)]
    content = [FaceReference.from_crop(crop.to(torch.uint8)).content for crop in crops]
    assert content[0] == content[3] and len(set(content)) == 3


def test_the_preview_marks_the_taken_face_with_another_colour():
    made = make(
        torch.full((1, 100, 100, 3), 0.01), boxes=[[box(5, 5, 30, 30), box(50, 50, 40, 40)]]
    )
    preview = (made.preview[0] * 255).round()
    assert preview[5, 20].tolist() == [232, 168, 56]
    assert preview[50, 70].tolist() == [64, 200, 96]


def test_a_reference_of_a_given_box_knows_its_box_and_one_of_a_crop_nothing():
    (boxed,) = make(photo(0.3), boxes=box(20, 10, 10, 20), margin=0.5).identity.references
    assert boxed.box == (20, 10, 30, 30) and boxed.points is None and boxed.aligned is None
    (whole,) = make(photo(0.3)).identity.references
    assert whole.box is None and whole.points is None and whole.aligned is None
    (fallback,) = make(photo(0.3), boxes=[[]], no_face="use whole image").identity.references
    assert fallback.box is None and torch.equal(fallback.crop, whole.crop)


def test_a_face_with_five_points_is_levelled_and_aligned():
    noise = torch.rand(200, 200, 3, generator=torch.Generator().manual_seed(0))
    pixels = photo_to_uint8(noise)
    tilted = ARCFACE_POINTS @ np.array([[0.9, 0.4], [-0.4, 0.9]]).T + [60, 20]
    face = Face((50, 40, 150, 170), tilted, 0.9)
    reference = face_reference(pixels, face, weight=0.5)
    assert reference.weight == 0.5 and reference.box == face.box
    assert reference.points is not None and reference.points.dtype == torch.float32
    assert reference.points.numpy() == pytest.approx(tilted, abs=1e-4)
    assert torch.equal(reference.crop, crop_face(pixels, face.box, face.eyes))
    assert not torch.equal(reference.crop, crop_face(pixels, face.box))
    assert torch.equal(reference.aligned, align_face(pixels, tilted))


def test_photos_of_several_sizes_are_one_person():
    first = make(photo(0.1, 0.2), name="Eileen")
    second = make(photo(0.3, size=(200, 90)), boxes=[5, 5, 30, 40], append_to=first.identity)
    third = make(photo(0.4, size=(16, 16)), append_to=second.identity, as_four_photos=False)
    sizes = [tuple(r.crop.shape[:2]) for r in third.identity.references]
    assert sizes == [(40, 60), (40, 60), (40, 30), (16, 16)]
    assert third.count == 1 and not third.identity.as_four_photos
    assert len(first.identity.references) == 2  # as it was


def test_photos_cannot_be_appended_to_a_group():
    people = join_people([make(photo(0.1)).identity, make(photo(0.2)).identity])
    with pytest.raises(FlashFaceError, match="append_to adds to one person.* group of 2"):
        make(photo(0.3), append_to=people)


def test_two_channels_are_no_picture():
    with pytest.raises(FlashFaceError, match="2 channels; expected 1 .grey., 3 .RGB. or 4"):
        make(torch.zeros(1, 20, 20, 2))


@pytest.mark.parametrize("x", [0.4, 0.5, 1.5, 38.6])
def test_the_smallest_box_gives_a_crop_wherever_it_lies(x):
    (reference,) = make(photo(0.3), boxes=[x, x, 1, 1]).identity.references
    assert 1 <= min(reference.crop.shape[:2]) <= max(reference.crop.shape[:2]) <= 2


def test_a_crop_larger_than_memory_is_refused():
    image = torch.full((1, 3000, 3000, 3), 0.01)
    with pytest.raises(FlashFaceError, match="would be 15000 x 15000 pixels; lower crop_margin"):
        make(image, boxes=[0, 0, 3000, 3000], margin=2.0)


def test_the_preview_of_a_large_photo_is_smaller_and_its_boxes_are_with_it():
    made = make(torch.full((1, 1000, 2048, 3), 0.01), boxes=[[[500, 400, 200, 300]]])
    assert made.preview.shape == (1, 500, 1024, 3)
    assert (made.preview[0, 300, 250] * 255).round().tolist() == [64, 200, 96]
    assert (made.preview[0, 300, 240] < 0.02).all()


def test_boxes_are_numbered_in_the_order_that_index_counts():
    dark = torch.full((1, 300, 600, 3), 0.01)
    made = make(dark, boxes=[[box(20, 20, 200, 200), box(320, 20, 200, 200)]])
    first, second = made.preview[0, 20:60, 20:60], made.preview[0, 20:60, 320:360]
    dark = [(label < 0.1).all(-1) for label in (first, second)]  # digits are black, and the inside
    assert not torch.equal(dark[0], dark[1])
