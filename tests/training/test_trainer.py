"""One trainer: it learns, it resumes to the bit, and processes only share the work."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from comfy.model_sampling import ModelSamplingDiscrete
from people import encode_text, make_networks, random_people, train
from support.models import write_flashface

pytest.importorskip("accelerate", reason="the trainer needs accelerate and tensorboard")

from flashface_core.errors import FlashFaceError
from training.batches import Sampling, draw_batch
from training.diffusion import add_noise, noise_levels, noise_loss
from training.networks import PARTS
from training.progress import Progress
from training.trainer import Recipe, Trainer, checkpoint_blocks


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return write_flashface(tmp_path_factory.mktemp("training") / "small.safetensors")


def trainer(weights, folder, people=None, **recipe) -> Trainer:
    options = dict(steps=4, groups=2, log_every=1, save_every=1000) | recipe
    people = people or random_people()
    return Trainer(make_networks(weights), people, encode_text, Recipe(**options), folder)


def losses(folder) -> list[str]:
    with open(folder / "losses.csv") as file:
        return [row["loss"] for row in csv.DictReader(file)]


def state(trainer) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in trainer.networks.state_dict().items()}


def test_the_noise_process_is_comfyuis():
    sigmas = ModelSamplingDiscrete().sigmas
    alphas, noise = noise_levels()
    torch.testing.assert_close(noise / alphas, sigmas, rtol=1e-5, atol=1e-6)
    x0, eps = torch.randn(2, 3, 4, 8, 8)
    noisy = add_noise(x0, eps, torch.tensor([0, 500, 999]))
    torch.testing.assert_close(noisy[1], alphas[500] * x0[1] + noise[500] * eps[1])


def test_region_and_snr_weights():
    predicted, noise = torch.ones(2, 4, 8, 8), torch.zeros(2, 4, 8, 8)
    t = torch.tensor([10, 900])
    region = torch.zeros(2, 1, 8, 8)
    region[:, :, :4] = 1
    torch.testing.assert_close(noise_loss(predicted, noise, t), torch.ones(2))
    even = noise_loss(predicted, noise, t, region=region, region_weight=5.0)
    torch.testing.assert_close(even, torch.ones(2))
    predicted[:, :, 4:] = 0  # the error is in the region
    inside = noise_loss(predicted, noise, t, region=region, region_weight=3.0)
    torch.testing.assert_close(inside, torch.full((2,), 0.75))
    early, late = noise_loss(torch.ones(2, 4, 8, 8), noise, t, min_snr_gamma=5.0)
    assert early < 0.1 and late == 1


def test_samples_follow_from_seed_step_and_group_alone():
    people, sampling = random_people(), Sampling(targets_per_group=2)
    whole = draw_batch(people, sampling, 1, 7, range(4))
    halves = [draw_batch(people, sampling, 1, 7, r) for r in (range(2), range(2, 4))]
    assert torch.equal(whole.noise, torch.cat([half.noise for half in halves]))
    assert whole.captions == [caption for half in halves for caption in half.captions]
    assert not torch.equal(whole.noise, draw_batch(people, sampling, 1, 8, range(4)).noise)


def test_no_two_steps_share_noise():
    drawn = [draw_batch(random_people(), Sampling(), 0, step, range(2)).noise for step in range(20)]
    values = torch.stack(drawn).flatten()
    assert len(values.unique()) > 0.98 * len(values)


def test_a_target_is_never_its_own_reference_and_omissions_come_as_often_as_asked():
    people = random_people(count=3, pictures=6)
    sampling = Sampling(drop_references=0.2, drop_text=0.15, drop_both=0.1, give_position=0.7)
    without_text = without_face = without_both = placed = 0
    photos = set()
    count = 3000
    batch = draw_batch(people, sampling, 0, 0, range(count))
    slots = dict(zip(batch.references.rows, batch.references.slots.tolist(), strict=True))
    for row in range(count):
        no_text, no_face = batch.captions[row] == "", row not in slots
        without_text += no_text and not no_face
        without_face += no_face and not no_text
        without_both += no_text and no_face
        placed += bool(batch.position[row].any())
        if not no_face:
            photos.add(len(set(slots[row])))
            assert batch.references.timesteps[slots[row]].unique() == batch.timesteps[row]
    assert photos == {1, 2, 3, 4}
    for got, chance in (
        (without_text, 0.15),
        (without_face, 0.2),
        (without_both, 0.1),
        (placed, 0.7),
    ):
        assert abs(got / count - chance) < 0.03
    for group in range(50):
        one = draw_batch(people, Sampling(0 + 1, 0, 0, 0), 0, 0, range(group, group + 1))
        (target,) = one.latents
        index = next(
            i for i in range(len(people.latents)) if torch.equal(people.latents[i], target)
        )
        own = people.references[index]
        assert not any(torch.equal(own, latent) for latent in one.references.latents)


def test_overfitting_one_sample_drives_the_loss_down(weights, tmp_path):
    nothing_dropped = Sampling(1, 0, 0, 0, 1.0)
    people = random_people(count=1, pictures=2)
    run = trainer(
        weights, tmp_path, people, groups=1, learning_rate=1e-3, warmup_steps=1, steps=1000,
        sampling=nothing_dropped,
    )  # fmt: skip
    losses = []
    for _ in range(40):
        run.progress.step = 0  # the same sample and noise again
        losses.append(run.step())
    assert losses[-1] < 0.3 * losses[0]


@pytest.mark.parametrize(
    "how", [{}, {"gradient_checkpointing": True}, {"optimizer": "muon"}], ids=str
)
def test_a_killed_run_resumes_to_the_same_numbers(weights, tmp_path, how):
    options = dict(steps=4, save_every=2) | how
    whole = trainer(weights, tmp_path / "whole", **options)
    whole.run()
    first = trainer(weights, tmp_path / "killed", **options)
    first.run(until=3)  # saved at 2 and 3
    (tmp_path / "killed" / "state.part").mkdir()  # killed in the middle of saving
    second = trainer(weights, tmp_path / "killed", **options)
    assert second.progress.step == 3
    second.run()
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")
    expected = state(whole)
    assert all(torch.equal(value, expected[key]) for key, value in state(second).items())
    assert all(torch.equal(a, second.ema.average[k]) for k, a in whole.ema.average.items())


def test_a_run_whose_losses_were_not_written_goes_on(weights, tmp_path):
    trainer(weights, tmp_path, steps=2, save_every=1).run(until=1)
    (tmp_path / "losses.csv").write_text("")
    trainer(weights, tmp_path, steps=2, save_every=1).run()
    assert len(losses(tmp_path)) == 1


def test_weights_that_could_not_be_published_are_published_by_the_next_run(weights, tmp_path):
    seen = []

    def on_save(step, networks):
        seen.append(step)
        if seen == [1, 2]:
            raise OSError("no space left")

    def run():
        options = Recipe(steps=2, groups=2, save_every=1)
        given = make_networks(weights), random_people(), encode_text, options, tmp_path
        Trainer(*given, on_save).run()

    with pytest.raises(OSError):
        run()
    run()
    assert seen == [1, 2, 2]


def test_losses_are_those_of_a_run_never_killed_wherever_it_was_saved(weights, tmp_path):
    for folder, ends in (("whole", (8,)), ("killed", (4, 8))):
        for until in ends:
            options = dict(steps=8, log_every=3, save_every=4, ema=0)
            trainer(weights, tmp_path / folder, **options).run(until)
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")


def test_rates_in_the_table_are_those_that_were_used(weights, tmp_path):
    def rates(run, folder):
        used = []
        step = run.optimizer.step
        run.optimizer.step = lambda: (used.append(run.optimizer.param_groups[0]["lr"]), step())
        run.run()
        with open(folder / "losses.csv") as file:
            told = [float(row["learning_rate"]) for row in csv.DictReader(file)]
        return used, told[-len(used) :]

    recipe = dict(learning_rate=1e-3, warmup_steps=2, decay_from=0.5, ema=0)
    used, told = rates(trainer(weights, tmp_path, steps=4, **recipe), tmp_path)
    assert used == pytest.approx(told, rel=1e-3) and used[0] == 5e-4 and used[-1] > 0
    # A run that is made longer has the rates of the longer one at once.
    used, told = rates(trainer(weights, tmp_path, steps=8, **recipe), tmp_path)
    assert used == pytest.approx(told, rel=1e-3) and used[0] == 1e-3


def test_dropout_is_of_seed_step_and_part(weights, tmp_path):
    class Dropping(type(make_networks(weights))):
        def forward(self, batch, noisy, texts):
            masks.append(torch.nn.functional.dropout(torch.ones(200), 0.5))
            return super().forward(batch, noisy, texts)

    def run(folder, **more):
        networks = make_networks(weights)
        networks.__class__ = Dropping
        options = Recipe(steps=2, groups=4, accumulate=2, ema=0, save_every=1, **more)
        return Trainer(networks, random_people(), encode_text, options, folder)

    masks: list[torch.Tensor] = []
    run(tmp_path / "a").run()
    whole, masks = masks, []
    assert all(not torch.equal(a, b) for i, a in enumerate(whole) for b in whole[:i])
    run(tmp_path / "b").run(1)
    again = run(tmp_path / "b")
    torch.manual_seed(9)  # as in no process of the run before
    again.run()
    assert all(torch.equal(a, b) for a, b in zip(whole, masks, strict=True))


@pytest.mark.parametrize("killed", ["while it removed the state before", "between two renamings"])
def test_a_run_killed_while_it_saved_goes_on(weights, tmp_path, killed):
    run = tmp_path / "run"
    recipe: dict = dict(steps=2, save_every=1, ema=0)
    trainer(weights, run, **recipe).run(until=1)
    if killed.startswith("between"):
        (run / "state").rename(run / "state.old")
    else:
        (run / "state.old").mkdir()
        (run / "state.old" / "left").write_bytes(b"x")
    with open(run / "losses.csv", "a") as file:
        file.write("2,9.0,0.0,0.0\n")  # of a step after the state was saved
    again = trainer(weights, run, **recipe)
    assert again.progress.step == 1
    again.run()
    assert (run / "state").is_dir() and not (run / "state.old").exists()
    assert len(losses(run)) == 2 and losses(run)[1] != "9.0"


def test_the_folder_of_another_run_is_refused(weights, tmp_path):
    trainer(weights, tmp_path, steps=1, learning_rate=1e-3).run()
    trainer(weights, tmp_path, steps=2, learning_rate=1e-3, save_every=1)
    with pytest.raises(
        FlashFaceError, match="a run whose learning_rate is 0.001, and now it is 1e-05"
    ):
        trainer(weights, tmp_path, steps=2, learning_rate=1e-5)
    for other in (dict(train=("reference_net",)), dict(ema=0)):
        with pytest.raises(FlashFaceError, match=f"a run whose {next(iter(other))} is"):
            trainer(weights, tmp_path, steps=2, learning_rate=1e-3, **other)
    with pytest.raises(FlashFaceError, match="a run whose sampling is"):
        trainer(weights, tmp_path, steps=2, learning_rate=1e-3, sampling=Sampling(own_face=1.0))
    with pytest.raises(FlashFaceError, match="a run whose precision is no, and now it is fp16"):
        Progress({"precision": "fp16"}, tmp_path).load_state_dict(
            {"step": 1, "recipe": {"precision": "no"}}
        )
    Progress({"precision": "bf16"}, tmp_path).load_state_dict(
        {"step": 1, "recipe": {"precision": "no"}}
    )


def test_gradient_checkpointing_changes_no_gradient(weights):
    people, sampling = random_people(), Sampling(drop_references=0, drop_both=0)
    batch = draw_batch(people, sampling, 0, 0, range(2))
    texts = encode_text(["", *batch.captions])
    gradients = []
    for use in (False, True):
        networks = make_networks(weights)
        networks.freeze_all_but(PARTS)
        if use:
            checkpoint_blocks(networks)
        predicted = networks.predict(
            batch.latents, batch.timesteps, texts[1:], texts[:1], batch.references, batch.position
        )
        predicted.square().mean().backward()
        gradients.append({n: p.grad for n, p in networks.named_parameters() if p.requires_grad})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-7, msg=name)


def test_accumulation_changes_no_number(weights, tmp_path):
    people = random_people(fewer=2)
    sampling = Sampling(targets_per_group=2)
    options = dict(groups=4, sampling=sampling)
    halves = range(2), range(2, 4)
    targets = [
        [len(draw_batch(people, sampling, 0, step, half).latents) for half in halves]
        for step in range(4)
    ]
    assert any(one != other for one, other in targets)
    trainer(weights, tmp_path / "one", people, **options).run()
    trainer(weights, tmp_path / "two", people, accumulate=2, **options).run()
    one, two = (list(map(float, losses(tmp_path / name))) for name in ("one", "two"))
    assert one == pytest.approx(two, rel=1e-4)


def test_two_processes_give_the_losses_of_one_with_twice_the_batch(weights, tmp_path):
    script = str(Path(__file__).with_name("people.py"))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    two = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2",
           "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no",
           "--main_process_port", "0", script]  # fmt: skip
    recipe = dict(steps=3, groups=4, log_every=1, sampling=dict(targets_per_group=2))
    run = "flashface", recipe, 3
    train(weights, tmp_path, [("one", *run)])
    done = subprocess.run(
        [*two, str(weights), str(tmp_path), json.dumps([("two", *run)])],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = (list(map(float, losses(tmp_path / name))) for name in ("one", "two"))
    assert len(one) == 3 and one == pytest.approx(two, rel=1e-4)


def test_groups_that_cannot_be_shared_are_an_error(weights, tmp_path):
    with pytest.raises(ValueError, match="3 groups cannot be shared by 1 processes in 2 parts"):
        trainer(weights, tmp_path, groups=3, accumulate=2)


def test_without_an_average_what_was_trained_is_saved(weights, tmp_path):
    saved = []
    options = Recipe(steps=1, groups=1, ema=0.0, warmup_steps=1)
    given = (make_networks(weights), random_people(), encode_text, options, tmp_path)
    run = Trainer(*given, lambda step, networks: saved.append(dict(networks.state_dict())))
    before = state(run)
    run.run()
    assert run.ema.average == {}
    assert all(torch.equal(value, saved[0][key]) for key, value in state(run).items())
    assert any(not torch.equal(value, saved[0][key]) for key, value in before.items())
