"""Where a UNet has attention, what those places are called, and how coarse they see."""

import re
from collections.abc import Collection, Iterable, Mapping

# ("input" | "middle" | "output", block, transformer depth), as ComfyUI counts blocks at run time
Site = tuple[str, int, int]

COARSE, MEDIUM, FINE = "coarse", "medium", "fine"


def site_name(site: Site) -> str:
    return "_".join(str(part) for part in site)


def site_depths(sites: Iterable[Site], keys: Collection[str]) -> dict[Site, int]:
    """How often the picture has been halved at each site of a core UNet with these keys."""
    halving, doubling = (
        [int(match[1]) for key in keys if (match := re.fullmatch(pattern, key))]
        for pattern in (
            r"input_blocks\.(\d+)\.0\.op\.weight",
            r"output_blocks\.(\d+)\.\d+\.conv\.weight",
        )
    )

    def depth(site: Site) -> int:
        if site[0] == "input":
            return sum(block <= site[1] for block in halving)
        return sum(site[0] == "middle" or block >= site[1] for block in doubling)

    return {site: depth(site) for site in sorted(sites)}  # "input", "middle", "output"


def levels_of(depths: Mapping[Site, int]) -> dict[Site, str]:
    """Coarse (middle and deepest decoder sites), medium or fine (finest)."""
    decoder = [depth for site, depth in depths.items() if site[0] == "output"]
    finest, deepest = min(decoder, default=0), max(decoder, default=0)
    return {
        site: COARSE
        if site[0] == "middle" or depth == deepest
        else FINE
        if depth == finest
        else MEDIUM
        for site, depth in depths.items()
    }
