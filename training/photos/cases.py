"""What a benchmark asks for: a prompt, photographs of the people, perhaps the true picture."""

import hashlib
import re
from collections.abc import Sequence
from typing import NamedTuple

from .sources import Box

SUBJECT = "S*"  # stands for the person, as in Face2Diffusion's paper
ANYBODY = "a person"
_SUBJECT = re.compile(r"S\*|<S\*>|\{\}|(?<!\w)f l(?!\w)", re.IGNORECASE)


class Case(NamedTuple):
    """name: of its folder. person: cases of one person are no independent samples. photos: picture
    files of the person, the benchmark's own one first. truth: the picture file that the prompt
    describes; None where the benchmark has none.

    group: where there are several people, a picture file of each; `photos` is empty then. boxes:
    of their faces in `truth`, x1, y1, x2, y2 in pixels; () where they are not known.
    """

    name: str
    person: str
    prompt: str
    photos: tuple[bytes, ...]
    truth: bytes | None = None
    group: tuple[bytes, ...] = ()
    boxes: tuple[Box, ...] = ()

    @property
    def people(self) -> int:
        return len(self.group) or 1

    @property
    def name_bytes(self) -> bytes:
        """Of a folder, and so maybe no UTF-8."""
        return self.name.encode(errors="surrogateescape")

    @property
    def plain_prompt(self) -> str:
        """For text encoders that know nobody."""
        return self.prompt.replace(SUBJECT, ANYBODY)

    def prompt_with(self, word: str) -> str:
        """With a word that stands for the person; before a prompt that has no place for it."""
        if SUBJECT in self.prompt:
            return self.prompt.replace(SUBJECT, word)
        return f"{word}, {self.prompt}"


class Subset(NamedTuple):
    """Cases that are drawn and told of together: of how many people, references of each person."""

    people: tuple[int, ...] = (1,)
    references: int = 1

    @property
    def label(self) -> str:
        if self.people != (1,):
            return f"{' and '.join(map(str, self.people))} people"
        return "1 reference" if self.references == 1 else f"{self.references} references"

    @property
    def key(self) -> str:
        """In names of numbers."""
        if self.people != (1,):
            return f"{'_'.join(map(str, self.people))}_people"
        return str(self.references)

    @property
    def folder(self) -> str:
        if self.people != (1,):
            return f"people_{'_'.join(map(str, self.people))}"
        return f"references_{self.references}"


def with_subject(prompt: str) -> str:
    """The same with SUBJECT for `f l`, `{}` or `S*`."""
    return _SUBJECT.sub(SUBJECT, prompt)


def digest(cases: Sequence[Case]) -> str:
    """What tells two lists of cases apart, in hex.

    That of one person must stay what it is: runs go on by it. Several are placed by the truth.
    """
    found = hashlib.sha256()
    for case in cases:
        parts = [case.name_bytes, case.prompt.encode(), *case.photos]
        if case.group:
            parts += [b"several people", repr(case.boxes).encode(), case.truth or b"", *case.group]
        for part in parts:
            found.update(hashlib.sha256(part).digest())
    return found.hexdigest()
