"""What is wrong with a list is told before anything runs, and nothing outside of it is touched."""

import json
import os

import pytest
from support.automation import PROMPTS, WORKFLOW, pictures, run, write_grid
from support.server import WORKFLOWS

pytestmark = pytest.mark.server
SERVERS = 1

# What is wrong with row 1, 2, ... of a list: its column, the cell, and what is said of it.
MISTAKES = (
    ("photos", "people/person_9/0.png", "there is no file people/person_9/0.png"),
    ("photos", "people/person_0/*.jpg", "no file matches people/person_0/*.jpg"),
    ("photos", "words.txt", "words.txt is no picture of PNG, JPEG"),
    ("photos", "../outside.png", "lies outside of"),
    ("promt", "a portrait", "is no column; allowed are photos, person, prompt, seed and"),
    ("Sampler.steps", "2", "the workflow has no such node; it has FlashFace Apply, FlashFace"),
    ("KSampler.step", "2", "KSampler has no input step; it has model, seed, steps, cfg"),
    ("KSampler.steps", "many", "got 'many', expected a whole number from 1 to 10000"),
    ("KSampler.cfg", "-1", "got '-1', expected a number from 0.0 to 100.0"),
    ("KSampler.sampler_name", "eulr", "got 'eulr', allowed are euler, euler_cfg_pp"),
    ("KSampler.model", "flashface", "comes from FlashFace Apply (node 9)"),
    ("seed", "1.5", "got '1.5', expected a whole number from 0 to"),
)


@pytest.fixture(autouse=True)
def around(folder):
    (folder / "words.txt").write_text("no picture")
    (folder.parent / "outside.png").write_bytes((folder / "people/person_0/0.png").read_bytes())


def asked(servers) -> list[int]:
    return [server.get("/seen")["prompts"] for server in servers]


def test_twelve_mistakes_are_named_by_row_and_column_and_nothing_runs(folder, servers, tmp_path):
    before = asked(servers)
    names = list(dict.fromkeys(column for column, _, _ in MISTAKES))
    lines = [",".join(names)]
    lines += [
        ",".join(cell if name == column else "" for name in names) for column, cell, _ in MISTAKES
    ]
    manifest = folder / "mistakes.csv"
    manifest.write_text("\n".join(lines))
    told = run(manifest, tmp_path / "out", servers, code=2)
    for row, (column, _, text) in enumerate(MISTAKES, 1):
        assert f"row {row}, {column}: " in told
        assert text in told
    assert f"{len(MISTAKES)} mistakes; nothing was run." in told
    assert asked(servers) == before and not pictures(tmp_path / "out")


def test_rows_that_cannot_be_read_have_their_number(folder, servers, tmp_path):
    short = folder / "short.csv"
    short.write_text("prompt,seed\na portrait,1\na portrait\na portrait,x\n")
    told = run(short, tmp_path / "out", servers, code=2)
    assert "row 2, all columns: has 1 cells, and the header 2" in told
    assert "row 3, seed: got 'x'" in told
    broken = folder / "broken.jsonl"
    broken.write_text('{"seed": 1}\n{"seed": \n["seed"]\n{"seed": true}\n')
    told = run(broken, tmp_path / "out", servers, code=2)
    assert "row 2, all columns: is not JSON" in told
    assert 'row 3, all columns: is ["seed"], expected an object' in told
    assert "row 4, seed: got True, expected a whole number" in told


