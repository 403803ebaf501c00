"""Patches of attention as packs of others set them: they tell rows by `cond_or_uncond`.

Both count on each number of a cond list once, the positive prompt's being 0.
"""

from dataclasses import dataclass, field

import torch

from .sampling import prompt


@dataclass
class Seen:
    """`cond_or_uncond` of every UNet call that a pack has met."""

    calls: list[list[int]] = field(default_factory=list)

    def numbers(self, options) -> list[int]:
        numbers = list(options["cond_or_uncond"])
        if options["block"] == ("input", 1):
            self.calls.append(numbers)
        return numbers

    def check(self) -> None:
        assert self.calls
        for numbers in self.calls:
            assert len(set(numbers)) == len(numbers) and set(numbers) <= {0, 1}, self.calls


def attention_couple(model):
    """MODEL whose positive rows see one prompt in the upper half of the picture, and another one
    in the lower half; and what it has met."""
    model, seen = model.clone(), Seen()
    (second, _), *_ = prompt(9)

    def more_rows(q, k, v, options):
        numbers = seen.numbers(options)
        rows, keys = q.chunk(len(numbers)), k.chunk(len(numbers))
        qs, ks = [], []
        for number, row, key in zip(numbers, rows, keys, strict=True):
            if number == 0:
                qs += [row, row]
                ks += [key, second[:, : key.shape[1]].to(key).expand(len(key), -1, -1)]
            else:
                qs.append(row)
                ks.append(key)
        return torch.cat(qs), torch.cat(ks), torch.cat(ks)

    def join(out, options):
        numbers = list(options["cond_or_uncond"])
        # As these packs write it: two rows for the one positive prompt, one for everything else.
        batch = len(out) // (len(numbers) + (0 in numbers))
        upper = torch.zeros(out.shape[1], 1).to(out)
        upper[: out.shape[1] // 2] = 1
        outputs, position = [], 0
        for number in numbers:
            count = 2 if number == 0 else 1
            parts = out[position : position + count * batch].chunk(count)
            outputs.append(parts[0] * upper + parts[1] * (1 - upper) if count == 2 else parts[0])
            position += count * batch
        return torch.cat(outputs)

    model.set_model_attn2_patch(more_rows)
    model.set_model_attn2_output_patch(join)
    return model, seen


def negative_attention(model, scale: float = 3.0):
    """MODEL whose positive rows leave behind what a negative prompt of this pack's own makes of
    cross-attention, found by the place of 0 in the list; and what it has met."""
    model, seen = model.clone(), Seen()
    (negative, _), *_ = prompt(10)

    def more_rows(q, k, v, options):
        numbers = seen.numbers(options)
        if 0 not in numbers:
            return q, k, v
        place, batch = numbers.index(0), len(q) // len(numbers)
        added = negative[:, : k.shape[1]].to(k).expand(batch, -1, -1)
        q = torch.cat([q, q[place * batch : (place + 1) * batch]])
        return q, torch.cat([k, added]), torch.cat([v, added])

    def leave_behind(out, options):
        numbers = list(options["cond_or_uncond"])
        if 0 not in numbers:
            return out
        place, batch = numbers.index(0), len(out) // (len(numbers) + 1)
        out, without = out[:-batch].clone(), out[-batch:]
        rows = slice(place * batch, (place + 1) * batch)
        guided = out[rows] * scale - without * (scale - 1)
        ratio = guided.norm(1, -1, True) / out[rows].norm(1, -1, True).clamp(min=1e-6)
        out[rows] = 0.5 * out[rows] + 0.5 * guided * ratio.clamp(max=1.5) / ratio
        return out

    model.set_model_attn2_patch(more_rows)
    model.set_model_attn2_output_patch(leave_behind)
    return model, seen


def contrasted_attention(model, scale: float = 3.0):
    """MODEL whose positive rows leave behind what the negative rows of the same call make of
    self-attention, as core's NAGuidance; and what it has met."""
    model, seen = model.clone(), Seen()

    def leave_behind(out, options):
        numbers = seen.numbers(options)
        if not {0, 1} <= set(numbers):
            return out
        batch = len(out) // len(numbers)
        rows, others = (slice(n * batch, (n + 1) * batch) for n in map(numbers.index, (0, 1)))
        out = out.clone()
        guided = out[rows] * scale - out[others] * (scale - 1)
        ratio = guided.norm(1, -1, True) / out[rows].norm(1, -1, True).clamp(min=1e-6)
        out[rows] = 0.5 * out[rows] + 0.5 * guided * ratio.clamp(max=1.5) / ratio
        return out

    model.set_model_attn1_output_patch(leave_behind)
    return model, seen


PACKS = {
    "attention couple": attention_couple,
    "negative attention": negative_attention,
    "contrasted attention": contrasted_attention,
}
