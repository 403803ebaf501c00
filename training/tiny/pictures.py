"""What a system draws of the people of an evaluation."""

from collections.abc import Callable
from itertools import groupby

import torch
from torch import Tensor
from tqdm import tqdm


def draw_pictures(evaluation, system, references: int, rows: Callable[[int], list[int]]) -> Tensor:
    """Of every person, the pictures of the cast that `rows` names, (N, 3, H, W)."""
    from training.sampling import sample  # of ComfyUI, which a command has to find first

    pictures, each = [], len(evaluation.labels)
    for person in tqdm(range(evaluation.people), desc="Sampling", unit="person"):
        identity = evaluation.identity(person, references)
        wanted = groupby(
            rows(person), lambda n: evaluation.settings_of(evaluation.settings, n % each)
        )
        for settings, numbers in wanted:
            same = list(numbers)
            model, positive, negative = system.condition(identity, same, settings.guidance)
            given = (model, evaluation.models.vae, positive, negative, len(same))
            seed = evaluation.seed * 10**6 + same[0]
            pictures.append(sample(*given, seed, settings, evaluation.size))
    return torch.cat(pictures)
