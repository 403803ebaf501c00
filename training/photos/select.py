"""Which photographs are used: one large face each, one person each, no two that are alike."""

from typing import NamedTuple

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import pdist

from flashface_core.errors import FlashFaceError

from .look import PhotoScan, embeddings, hash_bits

UNREADABLE, NO_FACE, SEVERAL_FACES = "unreadable file", "no face", "several faces"
TOO_SMALL, STRANGER = "face too small", "stranger in folder"
NEAR_DUPLICATE, ONE_PICTURE = "near duplicate", "one-picture person"
BROKEN_SHARD = "broken shard"
REASONS = (
    UNREADABLE, NO_FACE, SEVERAL_FACES, TOO_SMALL, STRANGER, NEAR_DUPLICATE, ONE_PICTURE,
    BROKEN_SHARD,
)  # fmt: skip

HASHES = ("picture_hash", "face_hash")
BLOCK = 512
LINKED_AT_ONCE = 20_000  # faces; their distances take 1.6 GB


class Limits(NamedTuple):
    """min_face: longer side of the face over the shorter side of the picture; FlashFace left out
    faces below 1/7 (FLASHFACE.md section 11).
    same_person: mean cosine of ArcFace embeddings from which two groups of faces are one person;
    single pairs of strangers reach 0.28 once in 1000 (LFW).
    duplicate_bits: share of differing hash bits, of the picture or of the face, up to which two
    photographs are one: a recompressed, resized or brightened copy differs in less than 0.1, the
    faces of two people in 0.2 or more.
    duplicate_cosine: the same by embedding.
    """

    min_face: float = 1 / 7
    same_person: float = 0.35
    duplicate_bits: float = 0.1
    duplicate_cosine: float = 0.92


DEFAULT_LIMITS = Limits()


class Dropped(NamedTuple):
    name: str
    person: str
    reason: str
    detail: str = ""


class Selection(NamedTuple):
    """people: at least two looks each, by person; dropped: everything else."""

    people: dict[str, list[PhotoScan]]
    dropped: list[Dropped]


def select(looks: list[PhotoScan], persons: list[str | None], limits: Limits) -> Selection:
    """looks and the persons they belong to (None: found by clustering), in the source's order.

    Raises FlashFaceError for photographs of nobody without embeddings.
    """
    dropped, people, of_nobody = [], {}, []
    for look, person in zip(looks, persons, strict=True):
        reason = unusable(look, limits)
        if reason is not None:
            dropped.append(Dropped(look.name, person or "", *reason))
        elif person is None:
            of_nobody.append(look)
        else:
            people.setdefault(person, []).append(look)
    people |= _people_among(of_nobody, limits)
    selected = {}
    for person in sorted(people):
        kept, strangers = without_strangers(people[person], limits)
        kept, duplicates = without_near_duplicates(kept, limits)
        dropped += [Dropped(look.name, person, STRANGER) for look in strangers]
        dropped += [Dropped(a.name, person, NEAR_DUPLICATE, b.name) for a, b in duplicates]
        if len(kept) > 1:
            selected[person] = kept
        else:
            dropped += [Dropped(look.name, person, ONE_PICTURE) for look in kept]
    order = {look.name: index for index, look in enumerate(looks)}
    return Selection(selected, sorted(dropped, key=lambda one: order[one.name]))


def unusable(look: PhotoScan, limits: Limits) -> tuple[str, str] | None:
    """Reason and detail; None for a photograph with one face that is large enough."""
    if look.error:
        return UNREADABLE, look.error
    if look.faces == 0:
        return NO_FACE, ""
    if look.faces > 1:
        return SEVERAL_FACES, str(look.faces)
    x1, y1, x2, y2 = look.box
    share = max(x2 - x1, y2 - y1) / min(look.width, look.height)
    if share < limits.min_face or not look.face_hash:
        return TOO_SMALL, f"{share:.3f} of the picture's shorter side"
    return None


