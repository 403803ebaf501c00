"""Face encoders of other sizes than the published one, and what they are shown of a person."""

import pytest
import torch
from flashface_pack.flashface_core.errors import FlashFaceError
from flashface_pack.flashface_core.face2diffusion.encoder import (
    ALIGNED,
    CROP,
    MSID,
    PUBLISHED,
    Topology,
    network_input,
)
from flashface_pack.flashface_core.face2diffusion.encoder_inputs import (
    counted_photos,
    encoder_inputs,
)
from flashface_pack.flashface_core.face2diffusion.files import (
    build_encoder,
    build_encoders,
    load_encoder,
    load_encoders,
)
from flashface_pack.flashface_core.faces.crop import pad_to_square
from flashface_pack.flashface_core.people.identity import FaceReference, Identity
from safetensors.torch import save_file
from support.face2diffusion import (
    EXPRESSION,
    IDENTITY,
    small_encoder,
    small_metadata,
    write_small,
)

TOPOLOGIES = [
    IDENTITY,
    EXPRESSION,
    Topology(size=64, patch=8, width=96, depth=6, heads=4, scales=(1, 3, 5)),
    Topology(size=24, patch=8, width=12, depth=12, heads=1, scales=(2, 10)),
]


def of(topology: Topology, face: str | None = CROP) -> dict[str, str]:
    kind = {} if face is None else {"face": face}
    return {"num_heads": str(topology.heads), **kind}


def refusal(*given) -> str:
    with pytest.raises(FlashFaceError) as caught:
        build_encoders("a.safetensors", *given)
    message = str(caught.value)
    assert "a.safetensors" in message and "\n" not in message
    return message


@pytest.mark.parametrize("topology", TOPOLOGIES)
@torch.inference_mode()
def test_sizes_follow_from_the_file_and_heads_from_its_metadata(tmp_path, topology):
    state = small_encoder(topology)
    save_file(state, tmp_path / "small.safetensors", of(topology))
    encoder = load_encoder(tmp_path / "small.safetensors")
    assert (encoder.topology, encoder.face) == (topology, CROP)
    expected = MSID(topology).eval()
    expected.load_state_dict(state)
    faces = torch.rand(2, 3, topology.size, topology.size) * 2 - 1
    assert torch.equal(encoder(faces), expected(faces))
    assert encoder(faces).shape == (2, encoder.vector_width)


@torch.inference_mode()
def test_heads_are_the_published_ones_where_the_file_says_nothing_and_they_count():
    topology = Topology(size=16, patch=8, width=24, depth=1, heads=12, scales=(0,))
    state, faces = small_encoder(topology), torch.rand(1, 3, 16, 16)
    twelve = build_encoder("a", state, {"face": CROP})
    assert twelve.topology == topology
    two = build_encoder("a", state, {"face": CROP, "num_heads": "2"})
    assert not torch.allclose(two(faces), twelve(faces), atol=1e-4)


def test_an_encoder_of_aligned_faces_has_their_size():
    aligned = Topology(size=PUBLISHED.size, patch=16, width=24, depth=1, heads=4, scales=(0,))
    encoder = build_encoder("a", small_encoder(aligned), of(aligned, None))
    assert (encoder.topology, encoder.face) == (aligned, ALIGNED)
    message = refusal(small_encoder(IDENTITY), of(IDENTITY, None))
    assert "pos_embed has shape (1, 17, 24), expected (1, 197, 24)" in message


@torch.inference_mode()
def test_the_expression_network_of_a_file_is_another_of_its_kind(tmp_path):
    encoder, expression = load_encoders(write_small(tmp_path)[1])
    assert expression is not None and not expression.training
    assert (encoder.topology, expression.topology) == (IDENTITY, EXPRESSION)
    assert (encoder.face, expression.face) == (CROP, CROP)
    expected = build_encoder("a", small_encoder(EXPRESSION), of(EXPRESSION))
    faces = torch.rand(2, 3, EXPRESSION.size, EXPRESSION.size)
    assert torch.equal(expression(faces), expected(faces))
    assert load_encoders(write_small(tmp_path, expression=False)[1])[1] is None


def test_a_network_inside_of_another_file_is_named_by_its_prefix():
    """As FaceStudio's file has one."""
    state = small_encoder(IDENTITY, "face_encoder.") | {"linear.bias": torch.zeros(4)}
    metadata = {"face_encoder.num_heads": "6", "face_encoder.face": "crop", "num_heads": "5"}
    encoder = build_encoder("a", state, metadata, "face_encoder.")
    assert (encoder.topology, encoder.face) == (IDENTITY._replace(heads=6), CROP)
    del state["face_encoder.blocks.1.norm1.bias"]
    with pytest.raises(FlashFaceError, match=r"^face_encoder\.\* in a .*lacks blocks.1.norm1.bias"):
        build_encoder("a", state, metadata, "face_encoder.")


