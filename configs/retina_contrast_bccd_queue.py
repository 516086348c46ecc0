# Embeddings of earlier batches, kept by class, are further negatives.
_base_ = './retina_contrast_bccd.py'

model = dict(bbox_head=dict(contrast=dict(queue=dict(type='FeatureQueue', size=64))))
