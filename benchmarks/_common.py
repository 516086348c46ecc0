"""What the benchmarks share: timing, peak memory of fresh processes, the machine, tables."""

import argparse
import gc
import json
import os
import platform
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any, Callable, Dict, Hashable, List, Mapping, Optional, Sequence, Tuple, TypeVar

from terminaltables import GithubFlavoredMarkdownTable

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
# lightly asks the network for a newer version of itself otherwise
os.environ['LIGHTLY_DID_VERSION_CHECK'] = 'True'

Key = TypeVar('Key', bound=Hashable)
GIB = 2**30
MIB = 2**20


def parser(description: str, device: bool = False) -> argparse.ArgumentParser:
    """Return the parser with the options of every benchmark, and with ``--device`` if wanted."""
    result = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    result.add_argument('--quick', action='store_true', help='tiny sizes: do the scripts run?')
    if device:
        choices = ('cpu', 'cuda')
        result.add_argument('--device', type=use_device, choices=choices, default='cpu')
    return result


def use_device(device: str) -> str:
    """Return the device as it is; turn TF32 off: values of both sides are compared."""
    if device == 'cuda':
        import torch

        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    return device


def allow_tf32() -> None:
    """Let convolutions use TF32, as PyTorch does by default: for times of whole steps."""
    import torch

    torch.backends.cudnn.allow_tf32 = True


def machine(device: str = 'cpu') -> str:
    """Describe processor or GPU, cores, memory, threads and versions in one line."""
    import torch

    name = platform.processor() or platform.machine()
    cpuinfo, meminfo = Path('/proc/cpuinfo'), Path('/proc/meminfo')
    if cpuinfo.exists():
        models = [
            x.split(':')[1].strip() for x in cpuinfo.read_text().splitlines() if 'model name' in x
        ]
        name = models[0] if models else name
    memory = ''
    if meminfo.exists():
        memory = f', {int(meminfo.read_text().split()[1]) / MIB:.0f} GiB'
    load = f', load {os.getloadavg()[0]:.1f}' if hasattr(os, 'getloadavg') else ''
    gpu = f'{torch.cuda.get_device_name()}; ' if device == 'cuda' else ''
    return (
        f'{gpu}{name}, {os.cpu_count()} cores{memory}; {torch.get_num_threads()} threads, '
        f'torch {torch.__version__}, Python {platform.python_version()}{load}'
    )


def synchronize() -> None:
    """Wait until the GPU is done, if this process uses one."""
    import torch

    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def seconds(
    functions: Dict[str, Callable[[], object]],
    repeats: int = 5,
    warm_up: int = 1,
    limit: float = float('inf'),
) -> Dict[str, float]:
    """Time functions in turns, so that whatever else the machine does meets all of them.

    Args:
        functions (dict[str, Callable]): What is timed, by name.
        repeats (int): Rounds that count.
        warm_up (int): Rounds that do not.
        limit (float): Seconds after which a function gets no further round (it gets one).

    Returns:
        dict[str, float]: Median seconds of a call, by name.
    """
    for function in functions.values():
        for _ in range(warm_up):
            function()
    taken: Dict[str, List[float]] = {name: [] for name in functions}
    gc.collect()
    gc.disable()
    for _ in range(repeats):
        for name, function in functions.items():
            if sum(taken[name]) > limit:
                continue
            synchronize()
            start = time.perf_counter()
            function()
            synchronize()
            taken[name].append(time.perf_counter() - start)
    gc.enable()
    return {name: median(values) for name, values in taken.items()}


class PeakMemory:
    """Growth of this process's memory over what it was on entry, in bytes.

    On a GPU it is the growth of what PyTorch has allocated, on a CPU that of resident memory. On
    Linux the high-water mark is set back on entry, so that what the imports needed for a moment
    does not hide small growth. Elsewhere it is the growth of ``ru_maxrss``.
    """

    def __init__(self, device: str = 'cpu') -> None:
        self.device = device

    def __enter__(self) -> 'PeakMemory':
        gc.collect()
        self.grown = 0
        if self.device == 'cuda':
            import torch

            torch.cuda.reset_peak_memory_stats()
            self._before = torch.cuda.memory_allocated()
            return self
        self._resets = True
        try:
            Path('/proc/self/clear_refs').write_text('5')
        except OSError:
            self._resets = False
        self._before = self._peak()
        return self

    def __exit__(self, *_) -> None:
        self.grown = self._peak() - self._before

    def _peak(self) -> int:
        if self.device == 'cuda':
            import torch

            return torch.cuda.max_memory_allocated()
        if self._resets:
            status = Path('/proc/self/status').read_text().splitlines()
            return next(int(x.split()[1]) * 1024 for x in status if x.startswith('VmHWM'))
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
            1 if sys.platform == 'darwin' else 1024
        )


