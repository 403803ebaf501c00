"""Benchmarks by the command, on weights in the published layouts that are made here by rule."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

pytest.importorskip("webdataset", reason="reading photographs needs it")

from benchmark_files import SIZE, arguments, share, small, weights_of, write_models
from support.model_packs import make_model_pack, photograph
from support.photographs import add, astronaut, cameraman, different, encoded
from support.zoo import make_zoo

from flashface_core.errors import FlashFaceError
from flashface_core.faces.align import ARCFACE_POINTS
from flashface_core.faces.face import Face
from flashface_core.faces.zoo import ZooDetector
from training import evaluate
from training.initial import fresh_checkpoint
from training.photos.benchmark import (
    PICTURE,
    Score,
    draw_cases,
    identity_of,
    score_cases,
    write_cases,
)
from training.photos.benchmark_report import flat, rows_of, table
from training.photos.cases import Case, Subset
from training.photos.systems import Shared, load_unet, make_system

PERSON = "a photo of a person at sea"


class Squares:
    """Finds a face in whatever is not grey; who it is, its mean colour says."""

    name, can_embed, recognition = "squares", True, "Colour"

    def find(self, photo: torch.Tensor) -> list[Face]:
        height, width = photo.shape[:2]
        if (photo == photo[..., :1]).all():
            return []
        points = ARCFACE_POINTS * np.array([width, height]) / 112
        return [Face((0.0, 0.0, float(width), float(height)), points)]

    def embed(self, photo: torch.Tensor, face: Face) -> np.ndarray:
        mean = photo.float().mean(dim=(0, 1)).numpy() - 127.5
        return mean / np.linalg.norm(mean)


def colour(*values: int) -> bytes:
    return encoded(Image.new("RGB", (48, 48), values), "PNG")


RED, BLUE, GREY = colour(250, 20, 20), colour(20, 20, 250), colour(90, 90, 90)
MIDDLE = colour(250, 20, 250)


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def shared(models) -> Shared:
    return share(models, Squares())


@pytest.mark.parametrize(
    "name", ["flashface", "face2diffusion", "facestudio", "face_fusion", "none"]
)
def test_every_system_draws_the_person_and_nobody_else_but_none(name, shared, models, tmp_path):
    system = small(make_system(name, shared, weights_of(name, models)))
    cases = [Case("0001", "0001", "a man", (photo,)) for photo in (RED, BLUE)]
    pictures = []
    for number, case in enumerate((*cases, cases[0])):
        folder = tmp_path / str(number)
        write_cases(folder, [case], {})
        draw_cases(folder, [case], system, shared.vae, Squares(), seed=1)
        pictures.append(np.array(Image.open(folder / "0001" / PICTURE)))
    red, blue, again = pictures
    assert red.shape == (SIZE, SIZE, 3) and (red == again).all()
    assert (red == blue).all() == (name == "none")


def test_settings_are_those_of_the_authors(shared, models):
    made = {
        name: make_system(name, shared, weights_of(name, models))
        for name in ("flashface", "face2diffusion", "none")
    }
    assert made["face2diffusion"].settings[:3] == (30, 7.0, "euler_ancestral")
    assert made["flashface"].settings == made["none"].settings
    assert made["flashface"].settings.steps == 25 and made["flashface"].size == 768


def test_what_is_there_is_not_drawn_again_and_no_half_picture_is_left(shared, tmp_path, caplog):
    made = small(make_system("none", shared, []))
    asked = []

    def condition(identity, case):
        asked.append(case.name)
        if case.name == "0003":
            raise KeyboardInterrupt
        return made.condition(identity, case)

    system = made._replace(condition=condition)
    cases = [Case(f"000{n}", "a", f"prompt {n}", (RED,), BLUE) for n in (1, 2, 3)]
    cases.insert(1, Case("0009", "b", "nobody", (GREY,)))
    write_cases(tmp_path, cases, {"steps": 1})
    with pytest.raises(KeyboardInterrupt):
        draw_cases(tmp_path, cases, system, shared.vae, Squares(), 1)
    before = {n: (tmp_path / n / PICTURE).read_bytes() for n in ("0001", "0002")}
    assert not list((tmp_path / "0003").glob("*out*"))
    asked.clear()
    write_cases(tmp_path, cases, {"steps": 1})
    with caplog.at_level("INFO"):
        system = system._replace(condition=made.condition)
        draw_cases(tmp_path, cases, system, shared.vae, Squares(), 1)
    assert "0009 is left out: squares finds no face in a reference." in caplog.text
    assert (tmp_path / "0003" / PICTURE).is_file() and not (tmp_path / "0009" / PICTURE).exists()
    assert before == {n: (tmp_path / n / PICTURE).read_bytes() for n in before}
    assert before["0001"] != before["0002"]
    assert (tmp_path / "0001" / "ref_1.jpg").read_bytes() == RED
    assert (tmp_path / "0001" / "ori.jpg").read_bytes() == BLUE
    assert json.loads((tmp_path / "0001" / "meta.json").read_text()) == {"prompt": "prompt 1"}
    with pytest.raises(FlashFaceError, match="were made with steps 1, and now it is 2; give anoth"):
        write_cases(tmp_path, cases, {"steps": 2})
    with pytest.raises(FlashFaceError, match="were made with seed None, and now it is 3"):
        write_cases(tmp_path, cases, {"steps": 1, "seed": 3})


def test_several_references_are_one_identity(shared):
    identity = identity_of(Case("a", "anna", "", (RED, BLUE, BLUE, RED)), Squares())
    assert identity is not None and identity.name == "anna" and len(identity.references) == 4
    assert identity_of(Case("a", "anna", "", (RED, GREY)), Squares()) is None


def test_scores_are_worked_out_from_the_three_faces(tmp_path):
    """Red is the reference, blue the truth; the pictures are red, between, blue, and nobody."""
    drawn = {"a": RED, "b": MIDDLE, "c": BLUE, "d": GREY}
    cases = [Case(name, name, "a man", (RED,), BLUE) for name in (*drawn, "missing")]
    cases.append(Case("e", "e", "a man", (RED,)))
    write_cases(tmp_path, cases, {})
    for name, picture in {**drawn, "e": RED}.items():
        (tmp_path / name / PICTURE).write_bytes(picture)
    scores = list(score_cases(tmp_path, cases, [Squares(), Squares()], None))
    assert [score.case for score in scores[::2]] == ["a", "b", "c", "d", "e"]
    a, b, c, d, e = scores[::2]
    assert a.copy_paste == pytest.approx(1) and a.sim_ref == pytest.approx(1)
    assert b.copy_paste == pytest.approx(0, abs=1e-6) and b.sim_gt == pytest.approx(b.sim_ref)
    assert c.copy_paste == pytest.approx(-1) and c.sim_gt == pytest.approx(1)
    assert not d.face and np.isnan([d.sim_gt, d.sim_ref, d.copy_paste, d.clip]).all()
    assert e.face and e.sim_ref == pytest.approx(1) and np.isnan([e.sim_gt, e.copy_paste]).all()


def test_clip_is_asked_about_the_picture_and_the_prompt_without_the_word(tmp_path):
    asked = []

    def clip(pictures, texts):
        asked.append((pictures.shape, pictures.max().item(), texts))
        return torch.tensor([0.25])

    case = Case("a", "a", "a photo of S*", (RED,))
    write_cases(tmp_path, [case], {})
    (tmp_path / "a" / PICTURE).write_bytes(colour(255, 0, 0))
    (found,) = score_cases(tmp_path, [case], [Squares()], clip)
    assert found.clip == 0.25 and asked == [((1, 3, 48, 48), 1.0, ["a photo of a person"])]


def test_sface_tells_a_copied_photograph_from_the_truth(tmp_path):
    """The astronaut's photograph is the reference, and changed as the truth."""
    detector = ZooDetector(make_zoo(tmp_path / "zoo"))
    pytest.importorskip("skimage", reason="the photographs come with it")
    photo, truth, other = different(astronaut())["a"], different(astronaut())["c"], cameraman()
    cases = [Case(n, n, "a", (encoded(photo, "PNG"),), encoded(truth, "PNG")) for n in "abc"]
    write_cases(tmp_path / "out", cases, {})
    for name, drawn in zip("abc", (photo, truth, other), strict=True):
        drawn.save(tmp_path / "out" / name / PICTURE)
    copied, true, stranger = score_cases(tmp_path / "out", cases, [detector], None)
    assert copied.recognition == "SFace" and copied.copy_paste == pytest.approx(1, abs=1e-3)
    assert true.copy_paste == pytest.approx(-1, abs=1e-3) and true.sim_ref > 0.4
    assert stranger.face and stranger.sim_gt < 0.35 and stranger.sim_ref < 0.35
    assert abs(stranger.copy_paste) < 0.3


