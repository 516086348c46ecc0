# Packed objects that pass without gradient: the cheapest second view.
_base_ = './retina_contrast_bccd_canvas.py'

model = dict(
    type='ContrastiveDetector',
    view_grad=False,
    # half of the gradient, the views', is gone
    bbox_head=dict(contrast=dict(criterion=dict(loss_weight=1.0))),
)
