"""Random people for tests of the trainer; also a script for runs in processes of their own."""

import json
import sys
from pathlib import Path

import torch
from accelerate import PartialState

SIZE, REFERENCE = 8, 8
PUBLISHED = "published.safetensors"


def random_people(count=4, pictures=3, fewer=0):
    """`fewer` of the people have two pictures alone."""
    from training.data import PeopleInMemory

    generator = torch.Generator().manual_seed(0)
    total = count * pictures
    boxes = torch.tensor([0.25, 0.25, 0.75, 0.75]).expand(total, 4)
    persons = [list(range(i * pictures, (i + 1) * pictures)) for i in range(count)]
    persons[:fewer] = [own[:2] for own in persons[:fewer]]
    return PeopleInMemory(
        torch.randn(total, 4, SIZE, SIZE, generator=generator),
        torch.randn(total, 4, REFERENCE, REFERENCE, generator=generator),
        boxes,
        [f"caption {i}" for i in range(total)],
        persons,
    )


def encode_text(captions: list[str]) -> torch.Tensor:
    """A fixed random embedding per caption."""
    rows = []
    for caption in captions:
        seed = sum(ord(c) * (i + 1) for i, c in enumerate(caption))
        rows.append(torch.randn(77, 768, generator=torch.Generator().manual_seed(seed)))
    return torch.stack(rows)


def make_networks(path):
    from flashface_core.flashface.checkpoint import read_checkpoint
    from flashface_core.weights_file import read_state_dict
    from training.networks import FlashFaceNetworks

    return FlashFaceNetworks(read_checkpoint("mini", *read_state_dict(path)))


def train(weights: str | Path, out: Path, runs: list) -> None:
    """runs: the name of a folder below `out`, system, recipe, and the step to end at. Every save
    publishes the weights and measures people, as training.train does."""
    from flashface_core.flashface.checkpoint import read_checkpoint
    from flashface_core.weights_file import read_state_dict
    from training.batches import Sampling
    from training.held_out import held_out_losses, record
    from training.systems import Given, build, save
    from training.trainer import Recipe, Trainer

    # Parts of the same number of people have other numbers of targets.
    people, given = random_people(fewer=2), Given(encode_text, {})
    for name, system, told, until in runs:
        recipe = Recipe(**{**told, "sampling": Sampling(**told.get("sampling", {}))})
        networks = build(system, read_checkpoint("mini", *read_state_dict(weights)), given)

        def on_save(step: int, networks, system=system, folder=out / name) -> None:
            save(system, networks, given, folder / PUBLISHED, torch.float32)
            losses = held_out_losses(networks, people, encode_text)
            if PartialState().is_main_process:
                record(folder, step, losses)

        Trainer(networks, people, encode_text, recipe, out / name, on_save).run(until)


if __name__ == "__main__":
    sys.path.append(str(Path(__file__).resolve().parents[2]))
    from training.comfyui import find_comfyui

    find_comfyui(cpu=True)
    PartialState(cpu=True)
    train(sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3]))
