"""Work that one of several processes does for all."""

from typing import Any, Callable, List

from mmengine.dist import broadcast_object_list, is_main_process

from mmdet_contrast.utils.config import LaunchError


def in_first_process(function: Callable[[], Any]) -> Any:
    """Run a function in the first process only, and end in all processes as it ends there.

    Args:
        function (Callable): What to run.

    Returns:
        Any: What it returns, in all processes.

    Raises:
        LaunchError: In all processes, with the same message, if the function raises one; in the
            others also where the first process raises another exception.
    """
    outcome: List[Any] = [None, None]
    failure = None
    if is_main_process():
        try:
            outcome[0] = function()
        except Exception as error:
            # raised below: the others must not wait for this process
            failure, outcome[1] = error, str(error) or type(error).__name__
    broadcast_object_list(outcome)
    if failure is not None:
        raise failure
    if outcome[1] is not None:
        raise LaunchError(outcome[1])
    return outcome[0]
