# The views pass without gradient: fixed targets for backbone and neck.
_base_ = './retina_contrast_bccd_no_queue.py'

model = dict(type='ContrastiveDetector', view_grad=False)
