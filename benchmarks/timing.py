"""Cases timed in turn, in one process, so that what slows the machine down slows all of them."""

import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count
from tqdm import tqdm

MIB = 2**20
BASES = {2: "plain UNet, 2 rows", 3: "plain UNet, 3 rows"}  # what all others are measured by


@dataclass
class Case:
    """run: does the work once and gives the seconds that count. before: what is not timed.

    operations: multiplications and additions of matrix products, attention and convolutions.
    peak_mib: above what was taken before; of a GPU only, for a CPU's allocator keeps what it had.
    """

    run: Callable[[], float]
    before: Callable[[], object] = lambda: None
    seconds: list[float] = field(default_factory=list)
    operations: int = 0
    peak_mib: float | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def _attention_operations(query, key, value, *rest, out_shape=None, **more) -> int:
    """Takes shapes."""
    return sdpa_flop_count(query, key, value)


# torch counts those of its kernels for GPUs.
COUNTED = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_operations}


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call: of the processor on a CPU (all threads), of the clock on a GPU."""
    if device.type == "cpu":
        start = time.process_time()
        work()
        return time.process_time() - start
    torch.cuda.synchronize(device)
    start = time.perf_counter()
    work()
    torch.cuda.synchronize(device)
    return time.perf_counter() - start


def run_in_turn(cases: Mapping[str, Case], rounds: int, device: torch.device) -> None:
    """One round more than counts, to warm up, in which operations are counted and the peak of a
    GPU's memory is read."""
    progress = tqdm(total=(rounds + 1) * len(cases), leave=False)
    for number in range(rounds + 1):
        for name, case in cases.items():
            progress.set_description(name)
            case.before()
            if number > 0:
                case.seconds.append(case.run())
            else:
                _warm_up(case, device)
            progress.update()
    progress.close()


def _warm_up(case: Case, device: torch.device) -> None:
    before = 0
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
    with FlopCounterMode(display=False, custom_mapping=COUNTED) as counter:
        case.run()
    case.operations = counter.get_total_flops()
    if device.type == "cuda":
        case.peak_mib = (torch.cuda.max_memory_allocated(device) - before) / MIB


def ratios(case: Case, base: Case) -> tuple[float, float, float]:
    """Median, lower and upper quartile of case / base, round by round."""
    each = [a / b for a, b in zip(case.seconds, base.seconds, strict=True)]
    if len(each) < 2:
        return each[0], each[0], each[0]
    low, middle, high = statistics.quantiles(each, n=4, method="inclusive")
    return middle, low, high


def machine(device: torch.device) -> dict[str, str]:
    """Versions and hardware, for the head of a table."""
    name = platform.processor() or platform.machine()
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    return {
        "device": f"{device.type} ({name})",
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
    }
