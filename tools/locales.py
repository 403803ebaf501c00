"""What the pack's nodes are called in each language: locales/LANGUAGE/, which ComfyUI hands out.

    .comfy/venv/bin/python tools/locales.py > todo.json    # English anew, and what to translate
    .comfy/venv/bin/python tools/locales.py --fill todo.json    # when the Chinese stands in it
    .comfy/venv/bin/python tools/locales.py --translated web/docs/FlashFaceApply.md

English is what the nodes' schemas say. Beside a translation stands in source.json from which
English each string was made, and in pages.json from which sections each page, so that one that is
missing, stale or without a string is known. Exits with 1 where there is something to do.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parent.parent
LOCALES = REPO / "locales"
ENGLISH, CHINESE = "en", "zh"
LOADED = ("main", "nodeDefs")  # of a language's folder ComfyUI reads these alone
# Frontends read names, and older ones every string, as a message with signs of its own.
SIGNS = re.compile(r"[{}@|\\]")

Strings = dict[str, str]  # by the way to them: nodeDefs.FlashFaceApply.display_name


def main() -> int:
    # Here, for tests load this file by itself.
    from comfy_server import ComfyServer
    from environment import PRIVATE

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--fill", type=Path, metavar="FILE", help="take translations from FILE")
    says_the_same = "English pages whose translation says the same again"
    parser.add_argument(
        "--translated", nargs="+", type=Path, default=[], metavar="PAGE", help=says_the_same
    )
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with ComfyServer(comfy=os.environ.get("COMFYUI_PATH") or PRIVATE / "ComfyUI") as server:
        info = server.get("/object_info").items()
    english = texts({n: i for n, i in info if i["python_module"] == "custom_nodes.flashface"})
    write(ENGLISH, english)
    if options.fill:
        fill(english, json.loads(options.fill.read_text(encoding="utf-8")))
    if options.translated:
        record = read_json(CHINESE, "pages")
        for page in options.translated:
            name = page.resolve().relative_to(REPO).as_posix()
            record[name] = sections(page.read_text(encoding="utf-8"))
        write_json(CHINESE, "pages", record)
    found = {"strings": to_do(english), "pages": pages_to_do()}
    print(json.dumps(found, indent=2, ensure_ascii=False))
    return int(any(found.values()))


def texts(nodes: dict[str, dict[str, Any]]) -> Strings:
    """All that the frontend shows of nodes, from what /object_info says of them."""
    found: Strings = {}
    for name, info in nodes.items():
        for category in info["category"].split("/"):
            found[f"main.nodeCategories.{key(category)}"] = category
        node = f"nodeDefs.{key(name)}"
        found[f"{node}.display_name"] = info["display_name"]
        found[f"{node}.description"] = info["description"]
        inputs = {**info["input"].get("required", {}), **info["input"].get("optional", {})}
        for input_name, (kind, *rest) in inputs.items():
            found[f"{node}.inputs.{key(input_name)}.name"] = input_name
            options = rest[0] if rest else {}
            found[f"{node}.inputs.{key(input_name)}.tooltip"] = options.get("tooltip") or ""
            found |= _own_type(kind)
        slots = zip(info["output"], info["output_name"], info["output_tooltips"], strict=True)
        for index, (kind, shown, tooltip) in enumerate(slots):
            # One that is called as its type is shown under the type's name.
            if shown != kind:
                found[f"{node}.outputs.{index}.name"] = shown
            found[f"{node}.outputs.{index}.tooltip"] = tooltip or ""
            found |= _own_type(kind)
    return {path: text for path, text in found.items() if text}


def _own_type(kind: Any) -> Strings:
    own = isinstance(kind, str) and kind.startswith(("FACE", "REFERENCE_NET"))
    return {f"main.dataTypes.{key(kind)}": kind} if own else {}


def key(name: str) -> str:
    """As the frontend looks names up: a dot would lead further down."""
    return name.replace(".", "_")


def to_do(english: Strings) -> dict[str, dict[str, str]]:
    """By the way to them, strings whose translation is missing, stale or of no string; in the form
    that --fill takes. The translation of a missing one is what the same English has elsewhere."""
    source, chinese = read_json(CHINESE, "source"), read(CHINESE)
    elsewhere = {source[path]: chinese[path] for path in source.keys() & chinese.keys()}
    found = {}
    for path in sorted(english.keys() | chinese.keys() | source.keys()):
        text, was = english.get(path), source.get(path)
        if text is None:
            found[path] = {"problem": "orphan", CHINESE: chinese.get(path, "")}
        elif path not in chinese or was is None:
            found[path] = {"problem": "missing", ENGLISH: text, CHINESE: elsewhere.get(text, "")}
        elif text != was:
            found[path] = {"problem": "stale", "was": was, ENGLISH: text, CHINESE: chinese[path]}
    return found


def fill(english: Strings, found: dict[str, Any]) -> None:
    """Take over translations; drop those of strings that are gone."""
    source, chinese = read_json(CHINESE, "source"), read(CHINESE)
    for path, entry in found["strings"].items():
        if path not in english:
            source.pop(path, None)
            chinese.pop(path, None)
        elif entry[CHINESE]:
            if entry[ENGLISH] != english[path]:
                sys.exit(f"{path} now says {english[path]!r}, and the file {entry[ENGLISH]!r}.")
            source[path], chinese[path] = english[path], entry[CHINESE]
    order = {path: number for number, path in enumerate(english)}
    write(CHINESE, dict(sorted(chinese.items(), key=lambda item: order.get(item[0], -1))))
    write_json(CHINESE, "source", dict(sorted(source.items())))


def read(language: str) -> Strings:
    """The strings of the files that ComfyUI reads."""
    return {
        f"{name}.{path}": text
        for name in LOADED
        for path, text in _flat(read_json(language, name)).items()
    }


def _flat(tree: dict[str, Any]) -> Strings:
    found = {}
    for name, value in tree.items():
        below = _flat(value) if isinstance(value, dict) else {"": value}
        found |= {f"{name}.{path}".rstrip("."): text for path, text in below.items()}
    return found


def write(language: str, strings: Strings) -> None:
    trees: dict[str, Any] = {name: {} for name in LOADED}
    for path, text in strings.items():
        *names, last = path.split(".")
        place = trees
        for name in names:
            place = place.setdefault(name, {})
        place[last] = text
    for name, tree in trees.items():
        write_json(language, name, tree)


def read_json(language: str, name: str) -> dict[str, Any]:
    path = LOCALES / language / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def write_json(language: str, name: str, tree: dict[str, Any]) -> None:
    path = LOCALES / language / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(tree, indent=2, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8", newline="\n")


def pages() -> dict[str, Path]:
    """English pages with the path of their translation."""
    help_pages = sorted((REPO / "web" / "docs").glob("*.md"))
    found = {page: page.with_suffix("") / f"{CHINESE}.md" for page in help_pages}
    readme = REPO / f"README.{CHINESE}.md"
    if readme.exists():
        found[REPO / "README.md"] = readme
    return {page.relative_to(REPO).as_posix(): path for page, path in found.items()}


def sections(text: str) -> dict[str, str]:
    """A short hash of every section of a page, by its heading."""
    found: dict[str, str] = {}
    heading, lines, in_code = "", [], False
    for line in [*text.splitlines(), "# end"]:
        in_code ^= line.startswith("```")
        if not in_code and re.match(r"#+ ", line):
            if lines:
                found[heading] = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]
            heading, lines = line, []
        lines.append(line)
    return found


def pages_to_do() -> dict[str, list[str]]:
    """Pages whose translation is missing, or with the sections that have changed since."""
    record, found = read_json(CHINESE, "pages"), {}
    wanted = pages()
    for name in sorted(wanted.keys() | record.keys()):
        if name not in wanted:
            found[name] = ["orphan"]
        elif not wanted[name].exists():
            found[name] = ["missing"]
        else:
            now = sections((REPO / name).read_text(encoding="utf-8"))
            was = record.get(name, {})
            found[name] = [title for title in {**now, **was} if now.get(title) != was.get(title)]
    return {name: titles for name, titles in found.items() if titles}


if __name__ == "__main__":
    sys.exit(main())
