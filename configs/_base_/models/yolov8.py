# YOLOv8; `scale` sets depth and width: n, s, m, l or x.
model = dict(
    type='YOLOv8Detector',
    scale='n',
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[0.0, 0.0, 0.0],
        std=[255.0, 255.0, 255.0],
        bgr_to_rgb=True,
        # images are padded after normalisation
        pad_value=114 / 255,
        pad_size_divisor=32,
    ),
    backbone=dict(type='YOLOv8CSPDarknet'),
    neck=dict(type='YOLOv8PAFPN'),
    bbox_head=dict(
        type='YOLOv8Head',
        num_classes=80,
        strides=(8, 16, 32),
        reg_max=16,
        loss_cls=dict(type='SoftTargetBCELoss', loss_weight=0.5),
        loss_bbox=dict(type='YOLOCIoULoss', loss_weight=7.5),
        # summed over the four sides
        loss_dfl=dict(type='DistributionFocalLoss', loss_weight=1.5 / 4),
    ),
    train_cfg=dict(assigner=dict(type='BatchTaskAlignedAssigner', topk=10, alpha=0.5, beta=6.0)),
    test_cfg=dict(
        multi_label=True,
        nms_pre=30000,
        score_thr=0.001,
        nms=dict(type='nms', iou_threshold=0.7),
        max_per_img=300,
    ),
)
