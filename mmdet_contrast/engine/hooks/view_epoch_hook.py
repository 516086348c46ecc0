"""Hook that tells the contrastive view the epoch."""

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmdet_contrast.datasets.transforms import ContrastiveView


@HOOKS.register_module()
class ViewEpochHook(Hook):
    """Tell :class:`ContrastiveView` the epoch, so that each one gets new views.

    The number is shared with worker processes that live longer than an epoch, and comes from the
    runner, so that a resumed run draws the views that the interrupted one would have drawn.
    """

    def before_train_epoch(self, runner: Runner) -> None:
        """Pass the epoch on before the data loader is asked for its first batch.

        Args:
            runner (Runner): The runner that trains.
        """
        ContrastiveView.set_epoch(runner.epoch)
