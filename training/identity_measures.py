"""How near a face is to a person, to one photo of that person, and how sure a mean is; identity and
text in one number.

Copy-Paste is that of MultiID-Bench (WithAnyone, arXiv 2510.14975), on cosines of face embeddings.
"""

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

SAME_PHOTO = 1e-6  # radians between truth and reference, below which nothing can be told


def angle(cosine: Tensor) -> Tensor:
    """In radians, 0..pi, of cosines of any shape; rounding outside of -1..1 is clipped."""
    return cosine.clamp(-1, 1).arccos()


def copy_paste(gt_cosine: Tensor, ref_cosine: Tensor, gt_ref_cosine: Tensor) -> Tensor:
    """In -1..1: 1 is a copy of the reference, 0 is as near to it as to the truth, -1 the truth.

    Cosines of the picture to the true one, of the picture to the reference, and of these two, all
    of one shape: (angle to the truth - angle to the reference) / angle between the two. The
    triangle inequality keeps it within -1..1; where the truth is the reference it is 0.
    """
    nearer = angle(gt_cosine) - angle(ref_cosine)
    return (nearer / angle(gt_ref_cosine).clamp(min=SAME_PHOTO)).clamp(-1, 1)


def bootstrap_interval(
    values: Tensor,
    groups: Sequence[Hashable] | Tensor | None = None,
    level: float = 0.95,
    draws: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """The interval of the mean of values (N,) by the percentile bootstrap.

    groups: N names, such as of people; whole groups are then drawn, as pictures of one person are
    no independent samples. Raises ValueError for no values, other than one group a value, and a
    level outside of 0..1.
    """
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"values are {tuple(values.shape)}; at least one, in one row, is needed")
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; a fraction between 0 and 1 is needed")
    names = groups.tolist() if isinstance(groups, Tensor) else list(groups or range(len(values)))
    if len(names) != len(values):
        raise ValueError(f"{len(names)} groups for {len(values)} values; one for each is needed")
    number = {name: n for n, name in enumerate(dict.fromkeys(names))}
    of_group = torch.tensor([number[name] for name in names])
    sums = torch.zeros(len(number), dtype=torch.float64)
    sums.index_add_(0, of_group, values.detach().cpu().double())
    counts = of_group.bincount(minlength=len(number)).double()
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(number), (draws, len(number)), generator=generator)
    drawn_means = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = drawn_means.quantile(
        torch.tensor([(1 - level) / 2, (1 + level) / 2]).double()
    ).tolist()
    return low, high


def means(identity: float, text: float) -> dict[str, float]:
    """Harmonic and geometric mean of how well identity and text were kept; 0 for cosines below."""
    identity, text = max(identity, 0.0), max(text, 0.0)
    return {
        "harmonic_mean": 2 * identity * text / max(identity + text, 1e-9),
        "geometric_mean": (identity * text) ** 0.5,
    }