@pytest.mark.parametrize("heads", ["5", "0", "-4", "four", "", "4.0", "9" * 9000])
def test_heads_that_do_not_divide_the_width_are_an_error(heads):
    message = refusal(small_encoder(), {"face": CROP, "num_heads": heads})
    assert f"num_heads {heads}" in message and "a divisor of its width 24" in message


def test_published_heads_that_do_not_fit_are_told_as_such():
    message = refusal(small_encoder(EXPRESSION), {"face": CROP})
    assert "num_heads 12, as none is in its metadata, expected a divisor of its width 16" in message


BROKEN = {
    "a block less": ("blocks.2.", None, "lacks blocks.2."),
    "a block in between": ("blocks.1.", None, "lacks blocks.1."),
    "no norms": ("norms.", None, "lacks norms.layer_11"),
    "no positions": ("pos_embed", None, "lacks blocks.10."),
    "no patches": ("patch_embed.", None, "lacks blocks.10."),
    "not a square": ("pos_embed", torch.zeros(1, 18, 24), "(1, 18, 24), expected (1, 17, 24)"),
    "no patch at all": ("pos_embed", torch.zeros(1, 1, 24), "lacks blocks.10."),
    "empty": ("cls_token", torch.zeros(1, 1, 0), "lacks blocks.10."),
    "another width": ("cls_token", torch.zeros(1, 1, 48), "(1, 17, 24), expected (1, 17, 48)"),
    "a flat class token": ("cls_token", torch.zeros(24), "lacks blocks.10."),
    "a block far away": ("blocks.9999.norm1.bias", torch.zeros(24), "lacks blocks.3."),
    "a scale far away": ("norms.layer_9999.0.bias", torch.zeros(24), "lacks blocks.3."),
    "something else": ("head.weight", torch.zeros(2), "do not belong there, head.weight"),
    "part of an expression": ("expression.norm.bias", torch.zeros(2), "expression.* in a"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_file_that_is_almost_right_is_refused_by_name_and_shape(case):
    key, value, told = BROKEN[case]
    state = small_encoder()
    if value is None:
        state = {name: tensor for name, tensor in state.items() if not name.startswith(key)}
    else:
        state[key] = value
    message = refusal(state, small_metadata())
    assert told in message and "is not Face2Diffusion's face encoder" in message


def test_faces_of_an_unknown_kind_are_an_error():
    assert "trained on 'parsed' faces" in refusal(small_encoder(), {"face": "parsed"})


def photo(seed: int, shape=(40, 30), weight: float = 1.0, aligned: bool = False) -> FaceReference:
    generator = torch.Generator().manual_seed(seed)
    crop = torch.randint(0, 256, (*shape, 3), dtype=torch.uint8, generator=generator)
    size = (PUBLISHED.size, PUBLISHED.size, 3)
    face = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)
    return FaceReference.from_crop(crop, weight, aligned=face if aligned else None)


@pytest.fixture(scope="module")
def encoders():
    """Of crops, and of aligned faces."""
    aligned = Topology(patch=16, width=12, depth=1, scales=(0,))
    return (
        build_encoder("crops", small_encoder(), small_metadata()),
        build_encoder("aligned", small_encoder(aligned)),
    )


def test_an_encoder_of_crops_is_shown_padded_squares_and_no_detector_is_needed(encoders):
    photos = [photo(1), photo(2, (20, 50), weight=3.0)]
    faces, shares = encoder_inputs(encoders[0], Identity(tuple(photos)), "F2D")
    squares = {one.content: pad_to_square(one.crop, IDENTITY.size) for one in photos}
    expected = network_input(torch.stack([squares[key] for key in sorted(squares)]))
    assert torch.equal(faces, expected) and faces.shape == (2, 3, 32, 32)
    assert (faces[..., 0, 0] == -1).any()  # the black beside a crop
    assert sorted(shares.tolist()) == [0.25, 0.75]
    assert shares[sorted(squares).index(photos[1].content)] == 0.75


def test_an_encoder_of_aligned_faces_is_shown_these_alone(encoders):
    photos = [photo(1, aligned=True), photo(2, aligned=True)]
    faces, shares = encoder_inputs(encoders[1], Identity(tuple(photos)), "F2D")
    ordered = sorted(photos, key=lambda one: one.content)
    assert torch.equal(faces, network_input(torch.stack([one.aligned for one in ordered])))
    assert shares.tolist() == [0.5, 0.5]
    missing = Identity((*photos, photo(3)))
    with pytest.raises(FlashFaceError, match="^1 of the identity's 3 photos .* which F2D needs"):
        encoder_inputs(encoders[1], missing, "F2D")


def test_order_does_not_matter_and_photos_without_weight_do_not_count(encoders):
    photos = [photo(seed, weight=weight) for seed, weight in ((1, 1.0), (2, 2.0), (3, 0.0))]
    one = encoder_inputs(encoders[0], Identity(tuple(photos)), "F2D")
    other = encoder_inputs(encoders[0], Identity((photos[1], photos[0])), "F2D")
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    with pytest.raises(FlashFaceError, match="1 photos and none with a weight above 0, F2D needs"):
        counted_photos(Identity((photos[2],)), "F2D")