def score(case: str, **values) -> Score:
    found = dict(face=True, sim_gt=0.4, sim_ref=0.6, copy_paste=0.2, clip=0.3) | values
    return Score(case=case, person=case[0], recognition="ArcFace", **found)


NAN = float("nan")


def test_the_table_has_our_row_below_those_of_the_paper():
    nobody = dict.fromkeys(("sim_gt", "sim_ref", "copy_paste"), NAN)
    scores = [score("a1"), score("a2", sim_gt=0.6), score("b1", face=False, **nobody)]
    rows = rows_of("flashface", Subset(references=4), scores)
    lines = table(rows, with_paper=True)
    assert lines[0] == (
        "| system | Sim(GT) | Sim(Ref) | Copy-Paste | CLIP-T | face found | pictures |"
    )
    assert lines[2] == "| InstantID | 0.464 | 0.734 | 0.337 | 0.295 |  |  |"
    assert (
        "| flashface, 4 references, ArcFace | 0.500 (0.500 to 0.500) | 0.600 (0.600 to 0.600) | "
        "0.200 (0.200 to 0.200) | 0.300 (0.300 to 0.300) | 0.667 | 3 |" in lines
    )
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1
    numbers = flat(rows)
    assert numbers["arcface_4_sim_gt"] == pytest.approx(0.5)
    assert numbers["arcface_4_pictures"] == 3 and "arcface_4_harmonic_mean" not in numbers