def _people_among(looks: list[PhotoScan], limits: Limits) -> dict[str, list[PhotoScan]]:
    if not looks:
        return {}
    if not all(look.embedding for look in looks):
        raise FlashFaceError(
            f"{len(looks)} photographs belong to nobody and MTCNN cannot compare faces; put each "
            "person's photographs into a folder of their own, or give an InsightFace model pack "
            "with --model-pack."
        )
    people: dict[str, list[PhotoScan]] = {}  # no folder can have such a name
    for look, label in zip(looks, clusters(embeddings(looks), limits.same_person), strict=True):
        people.setdefault(f"unnamed/{label:06d}", []).append(look)
    return people


def without_strangers(
    looks: list[PhotoScan], limits: Limits
) -> tuple[list[PhotoScan], list[PhotoScan]]:
    """The largest cluster of a person's faces, and the rest; without embeddings all are kept."""
    if not all(look.embedding for look in looks):
        return looks, []
    labels = clusters(embeddings(looks), limits.same_person)
    main = np.bincount(labels).argmax()
    kept = [look for look, label in zip(looks, labels, strict=True) if label == main]
    return kept, [look for look, label in zip(looks, labels, strict=True) if label != main]


def clusters(faces: np.ndarray, same_person: float) -> np.ndarray:
    """Average-linkage clusters of unit vectors (N, D): labels (N,) in order of appearance.

    Average linkage needs no number of people, and one photograph between two people does not join
    them, as it does under single linkage and DBSCAN. Its clusters lie within the components of
    the graph of near pairs, so each component is clustered by itself: the result is the same, and
    the memory is that of the largest component.
    """
    labels = np.zeros(len(faces), dtype=np.int64)
    components, used = _near_components(faces, same_person - 1e-6), 0
    for component in range(components.max() + 1):
        (members,) = np.nonzero(components == component)
        if len(members) > LINKED_AT_ONCE:
            raise FlashFaceError(
                f"{len(members)} faces are connected by likeness, {LINKED_AT_ONCE} are clustered "
                "at most; sort the photographs into folders, or raise --same-person."
            )
        groups = np.ones(1, dtype=np.int64)
        if len(members) > 1:
            tree = linkage(pdist(faces[members], "cosine"), "average")
            groups = fcluster(tree, 1 - same_person, "distance")
        labels[members] = used + groups
        used += groups.max()
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return first.argsort().argsort()[inverse]


def _near_components(faces: np.ndarray, cosine: float) -> np.ndarray:
    """Components of the graph of all pairs that are at least this near, in blocks of rows."""
    labels = np.arange(len(faces))
    for start in range(0, len(faces), BLOCK):
        rows, columns = np.nonzero(faces[start : start + BLOCK] @ faces.T >= cosine)
        edges = (labels[start + rows], labels[columns])
        graph = coo_matrix((np.ones(len(rows), dtype=bool), edges), shape=(len(faces),) * 2)
        labels = connected_components(graph, directed=False)[1][labels]
    return np.unique(labels, return_inverse=True)[1]


def without_near_duplicates(
    looks: list[PhotoScan], limits: Limits
) -> tuple[list[PhotoScan], list[tuple[PhotoScan, PhotoScan]]]:
    """No two of those kept are alike, so any may be the reference of any other; and the pairs
    (dropped, kept one that it is like). Larger faces are kept first."""
    if len(looks) < 2:
        return looks, []
    size = [(look.box[2] - look.box[0]) * (look.box[3] - look.box[1]) for look in looks]
    order = sorted(range(len(looks)), key=lambda i: (-size[i], looks[i].name))
    hashes = [hash_bits([getattr(look, name) for look in looks]) for name in HASHES]
    faces = embeddings(looks) if all(look.embedding for look in looks) else None
    kept: list[int] = []
    duplicates = []
    for i in order:
        alike = np.zeros(len(kept), dtype=bool)
        for bits in hashes:
            alike |= (bits[kept] != bits[i]).mean(axis=1) <= limits.duplicate_bits
        if faces is not None:
            alike |= faces[kept] @ faces[i] >= limits.duplicate_cosine
        if alike.any():
            duplicates.append((looks[i], looks[kept[int(alike.argmax())]]))
        else:
            kept.append(i)
    return [looks[i] for i in sorted(kept)], duplicates
