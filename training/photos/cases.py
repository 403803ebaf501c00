"""What a benchmark asks for: a prompt, photographs of the person, and perhaps the true picture."""

import hashlib
import re
from collections.abc import Sequence
from typing import NamedTuple

SUBJECT = "S*"  # stands for the person, as in Face2Diffusion's paper
ANYBODY = "a person"
_SUBJECT = re.compile(r"S\*|<S\*>|\{\}|(?<!\w)f l(?!\w)", re.IGNORECASE)


class Case(NamedTuple):
    """name: of its folder. person: cases of one person are no independent samples. photos: picture
    files of the person, the benchmark's own one first. truth: the picture file that the prompt
    describes; None where the benchmark has none."""

    name: str
    person: str
    prompt: str
    photos: tuple[bytes, ...]
    truth: bytes | None = None

    @property
    def plain_prompt(self) -> str:
        """For text encoders that know nobody."""
        return self.prompt.replace(SUBJECT, ANYBODY)

    def prompt_with(self, word: str) -> str:
        """With a word that stands for the person; before a prompt that has no place for it."""
        if SUBJECT in self.prompt:
            return self.prompt.replace(SUBJECT, word)
        return f"{word}, {self.prompt}"


def with_subject(prompt: str) -> str:
    """The same with SUBJECT for `f l`, `{}` or `S*`."""
    return _SUBJECT.sub(SUBJECT, prompt)


def digest(cases: Sequence[Case]) -> str:
    """What tells two lists of cases apart, in hex."""
    found = hashlib.sha256()
    for case in cases:
        for part in (case.name.encode(), case.prompt.encode(), *case.photos):
            found.update(hashlib.sha256(part).digest())
    return found.hexdigest()
