"""FlashFaceLoader: a checkpoint in models/flashface to MODEL and REFERENCE_NET."""

import os

import folder_paths
from comfy_api.latest import io

from ..flashface_core.comfy_adapter.load import WEIGHT_DTYPES, load_flashface
from .sockets import CATEGORY, ReferenceNet

FOLDER = "flashface"
EXTENSIONS = {".safetensors", ".sft", ".ckpt", ".pt", ".pth", ".bin"}
NOTHING = "none"


def register_model_folder() -> None:
    """models/flashface, beside whatever extra_model_paths.yaml declares for the same name."""
    default = os.path.join(folder_paths.models_dir, FOLDER)
    folder_paths.add_model_folder_path(FOLDER, default)
    # A new name starts without extensions, which would list every file.
    folder_paths.folder_names_and_paths[FOLDER][1].update(EXTENSIONS)


class FlashFaceLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="FlashFaceLoader",
            display_name="FlashFace Loader",
            category=CATEGORY,
            description="Loads a FlashFace checkpoint: the complete fine-tuned SD1.5 model and the "
            "Face ReferenceNet that encodes photos.",
            inputs=[
                io.Combo.Input(
                    "model_name",
                    options=folder_paths.get_filename_list(FOLDER) or [NOTHING],
                    tooltip="A file in models/flashface: the published flashface.ckpt, or the "
                    "safetensors that tools/convert.py makes of it (a third of the size).",
                ),
                io.Combo.Input(
                    "weight_dtype",
                    options=list(WEIGHT_DTYPES),
                    default="default",
                    tooltip="Precision of both networks; default lets ComfyUI choose.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="MODEL"),
                ReferenceNet.Output(display_name="REFERENCE_NET"),
            ],
        )

    @classmethod
    def validate_inputs(cls, model_name):
        # Named here so that core's own "value not in list" gives way to a sentence that helps.
        files = folder_paths.get_filename_list(FOLDER)
        if model_name is None or model_name in files:  # None: over a link, known when it runs
            return True
        found = ", ".join(files) or "nothing"
        folders = " or ".join(folder_paths.get_folder_paths(FOLDER))
        return (
            f"there is no file {model_name!r} among {found} in {folders}: put the published "
            "flashface.ckpt there, or the safetensors that tools/convert.py makes of it, and "
            "press R to refresh."
        )

    @classmethod
    def execute(cls, model_name, weight_dtype) -> io.NodeOutput:
        path = folder_paths.get_full_path_or_raise(FOLDER, model_name)
        return io.NodeOutput(*load_flashface(path, weight_dtype))


NODES = [FlashFaceLoader]
