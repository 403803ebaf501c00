"""torch.compile as core's TorchCompileModel sets it, where Dynamo traces the whole network."""

from comfy.ldm.modules.attention import attention_pytorch
from comfy_api.torch_helpers import set_torch_compile_wrapper


def by_pytorch(model):
    """MODEL with PyTorch's attention, as on a GPU.

    What core takes on a CPU asks how much memory is free, which Dynamo cannot trace: the network
    would be split into pieces so small that hardly anything of it is compiled.
    """

    def override(_function, *args, **kwargs):
        return attention_pytorch(*args, **kwargs)

    model = model.clone()
    model.model_options["transformer_options"]["optimized_attention_override"] = override
    return model


def without_guards_on_options(guards) -> list[bool]:
    """What core's node gives to torch.compile since 0.4."""
    return ["transformer_options" not in guard.name for guard in guards]


def compile_node(model, backend: str = "eager"):
    model = model.clone()
    options = {"guard_filter_fn": without_guards_on_options}
    set_torch_compile_wrapper(model=model, backend=backend, options=options)
    return model
