# The views pass without gradient: fixed targets for backbone and neck.
_base_ = './retina_contrast_bccd_no_queue.py'

model = dict(
    type='ContrastiveDetector',
    view_grad=False,
    # half of the gradient, the views', is gone
    bbox_head=dict(contrast=dict(criterion=dict(loss_weight=1.0))),
)