def release_memory() -> None:
    """Give memory that is free, but kept by the C library, back to the system (glibc only)."""
    import ctypes

    gc.collect()
    try:
        ctypes.CDLL('libc.so.6').malloc_trim(0)
    except (OSError, AttributeError):
        pass


def limit_memory(gib: float, device: str = 'cpu') -> None:
    """Let allocations beyond this much (on a CPU: address space) fail."""
    if device == 'cuda':
        import torch

        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, gib * GIB / total))
        return
    import resource

    resource.setrlimit(
        resource.RLIMIT_AS, (int(gib * GIB), resource.getrlimit(resource.RLIMIT_AS)[1])
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Tell a failed allocation from other errors."""
    signs = ("can't allocate memory", 'out of memory')
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in signs)


def in_fresh_processes(
    cases: Mapping[Key, Sequence[str]], script: str, device: str = 'cpu'
) -> Dict[Key, Any]:
    """Run a script of this folder anew for each case; the last line that it prints is JSON.

    One runs after the other, and on a GPU eight at a time: PyTorch counts what each allocates.

    Args:
        cases (Mapping[Hashable, Sequence[str]]): Arguments by case.
        script (str): Path of the script.
        device (str): 'cpu' or 'cuda'.

    Returns:
        dict: The JSON by case; None where the process ended for want of memory.

    Raises:
        RuntimeError: If one ended for another reason.
    """

    def run(arguments: Sequence[str]) -> Any:
        done = subprocess.run(
            [sys.executable, script, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        if done.returncode == 0:
            return json.loads(done.stdout.strip().splitlines()[-1])
        # -9: the kernel's out-of-memory killer; bad_alloc: a failed allocation outside of torch
        if done.returncode == -9 or 'bad_alloc' in done.stderr:
            return None
        raise RuntimeError(f'{script} {" ".join(arguments)} failed:\n{done.stderr[-2000:]}')

    with ThreadPoolExecutor(8 if device == 'cuda' else 1) as pool:
        return dict(zip(cases, pool.map(run, cases.values())))


def print_peak(step: Callable[[], object], device: str) -> None:
    """Print, as JSON, the peak memory of a second call in bytes: for a fresh process."""
    # loads whatever is loaded at the first call only
    step()
    release_memory()
    with PeakMemory(device) as memory:
        step()
    print(json.dumps(memory.grown))


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out a Markdown table whose columns line up in a terminal, too."""
    return GithubFlavoredMarkdownTable([list(header), *map(list, rows)]).table


def show_time(value: Optional[float]) -> str:
    """Format seconds."""
    if value is None:
        return 'out of memory'
    return f'{value:.2f} s' if value >= 1 else f'{value * 1e3:.2f} ms'


def show_memory(value: Optional[float]) -> str:
    """Format bytes."""
    if value is None:
        return 'out of memory'
    return f'{value / GIB:.2f} GiB' if value >= GIB else f'{value / MIB:.1f} MiB'


def show_ratio(theirs: Optional[float], ours: float) -> str:
    """Format how many times more they need than we do."""
    if theirs is None:
        return '-'
    return f'{theirs / ours:.3g}x' if ours > 0 else '-'


def count_calls(step: Callable[[], object], device: str) -> Tuple[int, int, int]:
    """Count what a call asks of the GPU, or would ask.

    Returns:
        tuple[int, int, int]: Kernels launched, on a CPU the operators of PyTorch that would launch
        one; copies and fills (0 on a CPU, where they are among the kernels); waits for the GPU.
    """
    # whatever happens at the first call only
    step()
    if device == 'cpu':
        from _operator_calls import OperatorCalls

        with OperatorCalls() as operators:
            step()
        return sum(operators.kernels.values()), 0, len(operators.waits)
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA]
    synchronize()
    with profile(activities=activities) as nothing:
        pass
    with profile(activities=activities) as profiler:
        step()
    calls = Counter({event.key: event.count for event in profiler.key_averages()})
    # the profiler itself waits for the GPU at its end
    calls.subtract({event.key: event.count for event in nothing.key_averages()})
    return tuple(
        sum(count for name, count in calls.items() if name.startswith('cu') and word in name)
        for word in ('LaunchKernel', 'Mem', 'Synchronize')
    )


def call_columns(device: str) -> Tuple[str, ...]:
    """Return the header of the columns of :func:`show_calls`: none on a CPU."""
    return ('launches', 'waits') if device == 'cuda' else ()


def show_calls(steps: Sequence[Callable[[], object]], device: str) -> Tuple[str, ...]:
    """Format the kernels that a call of each step launches, and its waits for the GPU."""
    if device == 'cpu':
        return ()
    launches, _, waits = zip(*(count_calls(step, device) for step in steps))
    return ' / '.join(map(str, launches)), ' / '.join(map(str, waits))


