"""FlashFaceDetectorLoader: packs in ComfyUI's folders, and memory that ComfyUI gets back."""

import gc
import weakref

import comfy.model_management
import folder_paths
import pytest
import torch
from flashface_pack.flashface_core.comfy_adapter.detector import make_detector
from flashface_pack.flashface_core.errors import FlashFaceError
from flashface_pack.flashface_core.faces.align import ARCFACE_POINTS
from flashface_pack.flashface_core.faces.zoo import ZOO
from flashface_pack.nodes.detector import FlashFaceDetectorLoader
from support.detecting import as_image, identify
from support.model_packs import make_model_pack, photograph
from support.photographs import astronaut
from support.zoo import make_zoo


@pytest.fixture
def models(tmp_path, monkeypatch):
    """An empty models folder."""
    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path / "models"))
    return tmp_path / "models"


@pytest.fixture(params=["mtcnn", "insightface", ZOO])
def loaded(request, models):
    """A detector as the node makes it, a photo with one face, and weak references to what it
    keeps in memory."""
    if request.param == "mtcnn":
        pytest.importorskip("facenet_pytorch", reason="MTCNN is optional")
        pytest.importorskip("skimage", reason="the photographs come with it")
        photo = as_image(astronaut())
    elif request.param == ZOO:
        make_zoo(models / "opencv_zoo")
        pytest.importorskip("skimage", reason="the photographs come with it")
        photo = as_image(astronaut())
    else:
        make_model_pack(models / "insightface" / "models" / "tiny")
        photo = as_image(photograph(1, 0))
    detector = FlashFaceDetectorLoader.execute(request.param, "tiny").args[0]

    def kept() -> list[weakref.ref]:
        inside = detector._detector
        if request.param == "mtcnn":
            return [weakref.ref(inside._mtcnn), weakref.ref(inside._mtcnn.onet.conv1.weight)]
        if request.param == ZOO:
            return [weakref.ref(one._session) for one in (inside._yunet, inside._sface)]
        return [weakref.ref(model.session) for model in inside._app.models.values()]

    return detector, photo, kept


def alive(references) -> list[bool]:
    gc.collect()
    return [reference() is not None for reference in references]


def test_unloading_all_models_gives_the_memory_back_and_the_next_run_loads_again(loaded):
    detector, photo, kept = loaded
    before = identify(photo, detector)
    references = kept()
    assert len(references) == 2 and all(alive(references))
    comfy.model_management.unload_all_models()
    assert not any(alive(references))
    after = identify(photo, detector)
    assert after[0].references[0].content == before[0].references[0].content
    assert all(alive(kept()))


def test_the_models_are_loaded_once_for_many_photos(loaded):
    detector, photo, kept = loaded
    references = kept()
    for _ in range(3):
        identify(photo.expand(2, -1, -1, -1), detector)
    assert all(alive(references))


def test_memory_is_given_back_right_after_use_where_it_is_short(loaded, monkeypatch):
    detector, photo, kept = loaded
    references = kept()
    with monkeypatch.context() as patch:
        patch.setattr(comfy.model_management, "minimum_inference_memory", lambda: 1e30)
        assert identify(photo, detector)[3] == 1
    assert not any(alive(references))
    assert identify(photo, detector)[3] == 1


def test_a_detector_that_leaves_the_cache_leaves_the_memory(models):
    pytest.importorskip("facenet_pytorch", reason="MTCNN is optional")
    detector = make_detector("mtcnn", None)
    detector.find(torch.zeros(64, 64, 3, dtype=torch.uint8))
    inside, listed = weakref.ref(detector._detector._mtcnn), weakref.ref(detector._patcher.model)
    assert all(alive([inside, listed]))
    del detector
    assert not any(alive([inside, listed]))
    comfy.model_management.cleanup_models()
    comfy.model_management.unload_all_models()


def test_an_interrupt_stops_a_batch_of_photos(loaded):
    detector, photo, _ = loaded
    comfy.model_management.interrupt_current_processing(True)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        identify(photo, detector)
    assert identify(photo, detector)[3] == 1


