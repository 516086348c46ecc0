# YOLOv8 from scratch: SGD, one epoch of warm-up, then linearly down to a hundredth. A config with
# another number of epochs changes max_epochs, and `begin` and `end` of the schedulers.
max_epochs = 15
warmup_epochs = 1
base_lr = 0.01
momentum = 0.937

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=5)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=base_lr, momentum=momentum, nesterov=True, weight_decay=0.0005),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0, bypass_duplicate=True),
    clip_grad=dict(max_norm=10.0),
)
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-5,
        by_epoch=True,
        begin=0,
        end=warmup_epochs,
        convert_to_iter_based=True,
    ),
    dict(
        type='LinearMomentum',
        start_factor=0.8 / momentum,
        by_epoch=True,
        begin=0,
        end=warmup_epochs,
        convert_to_iter_based=True,
    ),
    dict(
        type='LinearLR',
        start_factor=1.0,
        end_factor=0.01,
        by_epoch=True,
        begin=warmup_epochs,
        end=max_epochs,
    ),
]
custom_hooks = [
    dict(type='BiasWarmupHook', start_lr=0.1, epochs=warmup_epochs),
    dict(
        type='EMAHook',
        ema_type='ExpMomentumEMA',
        momentum=0.0001,
        update_buffers=True,
        priority=49,
    ),
]
