"""Several people in one picture of a benchmark: drawn, matched, measured and told of."""

import csv
import json
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import find_objects, label

pytest.importorskip("webdataset", reason="reading photographs needs it")

from benchmark_files import SIZE, arguments, share, small, weights_of, write_models
from support.model_packs import make_model_pack, photograph
from support.photographs import encoded

from flashface_core.faces.align import ARCFACE_POINTS
from flashface_core.faces.face import Face
from flashface_core.people.identity import IdentityGroup
from training import evaluate
from training.photos.benchmark import PICTURE, draw_cases, identity_of, score_cases, write_cases
from training.photos.benchmark_report import flat, rows_of, table
from training.photos.cases import Case, Subset
from training.photos.groups import in_square, measure_group
from training.photos.systems import Shared, make_system

NAN = float("nan")
GREY = (90, 90, 90)
COLOURS = {"red": (250, 20, 20), "green": (20, 250, 20), "blue": (20, 20, 250)}


class Patches:
    """Takes every patch that is not grey for a face; who it is, its mean colour says."""

    name, can_embed, recognition = "patches", True, "Colour"

    def find(self, photo: torch.Tensor) -> list[Face]:
        patches, _ = label((photo != photo[..., :1]).any(-1).numpy())
        faces = []
        for rows, columns in find_objects(patches):
            box = (columns.start, rows.start, columns.stop, rows.stop)
            size = np.array([box[2] - box[0], box[3] - box[1]])
            points = ARCFACE_POINTS * size / 112 + np.array(box[:2])
            faces.append(Face(tuple(map(float, box)), points))
        return sorted(faces, key=lambda face: -face.area)

    def embed(self, photo: torch.Tensor, face: Face) -> np.ndarray:
        x1, y1, x2, y2 = map(int, face.box)
        mean = photo[y1:y2, x1:x2].float().mean(dim=(0, 1)).numpy() - 127.5
        return mean / np.linalg.norm(mean)


def faces(*names: str, width: int = 96) -> bytes:
    """Patches from left to right, 16 pixels wide, from 8 pixels on, 24 pixels each."""
    picture = np.full((48, width, 3), GREY, dtype=np.uint8)
    for number, name in enumerate(names):
        picture[12:32, 8 + 24 * number : 24 + 24 * number] = COLOURS[name]
    return encoded(Image.fromarray(picture), "PNG")


RED, GREEN, BLUE, NOBODY = faces("red"), faces("green"), faces("blue"), faces()


def group(*photos: bytes, truth: bytes = NOBODY, boxes=()) -> Case:
    return Case("0001", "0001", "two people", (), truth, photos, boxes)


def left_edges(case: Case) -> list[float]:
    found = identity_of(case, Patches())
    assert isinstance(found, IdentityGroup)
    assert all(person.place and person.place.inside_region for person in found.people)
    return [person.place.box[0] for person in found.people if person.place]


def test_everybody_has_the_place_of_the_own_face_in_the_true_picture():
    truth = faces("blue", "green", "red", width=200)
    red, blue = left_edges(group(RED, BLUE, truth=truth))
    assert (red, blue) == pytest.approx((48 / 64, 0))  # of a square from the one to the other


def test_without_such_faces_the_boxes_of_the_benchmark_count_and_without_them_a_row():
    boxes = ((48.0, 0.0, 72.0, 24.0), (0.0, 0.0, 24.0, 24.0))
    for truth in (NOBODY, faces("red")):
        assert left_edges(group(RED, BLUE, truth=truth, boxes=boxes)) == pytest.approx([2 / 3, 0])
    for few in ((), boxes[:1]):
        places = left_edges(group(RED, GREEN, BLUE, boxes=few))
        assert places == sorted(places) and places[0] > 0 and places[-1] < 0.9


def test_a_reference_without_a_face_leaves_the_case_out():
    assert identity_of(group(RED, NOBODY), Patches()) is None