def test_a_mistake_of_every_row_is_told_once(folder, servers, tmp_path):
    grid = write_grid(folder / "wrong.yaml", **{"KSampler.scheduler": "simpel"})
    told = run(grid, tmp_path / "out", servers, code=2)
    assert told.count("simpel") == 1
    assert "row 1 (and 59 more rows), KSampler.scheduler: got 'simpel', allowed are" in told


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("empty.csv", "prompt,seed\n", "has no rows"),
        ("twice.csv", "seed,seed\n1,2\n", "has the column seed twice"),
        ("list.txt", "seed\n", "is no manifest; give a file .csv, .jsonl"),
        ("grid.json", '{"people": 3}', "people: is 3, expected a list"),
        ("none.json", '{"people": "faces/*"}', "people: is faces/*, which means no folder beside"),
        ("key.yaml", "peple: faces/*", "peple: is no key of a grid; allowed are people, prompts"),
        ("both.yaml", "prompts: [a]\nprompt: [b]", "prompt: is given twice, also by its other"),
        ("huge.json", json.dumps({"seeds": [1] * 2000, "prompts": ["a"] * 2000}), "4000000 rows"),
        ("up.json", '{"people": "../*"}', "give folders below that of the manifest"),
    ],
)
def test_a_file_that_is_no_list_is_told_in_one_sentence(tmp_path, servers, name, text, says):
    (tmp_path / name).write_text(text)
    told = run(tmp_path / name, tmp_path / "out", servers, code=2)
    assert says in told and "Traceback" not in told


def test_what_a_server_lacks_is_told(folder, servers, tmp_path):
    manifest = folder / "one.csv"
    manifest.write_text("seed\n1\n")
    workflow = json.loads(WORKFLOW.read_text())
    workflow["11"]["class_type"] = "KSamplerOfSomebody"
    (tmp_path / "lacks.json").write_text(json.dumps(workflow))
    told = run(manifest, tmp_path / "out", servers, "--workflow", f"{tmp_path}/lacks.json", code=2)
    assert "the server has no node KSamplerOfSomebody; install its pack there" in told
    name = "02_portrait_from_photos"
    told = run(
        manifest, tmp_path / "out", servers, "--workflow", f"{WORKFLOWS}/api/{name}.json", code=2
    )
    assert "model_name: got 'flashface.ckpt', allowed are" in told
    told = run(
        manifest, tmp_path / "out", servers, "--workflow", f"{WORKFLOWS}/{name}.json", code=2
    )
    assert "is a workflow for the canvas; export it in API form" in told
    told = run(manifest, tmp_path / "out", ["http://127.0.0.1:9", "ftp://a"], code=2)
    assert "--server is ftp://a; give an address such as" in told
    told = run(manifest, tmp_path / "out", ["http://127.0.0.1:9"], code=2)
    assert "No server answers; start ComfyUI" in told and "the others begin" not in told
    told = run(manifest, manifest, servers, code=2)
    assert f"--out: {manifest} is a file; name a folder" in told


def test_a_column_replaces_what_the_server_lacks_and_auto_takes_any_pack(folder, servers, tmp_path):
    """A shipped workflow names files as they were published, and another server's model pack."""
    workflow = json.loads((WORKFLOWS / "api" / "02_portrait_from_photos.json").read_text())
    (detector,) = (n for n in workflow.values() if n["class_type"] == "FlashFaceDetectorLoader")
    detector["inputs"].update(detector="auto", model_pack="buffalo_l")
    path = tmp_path / "elsewhere.json"
    path.write_text(json.dumps(workflow))
    mine = "mine.safetensors"
    for server in servers:
        for models in ("flashface", "text_encoders", "vae"):
            place = server.base / "models" / models
            place.mkdir(exist_ok=True)
            (place / mine).touch()
    columns = {
        "FlashFace Loader.model_name": mine,
        "Load CLIP.clip_name": mine,
        "Load VAE.vae_name": mine,
    }
    grid = write_grid(folder / "elsewhere.yaml", **{"Picture size.width": 64, **columns})
    given = ("--workflow", str(path), "--check")
    told = run(grid, tmp_path / "out", servers, *given)
    assert "got" not in told
    detector["inputs"].update(detector="insightface")
    path.write_text(json.dumps(workflow))
    told = run(grid, tmp_path / "out", servers, *given, code=2)
    assert "model_pack: got 'buffalo_l', allowed are" in told
    assert "model_name" not in told


