"""Photos that arrive otherwise than their owner thinks."""

import asyncio

import execution
import numpy as np
import pytest
import torch
from comfy_extras.nodes_rebatch import ImageRebatch
from flashface_pack.flashface_core.errors import FlashFaceError
from flashface_pack.nodes.identity import FlashFaceIdentity
from PIL import Image

import nodes

SIZE = 60


class Blind:
    """A detector that finds nobody."""

    name, can_embed = "blind", False

    def find(self, photo):
        return []


def photo() -> torch.Tensor:
    """IMAGE"""
    return torch.rand(1, SIZE, SIZE, 3, generator=torch.Generator().manual_seed(1))


def grey_levels(dtype) -> np.ndarray:
    top = np.iinfo(dtype).max
    return np.linspace(0, top, SIZE * SIZE).astype(dtype).reshape(SIZE, SIZE)


def as_older_load_image_gives_it() -> torch.Tensor:
    """A grey PNG of 16 bits in ComfyUI 0.3.75."""
    rgb = np.asarray(Image.fromarray(grey_levels(np.uint16)).convert("RGB"))
    return torch.from_numpy(rgb / 255.0).float()[None]


BLANK = {
    "a grey PNG of 16 bits": as_older_load_image_gives_it(),
    "white": torch.ones(1, SIZE, SIZE, 3),
    "black": torch.zeros(1, SIZE, SIZE, 3),
}


SETTINGS = dict(
    select="largest",
    index=0,
    crop_margin=0.0,
    no_face="error",
    weight=1.0,
    reference_weight="as four photos",
    name="",
)


def make(images, **given):
    return FlashFaceIdentity.execute(images, **(SETTINGS | given)).args


@pytest.mark.parametrize("kind", BLANK)
def test_photos_that_are_black_and_white_alone_are_refused_with_the_likely_reason(kind):
    advice = "% of .* is pure black or pure white.*16 bits: save them with 8 bits"
    blank = BLANK[kind]
    with pytest.raises(FlashFaceError, match=f"^Image 1 shows no face: .*{advice}"):
        make(torch.cat([photo(), blank]))
    with pytest.raises(FlashFaceError, match=f"^Image 0 shows no face: .*{advice}"):
        make(blank, boxes=[10, 10, 30, 30])
    with pytest.raises(FlashFaceError, match=f"^Image 0 shows no face: .*{advice}"):
        make(blank, detector=Blind(), no_face="use whole image")
    with pytest.raises(FlashFaceError, match=f"^Image 0 has no face; .*{advice}"):
        make(blank, detector=Blind())


@pytest.mark.parametrize("kind", BLANK)
def test_blank_photos_may_stay_where_nobody_looks_at_them(kind):
    assert make(BLANK[kind], weight=0.0)[3] == 1
    assert make(BLANK[kind], detector=Blind(), no_face="skip image")[3] == 0


def test_a_face_on_a_white_or_black_ground_is_no_reason_to_refuse_a_photo():
    for ground in ("white", "black"):
        cut_out = BLANK[ground].clone()
        cut_out[:, 20:40, 20:40] = photo()[:, :20, :20]
        assert make(cut_out)[3] == 1


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_grey_file_is_taken_as_it_is_or_refused(tmp_path, monkeypatch, dtype):
    monkeypatch.setattr("folder_paths.get_annotated_filepath", lambda name: str(tmp_path / name))
    Image.fromarray(grey_levels(dtype)).save(tmp_path / "grey.png")
    image = nodes.LoadImage().load_image("grey.png")[0]
    if dtype == np.uint16 and image.mean() > 0.9:  # ComfyUI 0.3.75
        with pytest.raises(FlashFaceError, match="16 bits"):
            make(image)
        return
    (crop,) = [reference.crop for reference in make(image)[0].references]
    levels = grey_levels(np.uint8).astype(int)
    assert np.abs(crop.numpy()[..., 0].astype(int) - levels).max() <= 1


def run_as_core_does(**inputs):
    """The identities of lists of inputs."""
    given = {name: [value] for name, value in SETTINGS.items()} | inputs
    work = execution._async_map_node_over_list(
        "prompt", "1", FlashFaceIdentity, given, FlashFaceIdentity.FUNCTION
    )
    return [output.args[0] for output in asyncio.run(work)]


def test_a_list_of_photos_makes_a_person_of_each_and_one_line_says_so(caplog):
    batch = torch.rand(4, SIZE, SIZE, 3)
    four = run_as_core_does(image=ImageRebatch.execute([batch], [1]).args[0])
    assert [len(person.references) for person in four] == [1, 1, 1, 1]
    (line,) = [r.getMessage() for r in caplog.records if r.name == "flashface"]
    assert "one person of every entry" in line and "as a batch" in line and "append_to" in line
    caplog.clear()
    (one,) = run_as_core_does(image=ImageRebatch.execute(list(batch.split(1)), [4]).args[0])
    assert len(one.references) == 4 and not caplog.records
