# Mixed precision; the contrastive loss computes its logits in float32 all the same.
_base_ = './retina_contrast_coco.py'

optim_wrapper = dict(type='AmpOptimWrapper', loss_scale='dynamic')