@pytest.mark.parametrize(
    ("size", "boxes", "expected"),
    [
        # The square is as high as the picture, around both faces.
        ((300, 100), [(120, 20, 140, 40), (160, 20, 180, 60)],
         [(0.2, 0.2, 0.2, 0.2), (0.6, 0.2, 0.2, 0.4)]),
        # At the picture's edge it stays inside.
        ((300, 100), [(0, 20, 20, 40), (20, 20, 40, 40)],
         [(0, 0.2, 0.2, 0.2), (0.2, 0.2, 0.2, 0.2)]),
        # Faces further apart need a larger one, higher than the picture.
        ((400, 100), [(100, 0, 150, 100), (250, 0, 300, 100)],
         [(0, 0.25, 0.25, 0.5), (0.75, 0.25, 0.25, 0.5)]),
        # High pictures; a box that leaves the picture; a tiny one grows.
        ((100, 200), [(-20, 40, 20, 60), (50, 100, 51, 101)],
         [(0, 0.195, 0.2, 0.2), (0.505 - 1 / 32, 0.8 - 1 / 32, 1 / 16, 1 / 16)]),
    ],
)  # fmt: skip
def test_boxes_are_told_in_the_square_around_them(size, boxes, expected):
    found = in_square(boxes, *size)
    assert np.allclose(found, expected, atol=0.006), found


def vectors(*angles: float) -> torch.Tensor:
    """Unit vectors in a plane, of angles in degrees."""
    radians = torch.tensor(angles).double().deg2rad()
    return torch.stack([radians.cos(), radians.sin()], 1)


def cosine(degrees: float) -> float:
    return float(np.cos(np.deg2rad(degrees)))


def test_faces_are_matched_and_the_others_tell_of_blending():
    found = measure_group(vectors(62, 1), vectors(3, 60), vectors(0, 64))
    assert found.sim_gt == pytest.approx((cosine(1) + cosine(2)) / 2)
    assert found.sim_ref == pytest.approx((cosine(2) + cosine(2)) / 2)
    assert found.blending_gt == pytest.approx((cosine(62) + cosine(63)) / 2)
    assert found.blending_ref == pytest.approx((cosine(59) + cosine(59)) / 2)
    assert found.copy_paste == pytest.approx(((1 - 2) / 3 + (2 - 2) / 4) / 2)
    copied = measure_group(vectors(3, 60), vectors(3, 60), vectors(0, 64))
    assert copied.copy_paste == pytest.approx(1) and copied.sim_ref == pytest.approx(1)


def test_a_missing_face_lowers_no_mean_and_one_too_many_has_no_match():
    missing = measure_group(vectors(1), vectors(3, 60), vectors(0, 64))
    assert missing.sim_gt == pytest.approx(cosine(1))
    assert missing.blending_gt == pytest.approx(cosine(63)) and np.isnan(missing.copy_paste)
    too_many = measure_group(vectors(90, 62, 1), vectors(3, 60), vectors(0, 64))
    assert too_many.sim_gt == pytest.approx((cosine(1) + cosine(2)) / 2)
    assert np.isnan(too_many.copy_paste) and too_many.blending_gt < cosine(60)
    nobody = torch.zeros(0, 0)
    assert np.isnan(measure_group(nobody, vectors(3, 60), vectors(0, 64))).all()
    alone = measure_group(vectors(1), vectors(3), nobody)
    assert alone.sim_ref == pytest.approx(cosine(2))
    assert np.isnan([alone.sim_gt, alone.copy_paste, alone.blending_ref]).all()


def test_the_matching_is_the_best_of_all():
    generator = torch.Generator().manual_seed(3)
    for _ in range(20):
        drawn, people = torch.nn.functional.normalize(
            torch.randn(2, 4, 5, generator=generator).double(), dim=-1
        )
        cosines = drawn @ people.T
        best = max(cosines[range(4), order].mean() for order in map(list, permutations(range(4))))
        found = measure_group(drawn, people, people)
        assert found.sim_gt == found.sim_ref == pytest.approx(best.item())
        assert found.blending_ref == pytest.approx((cosines.sum().item() - 4 * best.item()) / 12)


