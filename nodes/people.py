"""Several people, or two in one face: FlashFaceIdentityGroup and FlashFaceIdentityMix."""

from comfy_api.latest import io

from ..flashface_core.people.identity import join_people, one_person
from ..flashface_core.people.mix import mix_identities
from .base import FlashFaceNode, schema
from .sockets import IDENTITY, FaceIdentity


class FlashFaceIdentityMix(FlashFaceNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="FlashFaceIdentityMix",
            display_name="FlashFace Identity Mix",
            category=IDENTITY,
            aliases=["blend faces", "average face", "child of two people"],
            description="One face between two people, for a new person or a family likeness.",
            inputs=[
                FaceIdentity.Input("identity_a"),
                FaceIdentity.Input("identity_b"),
                io.Float.Input(
                    "ratio",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="0 is identity_a, 1 is identity_b.",
                ),
            ],
            outputs=[
                FaceIdentity.Output(
                    display_name="FACE_IDENTITY", tooltip="One person between the two."
                )
            ],
        )

    @classmethod
    def execute(cls, identity_a, identity_b, ratio) -> io.NodeOutput:
        a, b = (
            one_person(i, "FlashFace Identity Mix mixes two people")
            for i in (identity_a, identity_b)
        )
        return io.NodeOutput(mix_identities(a, b, ratio))


class FlashFaceIdentityGroup(FlashFaceNode):
    @classmethod
    def define_schema(cls):
        return schema(
            node_id="FlashFaceIdentityGroup",
            display_name="FlashFace Identity Group",
            category=IDENTITY,
            aliases=["several people", "multiple faces", "couple"],
            description="Several people in one picture. Give each a place with FlashFace Identity "
            "Place (attention: inside the region) before.",
            inputs=[
                FaceIdentity.Input("identity_1"),
                FaceIdentity.Input("identity_2"),
                FaceIdentity.Input("identity_3", optional=True),
                FaceIdentity.Input(
                    "identity_4", optional=True, tooltip="For more people connect a group here."
                ),
            ],
            outputs=[
                FaceIdentity.Output(
                    display_name="FACE_IDENTITY",
                    tooltip="All people together; for FlashFace Encode.",
                )
            ],
        )

    @classmethod
    def execute(cls, identity_1, identity_2, identity_3=None, identity_4=None) -> io.NodeOutput:
        people = (identity_1, identity_2, identity_3, identity_4)
        return io.NodeOutput(join_people([one for one in people if one is not None]))


NODES = [FlashFaceIdentityMix, FlashFaceIdentityGroup]
