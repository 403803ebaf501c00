"""FlashFace weights made by rule, in the published layout, for the demo and the tests.

No trained values: every tensor is seeded by its own name (tests/golden/README.md has the rule),
so that anyone can make the same file, and pictures are noise.
"""

import hashlib
import json
import math
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

WORKERS = 2
PIECE = 2**18  # values
ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))

from flashface_core.flashface.checkpoint import ALIASES  # noqa: E402
from flashface_core.weights_file import write_safetensors  # noqa: E402

GOLDEN = ROOT / "tests" / "golden"
SHAPES = {
    "mini": GOLDEN / "flashface_mini" / "state_dict_keys.json",
    "sd15": GOLDEN / "flashface" / "flashface_state_dict_shapes.json",
}


def rule_tensor(key: str, shape: tuple[int, ...]) -> torch.Tensor:
    """float32: matrices 1/sqrt(fan_in), norms 1 + 0.02 n, biases 0.02 n."""
    group, _, rest = key.partition(".")
    canonical = f"{ALIASES.get(group, group)}.{rest}"
    seed = int.from_bytes(hashlib.sha256(canonical.encode()).digest()[:8], "little")
    generator = np.random.Generator(np.random.Philox(key=seed))
    values = np.empty(math.prod(shape), dtype=np.float32)
    drawn = np.empty(min(PIECE, len(values)))
    for start in range(0, len(values), PIECE):  # so that doubles stay in the processor's cache
        piece = values[start : start + PIECE]
        piece[:] = generator.standard_normal(out=drawn[: len(piece)])
    values = values.reshape(shape)
    if len(shape) >= 2:
        values *= np.float32(1 / math.sqrt(math.prod(shape[1:])))
    else:
        values *= np.float32(0.02)
        if key.endswith(".weight"):
            values = np.float32(1) + values
    return torch.from_numpy(values)


def published_shapes(topology: str, aliases: bool = False) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of the official state dict at the "mini" or the "sd15" size."""
    shapes: Mapping[str, list[int]] = json.loads(SHAPES[topology].read_text())
    return {
        key: tuple(shape)
        for key, shape in shapes.items()
        if aliases or key.partition(".")[0] not in ALIASES
    }


def write_rule_checkpoint(
    path: Path, topology: str, dtype: torch.dtype = torch.float32, aliases: bool = False
) -> Path:
    """A safetensors file in the published layout, ref_middle included, made tensor by tensor."""
    shapes = published_shapes(topology, aliases)
    write_safetensors(path, shapes, rule_tensors(shapes), dtype, {"num_heads": "8"})
    return path


def rule_tensors(shapes: Mapping[str, tuple[int, ...]]) -> Iterator[tuple[str, torch.Tensor]]:
    """In order; a few are made ahead, for numpy draws them outside of Python's lock."""
    with ThreadPoolExecutor(WORKERS) as pool:
        waiting: deque[tuple[str, Future[torch.Tensor]]] = deque()
        for key, shape in shapes.items():
            waiting.append((key, pool.submit(rule_tensor, key, shape)))
            if len(waiting) > 2 * WORKERS:
                name, tensor = waiting.popleft()
                yield name, tensor.result()
        for name, tensor in waiting:
            yield name, tensor.result()
