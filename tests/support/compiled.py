"""torch.compile as core's TorchCompileModel sets it, where Dynamo traces the whole network."""

from contextlib import contextmanager

import pytest
from comfy.ldm.modules import attention
from comfy_api.torch_helpers import set_torch_compile_wrapper


@contextmanager
def pytorch_attention():
    """PyTorch's attention as core's own, as on a GPU.

    What core takes on a CPU asks how much memory is free, which Dynamo cannot trace: the network
    would be split into pieces so small that hardly anything of it is compiled. An override in
    transformer_options would be what another pack sets, and turn off what is only done alone.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "optimized_attention", attention.attention_pytorch)
        yield


def without_guards_on_options(guards) -> list[bool]:
    """What core's node gives to torch.compile since 0.4."""
    return ["transformer_options" not in guard.name for guard in guards]


def compile_node(model, backend: str = "eager"):
    model = model.clone()
    options = {"guard_filter_fn": without_guards_on_options}
    set_torch_compile_wrapper(model=model, backend=backend, options=options)
    return model
