"""FlashFace in graphs that cut pictures: tiled VAE, and a face drawn again in a crop of its own."""

from functools import cache

import pytest
import torch
from comfy_extras.nodes_mask import ImageCompositeMasked
from flashface_pack.nodes.tiny import FlashFaceTinyModels
from support.harness import Guidance, apply_features, relative_error
from support.photos import identity, photos, placed
from support.sampling import empty_latent, ksampler

import nodes

GUIDANCE = Guidance(launch_timestep=1000)
OFF = Guidance(feature_strength=0, early_strength=0, face_guidance=0)
TILE, OVERLAP = 128, 32  # core also tiles by half of it in one direction, and averages
WHOLE = 512  # a tile larger than any picture here, in each of core's directions
EQUAL = 1e-5
# batch, height and width in pixels
SIZES = {"one of 128 x 128": (1, 128, 128), "three of 120 x 136": (3, 136, 120)}

every_size = pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)


class Graph:
    """The tiny models, a person whose photos are noise, and core's nodes."""

    def __init__(self) -> None:
        self.model, self.net, clip, self.vae = FlashFaceTinyModels.execute().args
        self.positive, self.negative = (
            nodes.CLIPTextEncode().encode(clip, text)[0] for text in ("a portrait", "")
        )

    def with_face(self, guidance: Guidance = GUIDANCE, weight: float = 1.0):
        person = placed(identity(photos(4), weight=weight))
        features = self.net.encode(person, self.vae, self.negative)
        return apply_features(self.model, features, guidance)

    def without_face(self):
        """MODELs that have to draw what the loader's draws."""
        return self.with_face(OFF), self.with_face(weight=0.0)

    def sample(self, model, latent, **options) -> dict:
        prompts = self.positive, self.negative
        return {"samples": ksampler(model, *prompts, latent, cfg=3.0, **options)}

    def picture(self, model, size) -> torch.Tensor:
        batch, height, width = size
        drawn = self.sample(model, empty_latent(batch, height // 8, width // 8))
        return nodes.VAEDecode().decode(self.vae, drawn)[0]


@pytest.fixture(scope="module")
def graph() -> Graph:
    with torch.inference_mode():
        return Graph()


def tiled(graph, model, picture, tile=TILE) -> torch.Tensor:
    """Image to image, in and out by tiles."""
    (latent,) = nodes.VAEEncodeTiled().encode(graph.vae, picture, tile, OVERLAP)
    drawn = graph.sample(model, latent, denoise=0.6)
    return nodes.VAEDecodeTiled().decode(graph.vae, drawn, tile, OVERLAP)[0]


def not_tiled(graph, model, picture) -> torch.Tensor:
    drawn = graph.sample(model, nodes.VAEEncode().encode(graph.vae, picture)[0], denoise=0.6)
    return nodes.VAEDecode().decode(graph.vae, drawn)[0]


def detailed(graph, model, picture) -> torch.Tensor:
    """As FaceDetailer does: the face cut out, enlarged, drawn again under a mask, pasted back."""
    x, y, width, height = 32, 24, 64, 56
    face = picture[:, y : y + height, x : x + width]  # ImageCrop, whose file needs a server
    (large,) = nodes.ImageScale().upscale(face, "bilinear", 128, 112, "disabled")
    mask = torch.zeros(1, 112, 128)
    mask[:, 8:-8, 8:-8] = 1
    (latent,) = nodes.VAEEncode().encode(graph.vae, large)
    (latent,) = nodes.SetLatentNoiseMask().set_mask(latent, mask)
    drawn = graph.sample(model, latent, denoise=0.5)
    (large,) = nodes.VAEDecode().decode(graph.vae, drawn)
    (face,) = nodes.ImageScale().upscale(large, "bilinear", width, height, "disabled")
    small = torch.nn.functional.interpolate(mask[None], (height, width))[0]
    paste = ImageCompositeMasked().composite
    return paste(picture, face, x, y, False, small)[0]


PASSES = {"tiled VAE": tiled, "face in a crop": detailed}


@pytest.fixture(scope="module")
def plain(graph):
    """The picture without the face, by size; what several tests begin with is drawn once."""
    return cache(lambda size: graph.picture(graph.model, size))


@pytest.fixture(scope="module")
def plain_after(graph, plain):
    """The same after one of PASSES, by name and size."""
    return cache(lambda name, size: PASSES[name](graph, graph.model, plain(size)))


@every_size
@pytest.mark.parametrize("name", PASSES)
def test_ours_at_zero_is_the_other_alone(graph, plain, plain_after, name, size):
    picture, expected = plain(size), plain_after(name, size)
    for model in graph.without_face():
        assert torch.equal(graph.picture(model, size), picture)
        assert torch.equal(PASSES[name](graph, model, picture), expected)


@every_size
def test_one_tile_over_the_whole_picture_is_ours_alone(graph, plain, size):
    model, picture = graph.with_face(), plain(size)
    for drawing in (model, graph.model):  # core averages three equal ones
        expected = not_tiled(graph, drawing, picture)
        assert relative_error(tiled(graph, drawing, picture, WHOLE), expected) <= EQUAL


@every_size
def test_a_crop_under_an_empty_mask_is_ours_alone(graph, size):
    model = graph.with_face()
    picture = graph.picture(model, size)
    (latent,) = nodes.VAEEncode().encode(graph.vae, picture)
    _, height, width = size
    (masked,) = nodes.SetLatentNoiseMask().set_mask(latent, torch.zeros(1, height, width))
    kept = graph.sample(model, masked, denoise=0.5)["samples"]
    assert relative_error(kept, latent["samples"]) <= EQUAL
    drawn = graph.sample(model, latent, denoise=0.5)["samples"]
    assert relative_error(drawn, latent["samples"]) > 1e-2


@every_size
@pytest.mark.parametrize("name", PASSES)
def test_the_face_in_the_first_pass_in_the_second_and_in_both(
    graph, plain, plain_after, name, size
):
    face, second = graph.with_face(), PASSES[name]
    first = graph.picture(face, size)
    drawn = [plain_after(name, size), second(graph, face, plain(size))]
    drawn += [second(graph, model, first) for model in (graph.model, face)]
    for i, picture in enumerate(drawn):
        assert picture.shape == (*size, 3) and torch.isfinite(picture).all()
        for other in drawn[:i]:
            assert relative_error(picture, other) > 1e-3


def test_a_crop_leaves_the_rest_of_the_picture_alone(graph, plain):
    picture = plain((1, 128, 128))
    got = detailed(graph, graph.with_face(), picture)
    changed = (got != picture).any(-1)[0].nonzero()
    (top, left), (bottom, right) = changed.amin(0).tolist(), changed.amax(0).tolist()
    assert top >= 24 and left >= 32 and bottom < 24 + 56 and right < 32 + 64


def test_tiles_between_encode_and_apply_change_no_feature(graph, plain):
    picture = plain((1, 128, 128))
    expected = tiled(graph, graph.with_face(), picture)
    fresh = Graph()
    nodes.VAEEncodeTiled().encode(fresh.vae, picture, TILE, OVERLAP)
    model = fresh.with_face()
    nodes.VAEEncodeTiled().encode(fresh.vae, picture, TILE, OVERLAP)
    assert torch.equal(tiled(fresh, model, picture), expected)
