"""Whether anything but this pack looks at the rows of a UNet call."""

from comfy.controlnet import T2IAdapter
from comfy.patcher_extension import WrappersMP
from comfy_api.torch_helpers.torch_compile import COMPILE_KEY

PACK = __name__.partition(".comfy_adapter")[0]
# Core's EasyCache tells rows by uuid, and forgets with every call of the cond lists that it skips
# this step. A server loads the file by its path, without the package around it.
BY_UUID = "nodes_easycache"


def others_look_at_rows(model_options: dict, conds: list) -> bool:
    """Whether anything of another pack's, or of core's, may tell one row of a UNet call from
    another: patches, wrappers, replaced attention, hooks of a prompt."""
    if "model_function_wrapper" in model_options:
        return True
    for cond in (cond for listed in conds for cond in listed or ()):
        if "hooks" in cond or _counts_rows(cond.get("control")):
            return True
    return others_patch(model_options["transformer_options"])


def _counts_rows(control) -> bool:
    """Core's T2I adapter keeps hints of several pictures at the row count that it saw first."""
    while control is not None:
        hint = getattr(control, "cond_hint_original", None)
        if isinstance(control, T2IAdapter) and hint is not None and len(hint) > 1:
            return True
        control = control.previous_controlnet
    return False


def others_patch(options: dict) -> bool:
    """The same of one UNet call, of its transformer_options."""
    if "optimized_attention_override" in options or any(
        options.get("patches_replace", {}).values()
    ):
        return True
    functions = [one for listed in options.get("patches", {}).values() for one in listed]
    kinds = (WrappersMP.CALC_COND_BATCH, WrappersMP.APPLY_MODEL, WrappersMP.DIFFUSION_MODEL)
    for kind in kinds:
        for key, wrappers in options.get("wrappers", {}).get(kind, {}).items():
            functions += wrappers if key != COMPILE_KEY else ()
    return not all(_is_known(getattr(one, "__module__", None) or "") for one in functions)


def _is_known(module: str) -> bool:
    return module.startswith(PACK) or module.endswith(BY_UUID)
