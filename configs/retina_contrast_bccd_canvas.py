# The objects of the views packed on one picture for four images, at half of their size, instead of
# whole views.
_base_ = './retina_contrast_bccd_no_queue.py'

model = dict(data_preprocessor=dict(canvas=dict(share=0.25, scale=0.5)))