def test_pictures_of_several_people_are_scored_by_all_their_faces(tmp_path):
    drawn = {
        "both": faces("blue", "red"),
        "one": faces("red"),
        "three": faces("red", "green", "blue"),
        "nobody": NOBODY,
    }
    case = group(RED, BLUE, truth=faces("red", "blue"))
    cases = [case._replace(name=name, person=name) for name in drawn]
    write_cases(tmp_path, cases, {})
    assert (tmp_path / "both" / "ref_1.jpg").read_bytes() == RED
    assert (tmp_path / "both" / "ref_2.jpg").read_bytes() == BLUE
    for name, picture in drawn.items():
        (tmp_path / name / PICTURE).write_bytes(picture)
    both, one, three, nobody = scores = list(score_cases(tmp_path, cases, [Patches()], None))
    assert [score.faces for score in scores] == [2, 1, 3, 0]
    assert {score.people for score in scores} == {2}
    assert both.sim_gt == both.sim_ref == one.sim_gt == three.sim_gt == pytest.approx(1)
    assert both.blending_gt < 0 and both.copy_paste == 0 and np.isnan(three.copy_paste)
    assert not nobody.face and np.isnan([nobody.sim_gt, nobody.blending_ref]).all()
    rows = rows_of("flashface", Subset((2,)), scores)
    assert (rows[0].faces, rows[0].right_number) == (0.75, 0.25)
    without_face = group(RED, NOBODY, truth=faces("red", "blue"))._replace(name="both")
    (score,) = score_cases(tmp_path, [without_face], [Patches()], None)
    assert score.sim_gt == pytest.approx(1) and np.isnan([score.sim_ref, score.copy_paste]).all()
    lines = table(rows, with_paper=True, left_out=["Nothing more."])
    assert lines[0].endswith(
        "| CLIP-T | Blending(GT) | Blending(Ref) | right number | face found | pictures |"
    )
    assert any(line.startswith("| flashface, 2 people, Colour | 1.000") for line in lines)
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1
    assert "a face that is missing lowers none" in lines[-3] and lines[-1] == "Nothing more."
    assert flat(rows)["colour_2_people_right_number"] == 0.25


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def shared(models) -> Shared:
    return share(models, Patches())


@pytest.mark.parametrize("name", ["flashface", "facestudio", "face_fusion", "none"])
def test_systems_draw_everybody_each_in_a_place(name, shared, models, tmp_path):
    system = small(make_system(name, shared, weights_of(name, models)))
    there = faces("red", "blue", width=48)
    cases = {
        "first": group(RED, BLUE, truth=there),
        "again": group(BLUE, RED, truth=there),
        "moved": group(RED, BLUE, truth=faces("blue", "red", width=48)),
        "other": group(RED, GREEN, truth=faces("red", "green", width=48)),
    }
    pictures = {}
    for number, case in cases.items():
        write_cases(tmp_path / number, [case], {})
        draw_cases(tmp_path / number, [case], system, shared.vae, Patches(), seed=1)
        pictures[number] = np.array(Image.open(tmp_path / number / "0001" / PICTURE)).astype(int)
    first = pictures["first"]
    assert first.shape == (SIZE, SIZE, 3)
    for number in ("moved", "other"):
        assert (first == pictures[number]).all() == (name == "none"), number
    if name != "facestudio":  # there the first person is whatever is in no region
        assert abs(first - pictures["again"]).max() <= 1


@pytest.fixture(scope="module")
def model_pack(tmp_path_factory) -> Path:
    return make_model_pack(tmp_path_factory.mktemp("packs") / "models" / "tiny")


CELLS = ((5, 5), (14, 5), (5, 14), (14, 14))


def together(people: list[int], number: int) -> Image.Image:
    """A photograph of up to four people, each in a quarter."""
    picture = Image.new("RGB", (640, 640), GREY)
    for person, cell in zip(people, CELLS, strict=False):
        quarter = (320 * (cell[0] > 9), 320 * (cell[1] > 9))
        box = (*quarter, quarter[0] + 320, quarter[1] + 320)
        picture.paste(photograph(person, number, (cell,)).crop(box), quarter)
    return picture


def write_bench(folder: Path, least: int = 1) -> dict[str, list[int]]:
    """As it is downloaded, without cases of fewer than `least` people; the people of every case."""
    pa = pytest.importorskip("pyarrow", reason="the published table is a parquet file")
    from pyarrow import parquet

    people = {"0001": [1], "0002": [2, 3], "0003": [4, 5, 6], "0004": [7, 8, 9, 10]}
    people = {name: own for name, own in people.items() if len(own) >= least}
    rows = [
        {
            "GT": {"bytes": encoded(together(own, 0), "PNG"), "path": None},
            "input_images": [{"bytes": encoded(photograph(one, 1), "PNG")} for one in own],
            "prompt": f"{len(own)} people at sea",
            "bboxes": "[]",
            "subset": f"p{min(len(own), 3)}",
            "num_persons": len(own),
        }
        for own in people.values()
    ]
    (folder / "data").mkdir(parents=True)
    parquet.write_table(pa.Table.from_pylist(rows), folder / "data/train-00000-of-00001.parquet")
    return people