def test_without_true_pictures_identity_and_text_are_combined():
    rows = rows_of("none", Subset(), [score("a", sim_gt=NAN, copy_paste=NAN)])
    assert flat(rows)["arcface_1_harmonic_mean"] == pytest.approx(0.4)
    lines = table(rows, with_paper=False)
    assert "Sim(GT)" not in lines[0] and "| harmonic mean | geometric mean |" in lines[0]
    assert "InstantID" not in "\n".join(lines)
    without = rows_of("none", Subset(), [score("a", sim_gt=NAN, copy_paste=NAN, clip=NAN)])
    assert "CLIP-T" not in table(without, False)[0] and "harmonic" not in table(without, False)[0]


def test_sd15_and_flashface_are_loaded_as_model_and_others_are_one_sentence(models, tmp_path):
    assert load_unet(models / "flashface.safetensors")[1] == 768
    target = fresh_checkpoint("sd15", width=320, multipliers=(1,), heads=8).target
    state = {f"model.diffusion_model.{key}": value for key, value in target.items()}
    save_file(state, tmp_path / "sd15.safetensors")
    model, size = load_unet(tmp_path / "sd15.safetensors")
    assert size == 512 and type(model.model).__name__ == "BaseModel"
    with pytest.raises(FlashFaceError, match=r"clip_l.safetensors is not SD1.5 .*whole SD1.5 che"):
        load_unet(models / "clip_l.safetensors")


@pytest.fixture(scope="module")
def model_pack(tmp_path_factory) -> Path:
    return make_model_pack(tmp_path_factory.mktemp("packs") / "models" / "tiny")


def make_bench(folder: Path) -> Path:
    """In the layout of the benchmark's evaluation: two cases of one person, and one that lacks its
    reference."""
    for number in (1, 2, 3):
        own = f"000{number}"
        add(folder, f"{own}/ori.jpg", encoded(photograph(number, 0), "PNG"))
        if number < 3:
            add(folder, f"{own}/ref_1.jpg", encoded(photograph(number, 1), "PNG"))
        add(folder, f"{own}/meta.json", json.dumps({"prompt": PERSON}).encode())
    return folder


def test_the_command_draws_measures_and_goes_on(models, model_pack, tmp_path, capsys):
    bench, out = make_bench(tmp_path / "bench"), tmp_path / "out"
    for n in (2, 3, 4):
        add(tmp_path, f"more/0002/{n}.png", encoded(photograph(2, n), "PNG"))
    given = ("--multiid-bench", bench, "--more-photos", tmp_path / "more", "--out", out)
    command = arguments(models, *given, "--model-pack", model_pack, "--json", tmp_path / "n.json")
    evaluate.main(command)
    pictures = sorted(path.parent.relative_to(out).as_posix() for path in out.rglob(PICTURE))
    assert pictures == ["references_1/0001", "references_1/0002", "references_4/0002"]
    with open(out / "pictures.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["references"], row["case"], row["face"]) for row in rows] == [
        ("1", "0001", "False"), ("1", "0002", "False"), ("4", "0002", "False")
    ]  # fmt: skip
    # As if the system had copied the reference of one case, and met the truth of the other.
    own = out / "references_1"
    (own / "0001" / PICTURE).write_bytes((bench / "0001" / "ref_1.jpg").read_bytes())
    (own / "0002" / PICTURE).write_bytes((bench / "0002" / "ori.jpg").read_bytes())
    evaluate.main(command)
    numbers = json.loads((tmp_path / "n.json").read_text())
    with open(out / "pictures.csv", newline="") as file:
        first, second, _ = csv.DictReader(file)
    assert float(first["copy_paste"]) == pytest.approx(1, abs=1e-3)
    assert float(second["copy_paste"]) == pytest.approx(-1, abs=1e-3)
    assert float(first["sim_gt"]) > 0.4 and float(second["sim_gt"]) == pytest.approx(1)
    assert numbers["arcface_1_copy_paste"] == pytest.approx(0, abs=1e-3)
    assert numbers["arcface_1_pictures"] == 2 and numbers["arcface_4_pictures"] == 1
    assert "| flashface, 1 reference, ArcFace |" in (out / "measures.md").read_text()
    with pytest.raises(SystemExit, match="were made with steps 1, and now it is 2; give another"):
        evaluate.main([*command, "--steps", "2"])
    with pytest.raises(SystemExit, match="were made with system flashface, and now it is none"):
        evaluate.main([*command, "--system", "none"])


