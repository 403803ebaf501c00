"""Two people in one face."""

from dataclasses import replace

from ..errors import FlashFaceError
from .identity import FaceReference, Identity


def mix_identities(a: Identity, b: Identity, ratio: float) -> Identity:
    """All photos of both, weighed so that b's are `ratio` of the whole.

    ratio: 0 is a and 1 is b, exactly. With Ma and Mb the total key weights of the two, the mix
    weighs M = (1 - ratio) Ma + ratio Mb; photos of a share (1 - ratio) M, those of b ratio M.
    The place is that of the one who has one. Raises FlashFaceError for a ratio outside of 0..1 and
    for two places.
    """
    if not 0 <= ratio <= 1:
        raise FlashFaceError(f"The ratio of the mix is {ratio:g}; it must be between 0 and 1.")
    if a.place is not None and b.place is not None:
        raise FlashFaceError(
            "Both identities of the mix have a place, and one face has one; connect "
            "FlashFace Identity Place behind FlashFace Identity Mix instead."
        )
    place = a.place or b.place
    if ratio in (0, 1):
        return replace(b if ratio else a, place=place)
    total_a, total_b = sum(a.key_weights()), sum(b.key_weights())
    total = (1 - ratio) * total_a + ratio * total_b
    references = (
        *_weighed(a, (1 - ratio) * total, total_a),
        *_weighed(b, ratio * total, total_b),
    )
    name = " + ".join(identity.name for identity in (a, b) if identity.name)
    return Identity(references, name, as_four_photos=False, place=place)


def _weighed(identity: Identity, share: float, total: float) -> list[FaceReference]:
    """The photos with weights that add up to `share`; weights of 0 stay 0."""
    factor = share / total if total else 0.0
    pairs = zip(identity.references, identity.key_weights(), strict=True)
    return [replace(reference, weight=weight * factor) for reference, weight in pairs]