def test_the_command_draws_and_measures_one_to_four_people(models, model_pack, tmp_path):
    people, out = write_bench(tmp_path / "bench"), tmp_path / "out"
    given = ("--multiid-bench", tmp_path / "bench", "--out", out, "--json", tmp_path / "n.json")
    command = arguments(models, *given, "--model-pack", model_pack)
    evaluate.main(command)
    drawn = {path.parent.name: path for path in out.rglob(PICTURE)}
    assert sorted(path.parent.relative_to(out).as_posix() for path in drawn.values()) == [
        "people_2/0002", "people_3_4/0003", "people_3_4/0004", "references_1/0001"
    ]  # fmt: skip
    assert len(list((out / "people_3_4" / "0004").glob("ref_*.jpg"))) == 4
    # As if two people had been copied from their references, one of three were missing, and the
    # four met the truth.
    together(people["0002"], 1).save(drawn["0002"])
    together(people["0003"][:2], 0).save(drawn["0003"])
    together(people["0004"], 0).save(drawn["0004"])
    evaluate.main(command)
    with open(out / "pictures.csv", newline="") as file:
        _, two, three, four = csv.DictReader(file)
    assert [(row["people"], row["faces"]) for row in (two, three, four)] == [
        ("2", "2"), ("3", "2"), ("4", "4")
    ]  # fmt: skip
    assert float(two["copy_paste"]) > 0.9 and float(two["sim_ref"]) > 0.95
    assert float(three["sim_gt"]) > 0.95 and three["copy_paste"] == "nan"
    assert float(four["copy_paste"]) < -0.9 and float(four["sim_gt"]) > 0.95
    assert max(float(row["blending_ref"]) for row in (two, three, four)) < 0.4
    numbers = json.loads((tmp_path / "n.json").read_text())
    assert numbers["arcface_2_people_right_number"] == 1
    assert numbers["arcface_3_4_people_right_number"] == 0.5
    lines = (out / "measures.md").read_text().splitlines()
    ours = [line.split("|")[1].strip() for line in lines if line.startswith("| flashface")]
    assert ours == [
        "flashface, 1 reference, ArcFace",
        "flashface, 2 people, ArcFace",
        "flashface, 3 and 4 people, ArcFace",
    ]


def test_face2diffusion_says_that_it_draws_one_person(models, model_pack, tmp_path, caplog):
    write_bench(tmp_path / "bench")
    weights = weights_of("face2diffusion", models)
    more = ["--system", "face2diffusion", "--system-weights", *weights, "--model-pack", model_pack]
    given = ["--multiid-bench", tmp_path / "bench", "--most-people", 3, "--out", tmp_path / "out"]
    with caplog.at_level("INFO"):
        evaluate.main(arguments(models, *given, *more))
    said = "Face2Diffusion describes one person, by one word: cases of 2 people (1) have no row."
    assert said in caplog.text and said in (tmp_path / "out" / "measures.md").read_text()
    assert [path.name for path in (tmp_path / "out").iterdir() if path.is_dir()] == ["references_1"]


def test_pictures_of_several_people_by_another_pack_may_be_missing(models, model_pack, tmp_path):
    write_bench(tmp_path / "bench")
    out = tmp_path / "out"
    given = ["--multiid-bench", tmp_path / "bench", "--system", "ipadapter", "--out", out]
    command = list(map(str, [*given, "--model-pack", model_pack]))
    with pytest.raises(SystemExit, match=r"1 of 1 pictures are missing, .*0001/out\.png"):
        evaluate.main(command)
    together([1], 0).save(out / "references_1" / "0001" / PICTURE)
    evaluate.main(command)
    told = (out / "measures.md").read_text()
    assert "people_2 has no picture: cases of 2 people have no row." in told
    together([2, 3], 0).save(out / "people_2" / "0002" / PICTURE)
    together([4, 5, 6], 0).save(out / "people_3_4" / "0003" / PICTURE)
    with pytest.raises(SystemExit, match=r"1 of 2 pictures are missing, .*0004/out\.png"):
        evaluate.main(command)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (["--most-people", 1], "has no case of 1 people or fewer; give a larger --most-people"),
        (["--more-photos", "more"], "has no case of one person, to which --more-photos adds"),
    ],
)
def test_an_option_about_cases_that_are_not_there(option, said, model_pack, tmp_path):
    write_bench(tmp_path / "bench", least=2)
    (tmp_path / "more").mkdir()
    option = [tmp_path / value if value == "more" else value for value in option]
    given = ["--multiid-bench", tmp_path / "bench", *option, "--out", tmp_path / "out"]
    command = [*given, "--system", "ipadapter", "--model-pack", model_pack]
    with pytest.raises(SystemExit, match=said):
        evaluate.main(list(map(str, command)))
