"""Pillow before 10.1, which other packs pin, has its default font in one size."""

import pytest
import torch
from flashface_pack.flashface_core.faces.face import Face
from flashface_pack.flashface_core.faces.preview import DOUBT, draw_boxes
from flashface_pack.flashface_core.flashface.guidance import Guidance
from flashface_pack.flashface_core.flashface.plot import WARNING, Step, draw_guidance
from PIL import ImageFont


def old_pillow():
    return ImageFont.load_default_imagefont()


def without_freetype(size=None):
    if size is not None:
        raise ImportError("The _imagingft C module is not installed")
    return ImageFont.load_default_imagefont()


def has(picture: torch.Tensor, colour) -> bool:
    return bool((picture == torch.tensor(colour)).all(-1).any())


@pytest.mark.skipif(
    not hasattr(ImageFont, "load_default_imagefont"), reason="this is such a Pillow"
)
@pytest.mark.parametrize("load_default", [old_pillow, without_freetype])
def test_preview_and_plot_are_drawn_in_small_letters(load_default, monkeypatch):
    monkeypatch.setattr(ImageFont, "load_default", load_default)
    face = Face((20.0, 20.0, 60.0, 60.0))
    photo = torch.zeros(100, 100, 3, dtype=torch.uint8)
    assert has(draw_boxes(photo, [face], [face], [["small"]]), DOUBT)
    off = Guidance(feature_strength=0, early_strength=0, face_guidance=0)
    plot = draw_guidance(off, [Step(999, True), Step(500, True)])
    assert has((plot[0] * 255).round().int(), WARNING)
