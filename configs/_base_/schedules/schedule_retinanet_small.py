# 15 epochs from scratch with AdamW and a cosine, for batches of 4.
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=15, val_interval=5)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=5e-4, weight_decay=0.01),
    clip_grad=dict(max_norm=10),
)
param_scheduler = [
    dict(type='CosineAnnealingLR', T_max=15, by_epoch=True, convert_to_iter_based=True)
]
randomness = dict(seed=0)
auto_scale_lr = dict(enable=False, base_batch_size=4)
