"""Wrappers of the UNet call as packs set them, which handle every tensor of a row alike."""

from collections.abc import Callable

import torch


def moved(model, wrapper: Callable):
    """MODEL with a unet function wrapper of core's."""
    model = model.clone()
    model.set_model_unet_function_wrapper(wrapper)
    return model


def with_rows(c: dict, rows: int, change: Callable, branches: list[int]) -> dict:
    """The inputs of one UNet call, with `change` made of every tensor that has `rows` rows."""
    changed = {
        key: change(value) if isinstance(value, torch.Tensor) and len(value) == rows else value
        for key, value in c.items()
    }
    options = {**c["transformer_options"], "cond_or_uncond": branches}
    return {**changed, "transformer_options": options}


def repeated_rows(apply_model, call):
    """Every row twice, behind each other; the first half of the result."""
    x, timestep, c = call["input"], call["timestep"], call["c"]

    def twice(tensor):
        return torch.cat([tensor, tensor])

    c = with_rows(c, len(x), twice, 2 * call["cond_or_uncond"])
    return apply_model(twice(x), twice(timestep), **c)[: len(x)]


def reversed_rows(apply_model, call):
    """The last row first."""
    x, timestep, c = call["input"], call["timestep"], call["c"]
    c = with_rows(c, len(x), lambda t: t.flip(0), call["cond_or_uncond"][::-1])
    return apply_model(x.flip(0), timestep.flip(0), **c).flip(0)


def one_row_at_a_time(apply_model, call):
    x, timestep, c = call["input"], call["timestep"], call["c"]
    branches = call["cond_or_uncond"]
    batch = len(x) // len(branches)
    outputs = []
    for i in range(len(x)):
        part = with_rows(c, len(x), lambda t, i=i: t[i : i + 1], [branches[i // batch]])
        outputs.append(apply_model(x[i : i + 1], timestep[i : i + 1], **part))
    return torch.cat(outputs)


MOVERS = {
    "twice": repeated_rows,
    "reversed": reversed_rows,
    "one at a time": one_row_at_a_time,
}


def tiles(
    tile_batch: int, size: int = 8, cuts: Callable = lambda key: True, repeats=lambda key: True
):
    """Tiled diffusion: `tile_batch` square tiles of a picture as so many rows of one call.

    cuts: whether a tensor of the picture's size is cut, by its name; repeats: whether others are
    repeated with the rows.
    """

    def tiled(apply_model, call):
        x, timestep, c = call["input"], call["timestep"], call["c"]
        rows, _, height, width = x.shape
        places = [
            (slice(None), slice(None), slice(top, top + size), slice(left, left + size))
            for top in range(0, height, size)
            for left in range(0, width, size)
        ]
        out = torch.zeros_like(x)
        for first in range(0, len(places), tile_batch):
            at_once = places[first : first + tile_batch]
            count = len(at_once)
            part = {}
            for key, value in c.items():
                is_tensor = isinstance(value, torch.Tensor) and len(value) == rows
                if is_tensor and value.shape[2:] == x.shape[2:] and cuts(key):
                    value = torch.cat([value[place] for place in at_once])
                elif is_tensor and repeats(key):
                    value = torch.cat([value] * count)
                part[key] = value
            options = {
                **c["transformer_options"],
                "cond_or_uncond": count * call["cond_or_uncond"],
            }
            part["transformer_options"] = options
            x_tiles = torch.cat([x[place] for place in at_once])
            result = apply_model(x_tiles, torch.cat([timestep] * count), **part)
            for place, tile in zip(at_once, result.chunk(count), strict=True):
                out[place] = tile
        return out

    return tiled
