# Packed objects that pass without gradient: the cheapest second view.
_base_ = './retina_contrast_bccd_canvas.py'

model = dict(type='ContrastiveDetector', view_grad=False)
