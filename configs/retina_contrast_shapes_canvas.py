# The objects of the views packed on a few pictures instead of whole views: one for four images.
_base_ = './retina_contrast_shapes.py'

model = dict(data_preprocessor=dict(canvas=dict(share=0.25)))