def test_a_link_to_a_file_outside_is_not_followed(folder, servers, tmp_path):
    manifest = folder / "linked.csv"
    manifest.write_text("photos\nlinked.png\nlinked/outside.png\nlinked/*.png\n/etc/passwd\n")
    for name, target in (("linked.png", folder.parent / "outside.png"), ("linked", folder.parent)):
        if not (folder / name).is_symlink():
            os.symlink(target, folder / name)
    told = run(manifest, tmp_path / "out", servers, code=2)
    assert told.count("lies outside of") == 4
    allowed = ("--photos", str(folder), "--photos", str(folder.parent), "--check")
    told = run(manifest, tmp_path / "checked", servers, *allowed, code=2)
    assert "row 4, photos: /etc/passwd lies outside of" in told
    assert "1 mistake; nothing was run." in told
    assert not (tmp_path / "checked").exists()


@pytest.mark.parametrize("name", ["/etc/passwd", "../secret.png", "..\\secret.png", "C:\\a.png"])
def test_a_workflow_reads_no_file_outside_of_the_servers_folders(folder, servers, tmp_path, name):
    """Core's LoadImage joins whatever it is given."""
    workflow = json.loads(WORKFLOW.read_text())
    workflow["2"] = {"class_type": "LoadImage", "inputs": {"image": name}}
    (tmp_path / "reads.json").write_text(json.dumps(workflow))
    manifest = folder / "one.csv"
    manifest.write_text("seed\n1\n")
    told = run(manifest, tmp_path / "out", servers, "--workflow", f"{tmp_path}/reads.json", code=2)
    assert "LoadImage (node 2 of the workflow), image: got " in told
    assert "leads out of a folder" in told


def test_names_write_nothing_outside_of_the_results(folder, servers, tmp_path):
    """Neither those of people, nor what the workflow saves under or beside."""
    workflow = json.loads(WORKFLOW.read_text())
    saving = {"identity": ["6", 0], "filename": "anna"}
    (save,) = (node for node in workflow.values() if node["class_type"] == "SaveImage")
    workflow["90"] = {"class_type": "FlashFaceIdentitySave", "inputs": saving}
    path, out = tmp_path / "writes.json", tmp_path / "out"
    row = {"photos": "people/person_0/*", "person": "../../../tmp/anna\0:*?", "prompt": PROMPTS[0]}
    row |= {"KSampler.steps": 1, "Picture size.width": 64, "Picture size.height": 64}
    manifest = folder / "names.jsonl"
    manifest.write_text(json.dumps(row))
    save["inputs"]["filename_prefix"] = "../../somewhere/else"
    path.write_text(json.dumps(workflow))
    told = run(manifest, out, servers[:1], "--workflow", str(path), code=2)
    assert "filename_prefix: got '../../somewhere/else', which leads out of a folder" in told
    save["inputs"]["filename_prefix"] = "somewhere/else"
    path.write_text(json.dumps(workflow))
    before = files(servers[0].base, tmp_path)
    run(manifest, out, servers[:1], "--workflow", str(path))
    new = {path for path in files(servers[0].base, tmp_path) - before if out not in path.parents}
    assert {path.parent for path in new} <= {servers[0].base / "input" / "flashface_automation"}
    sheets = sorted(sheet.name for sheet in (out / "sheets").iterdir())
    assert sheets == ["001_tmp_anna.jpg", "index.txt"]


def files(*folders) -> set:
    """But for what a server throws away when it stops."""
    found = (path for folder in folders for path in folder.rglob("*") if path.is_file())
    return {path for path in found if "temp" not in path.parts and path.suffix != ".log"}


def test_nothing_in_a_cell_is_evaluated(folder, servers, tmp_path):
    text = "__import__('os').system('touch pwned') {a|b} ${HOME} !!python/object:os.system"
    manifest = folder / "evil.jsonl"
    manifest.write_text(json.dumps({"prompt": text, "KSampler.steps": "1+1"}))
    told = run(manifest, tmp_path / "out", servers, code=2)
    assert "KSampler.steps: got '1+1', expected a whole number" in told
    yaml = folder / "evil.yaml"
    yaml.write_text("seeds: !!python/object/apply:os.system ['touch pwned']\n")
    told = run(yaml, tmp_path / "out", servers, code=2)
    assert "evil.yaml cannot be read: could not determine a constructor" in told