def step_table(
    steps: Dict[str, Callable[[], object]],
    memory: Dict[str, int],
    base: str,
    device: str,
    repeats: int,
) -> str:
    """Time steps, and lay out a table of time and peak memory with their ratios to one of them."""
    allow_tf32()
    taken = seconds(steps, repeats=repeats)
    rows = [
        (
            name,
            show_time(taken[name]),
            f'{taken[name] / taken[base]:.3f}',
            show_memory(memory[name]),
            f'{memory[name] / max(memory[base], 1):.2f}',
            *show_calls([step], device),
        )
        for name, step in steps.items()
    ]
    return table(('step', 'time', 'ratio', 'peak memory', 'ratio', *call_columns(device)), rows)


def random_boxes(count: int, height: int, width: int, seed: int = 0):
    """Draw boxes as COCO's are: root of the area log-uniform from 16 px to 0.6 of the short side.

    Returns:
        np.ndarray: (count, 4) float32 ``x1, y1, x2, y2`` inside of the picture.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    size = np.exp(rng.uniform(np.log(16), np.log(0.6 * min(height, width)), count))
    aspect = np.exp(rng.uniform(-0.7, 0.7, count))
    w = np.minimum(size * np.sqrt(aspect), width)
    h = np.minimum(size / np.sqrt(aspect), height)
    x, y = rng.uniform(0, width - w), rng.uniform(0, height - h)
    return np.stack((x, y, x + w, y + h), axis=1).astype(np.float32)


def random_batch(size: int, images: int, num_classes: int, device: str, boxes: int = 10):
    """Draw pictures and the samples that a detector's ``loss`` takes.

    Args:
        size (int): Height and width in pixels.
        images (int): Number of pictures N.
        num_classes (int): Classes.
        device (str): Of pictures and samples; what is drawn is the same on each.
        boxes (int): Boxes in a picture.

    Returns:
        tuple[Tensor, list[DetDataSample]]: (N, 3, size, size) in [0, 1], and N samples.
    """
    import torch
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    generator = torch.Generator().manual_seed(0)
    pictures = torch.rand(images, 3, size, size, generator=generator)
    samples = []
    for i in range(images):
        meta = dict(img_shape=(size, size), pad_shape=(size, size), ori_shape=(size, size))
        sample = DetDataSample(metainfo=dict(meta, batch_input_shape=(size, size), img_id=i))
        sample.gt_instances = InstanceData(
            bboxes=torch.from_numpy(random_boxes(boxes, size, size, seed=i)),
            labels=torch.randint(num_classes, (boxes,), generator=generator),
        )
        samples.append(sample.to(device))
    return pictures.to(device), samples


def build_model(cfg, device: str):
    """Build and initialise a detector without pre-trained weights and without a word.

    Args:
        cfg (Config): The whole config.
        device (str): Of the model.

    Returns:
        BaseDetector: In training mode.
    """
    import torch
    from mmdet.registry import MODELS
    from mmengine.logging import MMLogger

    MMLogger.get_instance('mmengine').setLevel('WARNING')
    cfg.model.backbone.init_cfg = None
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    return model.to(device).train()


def view_batch(
    images: int,
    boxes: int,
    height: int,
    width: int,
    num_classes: int = 80,
    views: bool = True,
    seed: int = 0,
) -> dict:
    """Draw pictures of smooth noise with boxes, and make their views.

    Args:
        images (int): Number of pictures N.
        boxes (int): Boxes in a picture.
        height (int): Of a picture in pixels.
        width (int): Of a picture in pixels.
        num_classes (int): Classes; the boxes of a picture are of one after the other.
        views (bool): Whether to make views.
        seed (int): Of everything that is drawn.

    Returns:
        dict: ``inputs`` and ``data_samples``, N of each, as a data preprocessor takes them.
    """
    import cv2
    import numpy as np
    from mmdet.datasets.transforms import PackDetInputs
    from mmdet.structures.bbox import HorizontalBoxes

    from mmdet_contrast.datasets.transforms import ContrastiveView, PackContrastiveInputs

    meta_keys = ('img_id', 'img_shape', 'ori_shape', 'scale_factor')
    # every box takes part, however much of its view is repainted
    transforms = (
        (ContrastiveView(max_overwritten=1.0), PackContrastiveInputs(meta_keys=meta_keys))
        if views
        else (PackDetInputs(meta_keys=meta_keys),)
    )
    rng = np.random.default_rng(seed)
    np.random.seed(seed)
    packed = []
    for i in range(images):
        noise = rng.integers(0, 256, (height // 8, width // 8, 3), np.uint8)
        results = dict(
            img=cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC),
            img_id=i,
            img_shape=(height, width),
            ori_shape=(height, width),
            scale_factor=(1.0, 1.0),
            gt_bboxes=HorizontalBoxes(random_boxes(boxes, height, width, seed + i)),
            gt_bboxes_labels=np.arange(boxes) % num_classes,
            gt_ignore_flags=np.zeros(boxes, bool),
        )
        for transform in transforms:
            results = transform(results)
        packed.append(results)
    return {key: [item[key] for item in packed] for key in ('inputs', 'data_samples')}