def test_pictures_of_another_pack_are_measured(models, model_pack, tmp_path):
    bench, out = make_bench(tmp_path / "bench"), tmp_path / "out"
    given = ["--multiid-bench", bench, "--system", "ipadapter", "--out", out]
    command = list(map(str, [*given, "--model-pack", model_pack]))
    with pytest.raises(SystemExit, match=r"2 of 2 pictures are missing, .*0001/out\.png; --system"):
        evaluate.main(command)
    for case in ("0001", "0002"):
        drawn = out / "references_1" / case / PICTURE
        drawn.write_bytes((bench / case / "ref_1.jpg").read_bytes())
    evaluate.main(command)
    assert "| ipadapter, 1 reference, ArcFace |" in (out / "measures.md").read_text()


def test_the_protocol_of_face2diffusion(models, model_pack, tmp_path, caplog):
    for person in (1, 2):
        add(tmp_path, f"faces/{person}.png", encoded(photograph(person, 0), "PNG"))
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a photo of S* at sea\nS* as a cook\n")
    given = ["--face2diffusion-protocol", tmp_path / "faces", "--prompts", prompts]
    weights = weights_of("face2diffusion", models)
    more = ["--system", "face2diffusion", "--system-weights", *weights, "--model-pack", model_pack]
    with caplog.at_level("INFO"):
        evaluate.main(arguments(models, *given, *more, "--out", tmp_path / "out"))
    assert "2 faces x 2 prompts" in caplog.text and "The paper has 100 x 40." in caplog.text
    drawn = {path.parent.name for path in (tmp_path / "out").rglob(PICTURE)}
    assert drawn == {"1_00", "1_01", "2_00", "2_01"}
    assert "InstantID" not in (tmp_path / "out" / "measures.md").read_text()


FILE = __file__
FILES = ["--checkpoint", FILE, "--clip", FILE, "--vae", FILE, "--out", "x"]
BENCH = ["--multiid-bench", ".", *FILES, "--zoo", "."]
F2D = ["--face2diffusion-protocol", ".", *FILES, "--zoo", "."]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--system", "none", "--json", "x"], "--system needs --multiid-bench or --face2diffusion"),
        ([*BENCH, "--photos", "."], "--photos goes without --multiid-bench"),
        ([*BENCH, *F2D], "--multiid-bench and --face2diffusion-protocol are two benchmarks"),
        ([*BENCH, "--multiid-bench", "nowhere"], "--multiid-bench is nowhere, which is not a fold"),
        (["--multiid-bench", ".", "--json", "x"], "--multiid-bench needs --out FOLDER"),
        ([*BENCH, "--sweep"], "--sweep goes without --multiid-bench"),
        (["--multiid-bench", ".", "--out", "x"], "--system flashface needs --checkpoint, --clip, "),
        (BENCH[:-2], "--multiid-bench compares faces: give --model-pack"),
        (F2D, "--face2diffusion-protocol needs --prompts FILE"),
        ([*BENCH, "--prompts", FILE], "--prompts goes without --multiid-bench, which has its own"),
        ([*F2D, "--prompts", FILE, "--more-photos", "."], "--more-photos goes with --multiid-ben"),
        ([*F2D, "--prompts", FILE, "--most-people", "2"], "--most-people goes with --multiid-ben"),
        ([*BENCH, "--most-people", "5"], "--most-people is 5; MultiID-Bench has 1 to 4"),
        (["--most-people", "2", "--json", "x"], "--most-people needs --multiid-bench or --face2di"),
        ([*BENCH, "--zoo", "nowhere"], "--zoo is nowhere, which is not a folder"),
        ([*BENCH, "--system-weights", FILE], "gives 1 files; --system flashface takes none"),
        ([*BENCH, "--system", "face2diffusion"], "gives 0 files; --system face2diffusion takes ma"),
        ([*BENCH, "--system", "facestudio", "--system-weights", "no"], "no, which is not a file"),
        ([*BENCH[:2], *BENCH[-2:], "--out", "x", "--system", "ipadapter", "--clip-vision", FILE],
         "--clip-vision needs --clip as well"),
    ],
)  # fmt: skip
def test_options_that_do_not_go_together_are_told_in_a_sentence(given, said, capsys):
    with pytest.raises(SystemExit) as stopped:
        evaluate.main(given)
    assert stopped.value.code == 2 and said in capsys.readouterr().err
