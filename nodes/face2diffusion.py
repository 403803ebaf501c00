"""Face2DiffusionLoader and Face2DiffusionTextEncode: a person as a word of the prompt."""

import os

import folder_paths
from comfy_api.latest import io

from ..flashface_core.comfy_adapter.face2diffusion import encode_text, load_face2diffusion
from ..flashface_core.systems.face2diffusion.word import PLACEHOLDER
from .loader import EXTENSIONS
from .sockets import CATEGORY, Face2Diffusion, FaceIdentity

FOLDER = "face2diffusion"
NOTHING = "none"


def register_model_folder() -> None:
    """models/face2diffusion, beside what extra_model_paths.yaml declares for the same name."""
    default = os.path.join(folder_paths.models_dir, FOLDER)
    folder_paths.add_model_folder_path(FOLDER, default)
    # A new name starts without extensions, which would list every file.
    folder_paths.folder_names_and_paths[FOLDER][1].update(EXTENSIONS)


class Face2DiffusionLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        files = folder_paths.get_filename_list(FOLDER)
        # The first of a list is what a new node shows.
        encoders = sorted(files, key=lambda name: "msid" not in name.lower())
        return io.Schema(
            node_id="Face2DiffusionLoader",
            display_name="Face2Diffusion Loader",
            category=CATEGORY,
            description="Loads Face2Diffusion: the face encoder MSID, and the network that makes "
            "a word of a face.",
            inputs=[
                io.Combo.Input(
                    "mapping_name",
                    options=files or [NOTHING],
                    tooltip="The mapping network in models/face2diffusion: the published "
                    "mapping.pt, or the same tensors as safetensors.",
                ),
                io.Combo.Input(
                    "encoder_name",
                    options=encoders or [NOTHING],
                    tooltip="The face encoder in models/face2diffusion: the published msid.pt, or "
                    "the same tensors as safetensors.",
                ),
            ],
            outputs=[Face2Diffusion.Output(display_name="FACE2DIFFUSION")],
        )

    @classmethod
    def validate_inputs(cls, mapping_name, encoder_name):
        # Named here so that core's own "value not in list" gives way to a sentence that helps.
        files = folder_paths.get_filename_list(FOLDER)
        # None: comes over a link, known when it runs.
        missing = [name for name in (mapping_name, encoder_name) if name not in (None, *files)]
        if not missing:
            return True
        folders = " or ".join(folder_paths.get_folder_paths(FOLDER))
        return (
            f"there is no file {missing[0]!r} among {', '.join(files) or 'nothing'} in {folders}: "
            "put the published mapping.pt and msid.pt there and press R to refresh."
        )

    @classmethod
    def execute(cls, mapping_name, encoder_name) -> io.NodeOutput:
        names = (mapping_name, encoder_name)
        paths = [folder_paths.get_full_path_or_raise(FOLDER, name) for name in names]
        return io.NodeOutput(load_face2diffusion(*paths))


class Face2DiffusionTextEncode(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Face2DiffusionTextEncode",
            display_name="Face2Diffusion Text Encode",
            category=CATEGORY,
            description="CLIP Text Encode with a person: a word of the prompt stands for the face. "
            "For any SD1.5 MODEL, which stays as it is.",
            inputs=[
                io.Clip.Input("clip", tooltip="The text model of SD1.5 (CLIP-L)."),
                Face2Diffusion.Input("face2diffusion"),
                FaceIdentity.Input(
                    "identity",
                    tooltip="One person, from photos in which a detector has found the face.",
                ),
                io.String.Input(
                    "text",
                    multiline=True,
                    dynamic_prompts=True,
                    tooltip="The prompt, with the placeholder where the person is meant: a photo "
                    "of f l in a forest.",
                ),
                io.String.Input(
                    "placeholder",
                    default=PLACEHOLDER,
                    tooltip="What stands for the person in the text. f l is that of the published "
                    "prompts; any other word will do.",
                ),
            ],
            outputs=[io.Conditioning.Output(display_name="CONDITIONING")],
        )

    @classmethod
    def execute(cls, clip, face2diffusion, identity, text, placeholder) -> io.NodeOutput:
        return io.NodeOutput(encode_text(clip, face2diffusion, identity, text, placeholder))


NODES = [Face2DiffusionLoader, Face2DiffusionTextEncode]
