"""FlashFaceSimilarity: likeness of pictures to an identity, and the best of them."""

from comfy_api.latest import io

from ..flashface_core.likeness.compare import compare
from .base import FlashFaceNode, schema
from .sockets import IDENTITY, FaceDetector, FaceIdentity


class FlashFaceSimilarity(FlashFaceNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="FlashFaceSimilarity",
            display_name="FlashFace Similarity",
            category=IDENTITY,
            aliases=["likeness", "face distance", "best of", "rank"],
            description="How alike the faces of a batch are to an identity, and the picture that "
            "is most alike. Compares people with a detector that has a recognition model "
            "(InsightFace, OpenCV Zoo), otherwise looks (edges and colours).",
            inputs=[
                io.Image.Input("image", tooltip="The pictures to choose from."),
                FaceIdentity.Input("identity", tooltip="One person."),
                FaceDetector.Input(
                    "detector",
                    optional=True,
                    tooltip="Finds the faces; without it the identity's place is compared, or the "
                    "whole picture.",
                ),
            ],
            outputs=[
                io.Float.Output(
                    display_name="score",
                    tooltip="Of the best picture: a cosine, 1 is equal, -1 is no face.",
                ),
                io.Image.Output(display_name="best", tooltip="The picture that is most alike."),
                io.Int.Output(display_name="index", tooltip="Its place in the batch, from 0."),
                io.String.Output(
                    display_name="report",
                    tooltip="A line per picture; show it with Preview as Text.",
                ),
            ],
        )

    @classmethod
    def execute(cls, image, identity, detector=None) -> io.NodeOutput:
        likeness = compare(image, identity, detector)
        best = likeness.best
        return io.NodeOutput(likeness.scores[best], image[best : best + 1], best, likeness.report)


NODES = [FlashFaceSimilarity]
