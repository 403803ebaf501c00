"""Reference attention works on one device, that of its own network; elsewhere it is refused."""

from typing import TYPE_CHECKING

from comfy.patcher_extension import CallbacksMP

from ..errors import FlashFaceError

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

# Of newer cores: MultiGPU CFG Split puts copies of a MODEL for other devices under this key, and
# makes them, as Select Model Device does, in a way that asks these callbacks.
MULTIGPU = "multigpu"
ON_COPY_FOR_DEVICE: str | None = getattr(CallbacksMP, "ON_DEEPCLONE_MULTIGPU", None)


def check_device(model: "ModelPatcher", net) -> None:
    """Raises FlashFaceError for a MODEL that is not on the device of a REFERENCE_NET alone."""
    copies = model.get_additional_models_with_key(MULTIGPU)
    devices = {model.load_device, *(copy.load_device for copy in copies)}
    here = net.patcher.load_device
    if devices != {here}:
        found = " and ".join(sorted(map(str, devices)))
        raise FlashFaceError(
            f"MODEL works on {found}, and the REFERENCE_NET of {net.name} on {here} alone; take "
            "out MultiGPU CFG Split or Select Model Device."
        )


def refuse_other_devices(model: "ModelPatcher", key: str) -> None:
    """What carries reference attention is not copied for another device from here on."""
    if ON_COPY_FOR_DEVICE is not None:
        model.remove_callbacks_with_key(ON_COPY_FOR_DEVICE, key)
        model.add_callback_with_key(ON_COPY_FOR_DEVICE, key, _refuse)


def _refuse(model: "ModelPatcher", copy: "ModelPatcher") -> None:
    raise FlashFaceError(
        f"MODEL carries FlashFace's reference attention, which works on {model.load_device} alone "
        "and not on several GPUs; take out MultiGPU CFG Split or Select Model Device."
    )
