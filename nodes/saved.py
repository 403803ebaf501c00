"""FlashFaceIdentitySave and FlashFaceIdentityLoad: people that are used again."""

import os
from pathlib import Path

import folder_paths
from comfy_api.latest import io, ui

from ..flashface_core.people.identity import one_person
from ..flashface_core.people.identity_file import load_identity, save_identity
from . import folders
from .base import FlashFaceNode, schema
from .sockets import IDENTITY, FaceIdentity, with_extra

FOLDER = "identities"


class FlashFaceIdentitySave(FlashFaceNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="FlashFaceIdentitySave",
            display_name="FlashFace Identity Save",
            category=IDENTITY,
            aliases=["save person", "save face", "character"],
            description="Keeps a person as one file in models/identities. Nothing is overwritten.",
            inputs=[
                FaceIdentity.Input("identity"),
                io.String.Input(
                    "filename",
                    default="",
                    tooltip="Without an ending; family/anna makes a folder. Empty: the identity's "
                    "name.",
                ),
            ],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs):
        """In every run, for the file may be gone; one that is there is left as it is."""
        return float("nan")

    @classmethod
    def execute(cls, identity, filename) -> io.NodeOutput:
        person = one_person(identity, "FlashFace Identity Save saves one person per file")
        own = Path(folder_paths.models_dir, FOLDER)
        path = save_identity(person, own, filename, folders.users_places(FOLDER))
        return io.NodeOutput(ui=ui.PreviewText(f"{len(person.references)} photos in {path}"))


class FlashFaceIdentityLoad(FlashFaceNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="FlashFaceIdentityLoad",
            display_name="FlashFace Identity Load",
            category=IDENTITY,
            aliases=["load person", "load face", "character"],
            description="A person that FlashFace Identity Save has kept.",
            inputs=[
                with_extra(
                    io.Combo.Input(
                        "filename",
                        options=folders.files(FOLDER),
                        tooltip="A file in models/identities.",
                    ),
                    when_empty="save a person first",
                )
            ],
            outputs=[
                FaceIdentity.Output(
                    display_name="FACE_IDENTITY", tooltip="The person as it was saved."
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, filename=None):
        advice = (
            "save one with FlashFace Identity Save, or put the file there, and press R to refresh."
        )
        return folders.check(FOLDER, [filename], "saved identity", advice)

    @classmethod
    def fingerprint_inputs(cls, filename):
        if filename is None:  # comes over a link, whose own inputs tell
            return ""
        try:
            found = os.stat(folders.path(FOLDER, filename))
        except FileNotFoundError:
            return filename
        return filename, found.st_mtime_ns, found.st_size

    @classmethod
    def execute(cls, filename) -> io.NodeOutput:
        return io.NodeOutput(load_identity(folders.path(FOLDER, filename)))


NODES = [FlashFaceIdentitySave, FlashFaceIdentityLoad]
