"""What can be said of who somebody is: for captions of the base model, never for an evaluation.

As in scenes.py no word that carries meaning is shared with another value, nor with a scene's.
"""

from collections.abc import Mapping

from .people import People

WORDS: dict[str, Mapping[str, str]] = {
    "skin": {
        "porcelain": "porcelain skin",
        "peach": "peach skin",
        "golden": "golden skin",
        "tan": "tan skin",
        "brown": "chestnut skin",
        "deep": "cocoa skin",
    },
    "hair_colour": {
        "black": "raven hair",
        "brown": "brunette hair",
        "blond": "blond hair",
        "ginger": "ginger hair",
        "blue": "azure hair",
        "green": "emerald hair",
        "pink": "pink hair",
        "violet": "lavender hair",
    },
    "hair_style": {
        "bald": "bald",
        "buzz cut": "shaved hair",
        "short": "short hair",
        "side part": "parted hair",
        "spiky": "spiky hair",
        "mohawk": "a mohawk",
        "curly": "curly hair",
        "bob": "a bob",
        "long": "long hair",
        "wavy": "wavy hair",
        "buns": "buns",
        "pigtails": "pigtails",
    },
    "eye_colour": {
        "brown": "hazel eyes",
        "blue": "sapphire eyes",
        "green": "jade eyes",
        "amber": "amber eyes",
        "violet": "orchid eyes",
    },
    "facial_hair": {
        "none": "",
        "moustache": "a moustache",
        "goatee": "a goatee",
        "beard": "a beard",
    },
    "glasses": {
        "none": "",
        "round": "round glasses",
        "square": "square glasses",
        "cat eye": "pointy glasses",
    },
    "frame_colour": {
        "black": "ebony frames",
        "red": "ruby frames",
        "blue": "cobalt frames",
        "gold": "brass frames",
    },
    "nose": {"button": "a button nose", "straight": "a straight nose", "broad": "a broad nose"},
    "mark": {
        "none": "",
        "mole": "a mole",
        "scar": "a scar",
        "star": "a star tattoo",
        "heart": "a heart tattoo",
        "cross": "a cross tattoo",
        "ring": "a ring tattoo",
    },
    "mark_colour": {
        "red": "in crimson",
        "blue": "in indigo",
        "green": "in lime",
        "yellow": "in lemon",
        "violet": "in magenta",
    },
    "mark_place": {
        "left cheek": "on the west cheek",
        "right cheek": "on the east cheek",
        "forehead": "on the forehead",
        "chin": "on the chin",
    },
}
# Low and high values of a length; what lies between is not worth a word.
LENGTHS = {
    "face_width": ("a narrow face", "a wide face"),
    "jaw": ("a pointed jaw", "a boxy jaw"),
    "eye_size": ("small eyes", "large eyes"),
    "eye_spacing": ("eyes close together", "eyes far apart"),
    "brow_weight": ("thin brows", "thick brows"),
    "mouth_width": ("a tiny mouth", "a big mouth"),
    "lip_colour": ("bare lips", "painted lips"),
}
# Said only with what they belong to.
PARTS_OF = {"frame_colour": "glasses", "mark_colour": "mark", "mark_place": "mark"}


def describe(people: People) -> list[dict[str, str]]:
    """Per person what can be said, by factor: {"skin": "tan skin", "mark": "a scar", ...}."""
    tables = {name: list(words.values()) for name, words in WORDS.items()}
    said: list[dict[str, str]] = [{} for _ in range(len(people))]
    for name, table in tables.items():
        for one, value in zip(said, getattr(people, name).tolist(), strict=True):
            one[name] = table[value]
    for name, (low, high) in LENGTHS.items():
        start, end = People.__dataclass_fields__[name].metadata["range"]
        for one, value in zip(said, getattr(people, name).tolist(), strict=True):
            part = (value - start) / (end - start)
            one[name] = low if part < 0.33 else high if part > 0.67 else ""
    for one in said:
        if one["hair_style"] == WORDS["hair_style"]["bald"]:
            one["hair_colour"] = ""
        for part, whole in PARTS_OF.items():
            if not one[whole]:
                one[part] = ""
    return [{name: words for name, words in one.items() if words} for one in said]
