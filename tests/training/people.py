"""Random people for tests of the trainer; also a script for runs in processes of their own."""

import sys
from pathlib import Path

import torch

SIZE, REFERENCE = 8, 8


def random_people(count=4, pictures=3):
    from training.data import PeopleInMemory

    generator = torch.Generator().manual_seed(0)
    total = count * pictures
    boxes = torch.tensor([0.25, 0.25, 0.75, 0.75]).expand(total, 4)
    persons = [list(range(i * pictures, (i + 1) * pictures)) for i in range(count)]
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


def main(weights: str, folder: str, groups: str, steps: str) -> None:
    from training.trainer import Recipe, Trainer

    recipe = Recipe(steps=int(steps), groups=int(groups), log_every=1, save_every=10**6)
    Trainer(make_networks(weights), random_people(), encode_text, recipe, Path(folder)).run()


if __name__ == "__main__":
    sys.path.append(str(Path(__file__).resolve().parents[2]))
    from training.comfyui import find_comfyui

    find_comfyui(cpu=True)
    main(*sys.argv[1:])