def model_packs() -> list[str]:
    (widget,) = (i for i in FlashFaceDetectorLoader.define_schema().inputs if i.id == "model_pack")
    return widget.options


def test_packs_are_listed_from_every_folder_of_the_name(models, tmp_path, monkeypatch):
    assert model_packs() == ["none"]
    for folder in (models / "insightface", tmp_path / "elsewhere"):
        pack = folder / "models" / folder.name
        pack.mkdir(parents=True)
        (pack / "det.onnx").touch()
    assert model_packs() == ["insightface"]
    declared = {"insightface": ([str(tmp_path / "elsewhere")], set())}
    known = {**folder_paths.folder_names_and_paths, **declared}
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", known)
    assert model_packs() == ["insightface", "elsewhere"]


@pytest.mark.parametrize(
    ("detector", "pack", "words"),
    [
        ("auto", "none", None),
        (None, "none", None),
        ("insightface", None, None),
        ("auto", "buffalo_l", None),
        ("mtcnn", "buffalo_l", None),
        ("insightface", "buffalo_l", "no InsightFace model pack 'buffalo_l' among nothing; unpack"),
        ("insightface", "none", "unpack buffalo_l.zip so that its .onnx files lie in"),
        ("retina", "none", "no detector 'retina'; use one of auto, insightface, mtcnn, opencv zoo"),
        (ZOO, "none", "no face_detection_yunet_2023mar.onnx in "),
    ],
)
def test_a_workflow_of_another_machine_is_validated_with_a_sentence(models, detector, pack, words):
    answer = FlashFaceDetectorLoader.validate_inputs(detector, pack)
    assert answer is True if words is None else words in answer
    if words and detector == "insightface":
        assert str(models / "insightface" / "models" / "buffalo_l") in answer
        with pytest.raises(FlashFaceError, match="press R"):
            FlashFaceDetectorLoader.execute(detector, pack)


def test_insightface_makes_identities_of_photos(models):
    make_model_pack(models / "insightface" / "models" / "tiny")
    detector = FlashFaceDetectorLoader.execute("auto", "none").args[0]
    assert detector.name == "insightface tiny" and detector.can_embed
    image = torch.cat([as_image(photograph(1, 0)), as_image(photograph(2, 0, ((4, 5), (14, 12))))])
    person, _, _, count = identify(image, detector, "every face")
    assert count == 3
    first = person.references[0]
    assert first.box == pytest.approx((176, 144, 400, 368), abs=1)
    assert first.points.numpy() == pytest.approx((ARCFACE_POINTS - 56) * 2 + [288, 256], abs=1)
    assert first.crop.shape == (224, 224, 3)


def test_opencv_zoo_makes_identities_of_photographs(models):
    make_zoo(models / "opencv_zoo")
    pytest.importorskip("skimage", reason="the photographs come with it")
    assert FlashFaceDetectorLoader.validate_inputs(ZOO, "buffalo_l") is True
    detector = FlashFaceDetectorLoader.execute(ZOO, "none").args[0]
    assert (detector.name, detector.recognition) == ("opencv zoo", "SFace")
    person, faces, _, count = identify(as_image(astronaut()), detector)
    assert count == 1 and faces.shape == (1, 224, 224, 3)
    assert person.references[0].box == pytest.approx((178, 63, 268, 176), abs=4)
    assert person.references[0].aligned.shape == (112, 112, 3)


def test_other_files_of_opencv_zoo_are_another_detector(models):
    with pytest.raises(FlashFaceError, match=r"models/face_recognition_sface.*detector mtcnn"):
        FlashFaceDetectorLoader.execute(ZOO, "none")
    seen = {FlashFaceDetectorLoader.fingerprint_inputs(ZOO, "none")}
    (models / "opencv_zoo").mkdir(parents=True)
    for name in ("face_detection_yunet_2023mar", "face_recognition_sface_2021dec"):
        (models / "opencv_zoo" / f"{name}.onnx").write_bytes(b"")
        seen.add(str(FlashFaceDetectorLoader.fingerprint_inputs(ZOO, "none")))
    assert len(seen) == 3
