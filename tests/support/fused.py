"""Face Fusion's attention, put together from what the nodes run."""

import torch
from flashface_pack.flashface_core.face_fusion.fusion import fusion_change
from flashface_pack.flashface_core.features import Person, ReferenceLatent
from flashface_pack.flashface_core.people.place import Place
from flashface_pack.flashface_core.row_references import Known, RowReferences, gather_references
from flashface_pack.flashface_core.softmax import ReferenceKeys
from torch.nn.functional import scaled_dot_product_attention

SITE = ("middle", 0, 0)
BOUND = Place((0.0, 0.0, 1.0, 1.0), inside_region=True)  # the region itself is given


def core_attention(q, k, v, heads):
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    return scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def person_keys(project, features, faces, weights, region=None) -> list[ReferenceKeys]:
    """What one person's photos are to the picture tokens.

    features: hidden states (N, L, C) of N photos; faces: bool (N, L), their tokens that show the
    face. region: bool (Lq,), where the person is; None: everywhere.
    """
    photos = [i for i, weight in enumerate(weights) if weight > 0]
    latents = [ReferenceLatent(torch.zeros(1, 4, 8, 8), str(i), weights[i]) for i in photos]
    person = Person(tuple(latents), None if region is None else BOUND)
    entries = [{SITE: project(features[i][faces[i]][None])} for i in photos]
    step = gather_references([person], [entries])
    regions, size = None, (1, 1)
    if region is not None:
        regions, size = region[None, None, None].float(), (1, len(region))
    seen = RowReferences(torch.ones(1), None, regions, step, {SITE: 1.0}, Known([1.0]))
    found = seen.at(SITE, size)
    assert found is not None
    return found.references


def fuse(q, k, v, references, strength: float, heads: int) -> torch.Tensor:
    """Cross-attention with faces, before the output projection."""
    return core_attention(q, k, v, heads) + fusion_change(q, k, v, references, strength, heads)
