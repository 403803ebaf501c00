"""FlashFaceApply: features and guidance onto a MODEL, as patches and wrappers of a clone."""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from comfy.patcher_extension import WrappersMP

from ...errors import FlashFaceError
from ...features import FaceFeatures
from ...flashface.guidance import Guidance, plan_step
from ...row_references import RowReferences
from ...sites import Site
from ..patcher import make_memory_estimate
from ..reference_branch import add_reference_branch
from ..row_conds import make_piece_conds, make_row_data
from ..sampling import check_timesteps, make_predict_noise, make_run
from ..shared_encoder import share_encoder
from ..step import FLASHFACE
from ..unet import KEY

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher


class AttachedNet(Protocol):
    """What Apply asks of a REFERENCE_NET."""

    @property
    def levels(self) -> Mapping[Site, str]:
        """Coarse, medium or fine, by attention site."""
        ...

    def check_fit(self, model: "ModelPatcher") -> None:
        """Raises FlashFaceError when features of it do not fit MODEL."""
        ...

    def attach(self, model: "ModelPatcher", features: FaceFeatures) -> "ModelPatcher":
        """A clone of MODEL whose attention can see references."""
        ...

    @staticmethod
    def attach_rows(options: dict, rows: RowReferences, unet: Any) -> dict:
        """transformer_options of one UNet call whose rows see references."""
        ...


def apply_features(model: "ModelPatcher", features: FaceFeatures, guidance: Guidance):
    """A clone of MODEL that draws the identity; the given MODEL is left as it is.

    Raises FlashFaceError when features and MODEL do not fit, or MODEL carries features already.
    """
    net: AttachedNet = features.net
    attachment = model.get_attachment(KEY)
    if attachment is not None and attachment.features is not None:
        raise FlashFaceError(
            "MODEL already carries face features from another FlashFace Apply; for several people "
            "join their identities with FlashFace Identity Group and apply once."
        )
    net.check_fit(model)
    if guidance.is_off:
        return model.clone()
    model = net.attach(model, features)
    if not features.has_effect:
        return model
    check_timesteps(FLASHFACE.node, model.get_model_object("model_sampling"))
    percents = guidance.start_percent, guidance.end_percent
    plan = partial(plan_step, guidance)
    levels = {site: guidance.level_strength(level) for site, level in net.levels.items()}
    for kind, wrapper in (
        (WrappersMP.OUTER_SAMPLE, make_run(FLASHFACE)),
        (WrappersMP.PREPARE_SAMPLING, make_memory_estimate(features, branches=3)),
        (WrappersMP.PREDICT_NOISE, make_predict_noise(FLASHFACE, features, plan, percents)),
        (WrappersMP.CALC_COND_BATCH, add_reference_branch),
        (WrappersMP.CALC_COND_BATCH, make_piece_conds(FLASHFACE)),
        (WrappersMP.APPLY_MODEL, make_row_data(FLASHFACE, levels, net.attach_rows)),
        (WrappersMP.APPLY_MODEL, share_encoder),
    ):
        model.add_wrapper_with_key(kind, KEY, wrapper)
    return model
