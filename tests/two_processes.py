"""A test file that runs a part of itself in two gloo processes."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, List, Tuple

import torch
import torch.distributed as dist


def run_in_two_processes(
    file: str, folder: Path, *arguments: object, timeout: int = 300
) -> Tuple[List[Any], List[Tuple[str, str]]]:
    """Start ``file`` twice, and wait for both; none outlives the call.

    Args:
        file (str): ``__file__`` of a test that ends in ``serve(work)``.
        folder (Path): An empty folder.
        *arguments: Further arguments of ``work``; they arrive as strings.
        timeout (int): Seconds.

    Returns:
        tuple: What ``work`` returned in each process, and standard output and error of each.
    """
    paths = [str(Path(__file__).parent), *filter(None, [os.environ.get('PYTHONPATH')])]
    # files and not pipes: a process that fills its pipe would wait, and the other one for it
    logs = [[folder / f'{name}{rank}' for name in ('stdout', 'stderr')] for rank in (0, 1)]
    processes = []
    try:
        for rank, (out, err) in enumerate(logs):
            with out.open('w') as stdout, err.open('w') as stderr:
                command = [sys.executable, file, str(rank), str(folder), *map(str, arguments)]
                env = dict(os.environ, LOCAL_RANK=str(rank), PYTHONPATH=os.pathsep.join(paths))
                # gloo also where there is a GPU, which there may be one of
                env['CUDA_VISIBLE_DEVICES'] = ''
                processes.append(subprocess.Popen(command, stdout=stdout, stderr=stderr, env=env))
        for process in processes:
            process.wait(timeout)
    finally:
        for process in processes:
            process.kill()
    outputs = [(out.read_text(), err.read_text()) for out, err in logs]
    errors = '\n'.join(error for _, error in outputs)
    assert [process.returncode for process in processes] == [0, 0], errors
    results = [torch.load(f'{folder}/rank{rank}.pt', weights_only=False) for rank in (0, 1)]
    return results, outputs


def serve(work: Callable[..., Any]) -> None:
    """Be one of the processes: join the other, and keep what ``work(rank, folder, ...)`` returns.

    Args:
        work (Callable): What each process does.
    """
    rank, folder = int(sys.argv[1]), sys.argv[2]
    torch.set_num_threads(1)
    dist.init_process_group(
        'gloo', init_method=f'file://{folder}/rendezvous', rank=rank, world_size=2
    )
    torch.save(work(rank, folder, *sys.argv[3:]), f'{folder}/rank{rank}.pt')
    dist.barrier()
    sys.stdout.flush()
    sys.stderr.flush()
    # without leaving the group: gloo of torch 2.1 may wait there for ever
    os._exit(0)
