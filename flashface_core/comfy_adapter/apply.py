"""FlashFaceApply: features and guidance onto a MODEL, as patches and wrappers of a clone."""

import math
from collections.abc import Callable

from comfy.patcher_extension import WrappersMP

from ..errors import FlashFaceError
from ..features import FaceFeatures
from ..guidance import Guidance
from .attach import KEY, ROWS, attach_reference_net, check_fit
from .from_model import ROWS as EXTRA_ROWS
from .from_model import LiveReferenceNet, attach_extra_keys, check_shape
from .sampling import add_reference_branch, make_predict_noise, make_row_data, report_unreached


def apply_features(model, features: FaceFeatures, guidance: Guidance):
    """A clone of MODEL that draws the identity; the given MODEL is left as it is.

    Raises FlashFaceError when features and MODEL do not fit, or MODEL carries features already.
    """
    net = features.net
    check: Callable
    attach: Callable
    if isinstance(net, LiveReferenceNet):
        check, attach, rows = check_shape, attach_extra_keys, EXTRA_ROWS
    else:
        check, attach, rows = check_fit, attach_reference_net, ROWS
    attachment = model.get_attachment(KEY)
    if attachment is not None and attachment.features is not None:
        raise FlashFaceError(
            "MODEL already carries face features from another FlashFaceApply; for several people "
            "join their identities with FlashFaceIdentityGroup and apply once."
        )
    check(model, net)
    if guidance.is_off:
        return model.clone()
    model = attach(model, net, features)
    if not features.has_effect:
        return model
    sampling = model.get_model_object("model_sampling")
    window = (
        sampling.percent_to_sigma(guidance.start_percent),
        sampling.percent_to_sigma(guidance.end_percent),
    )
    levels = {site: guidance.level_strength(level) for site, level in net.levels.items()}
    for kind, wrapper in (
        (WrappersMP.OUTER_SAMPLE, report_unreached),
        (WrappersMP.PREPARE_SAMPLING, make_memory_estimate(features)),
        (WrappersMP.PREDICT_NOISE, make_predict_noise(features, guidance, window)),
        (WrappersMP.CALC_COND_BATCH, add_reference_branch),
        (WrappersMP.DIFFUSION_MODEL, make_row_data(levels, rows)),
    ):
        model.add_wrapper_with_key(kind, KEY, wrapper)
    return model


def make_memory_estimate(features: FaceFeatures):
    def estimate(executor, model, noise_shape, *args, **kwargs):
        """PREPARE_SAMPLING: room for the third branch and for keys and values."""
        references = sum(len(person.references) for person in features.people)
        size = max(r.latent[0, 0].numel() for p in features.people for r in p.references)
        kv_bytes = references * features.net.keys_values_bytes(size)
        one_row = max(1, model.model.memory_required([1, *noise_shape[1:]]))
        # core counts two rows per sample
        rows = math.ceil(noise_shape[0] * 1.5 + kv_bytes / one_row / 2)
        return executor(model, [rows, *noise_shape[1:]], *args, **kwargs)

    return estimate
