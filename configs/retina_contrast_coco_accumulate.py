# Half the images per GPU, gradients accumulated over two iterations: the stock batch size in
# about half the memory. Negatives come from the images of one iteration.
_base_ = './retina_contrast_coco.py'

train_dataloader = dict(batch_size=1)
optim_wrapper = dict(accumulative_counts=2)
