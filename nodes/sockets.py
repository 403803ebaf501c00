"""The sockets of this pack; BOUNDING_BOX is newer cores' own."""

from comfy_api.latest import io

CATEGORY = "FlashFace"

ReferenceNet = io.Custom("REFERENCE_NET")
FaceDetector = io.Custom("FACE_DETECTOR")
FaceIdentity = io.Custom("FACE_IDENTITY")
FaceFeatures = io.Custom("FACE_FEATURES")
FaceGuidance = io.Custom("FACE_GUIDANCE")
Face2Diffusion = io.Custom("FACE2DIFFUSION")
FaceStudio = io.Custom("FACESTUDIO")
FaceFusion = io.Custom("FACE_FUSION")
FaceFusionFeatures = io.Custom("FACE_FUSION_FEATURES")
BoundingBox = io.Custom("BOUNDING_BOX")
