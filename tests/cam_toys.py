"""A detector whose answers are known: red squares are class 0, blue ones class 1."""

import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmengine.config import Config, ConfigDict
from torch import nn
from torch.nn import functional as F

STRIDE = 8


class ColourBackbone(nn.Module):
    """Channels of the mean redness and blueness of the cells, and one that is constant."""

    def __init__(self, init_cfg=None):
        super().__init__()
        self.norm = nn.BatchNorm2d(3, affine=False)

    def forward(self, images):
        cells = F.avg_pool2d(self.norm(images), STRIDE)
        return (torch.stack([cells[:, 0], cells[:, 2], cells[:, 1] * 0 + 0.5], dim=1),)


def colour_detector():
    register_all_modules()
    detector = MODELS.build(
        dict(
            type='SingleStageDetector',
            backbone=dict(type=ColourBackbone),
            bbox_head=dict(
                type='FCOSHead',
                num_classes=2,
                in_channels=3,
                feat_channels=3,
                stacked_convs=0,
                strides=[STRIDE],
                regress_ranges=((-1, 1e8),),
                norm_cfg=None,
            ),
            test_cfg=ConfigDict(
                nms_pre=1000,
                min_bbox_size=0,
                score_thr=0.05,
                nms=dict(type='nms', iou_threshold=0.5),
                max_per_img=100,
            ),
        )
    )
    head = detector.bbox_head
    with torch.no_grad():
        for conv in (head.conv_cls, head.conv_reg, head.conv_centerness):
            conv.weight.zero_()
            conv.bias.zero_()
        # logit = 12 x colour - 6; boxes of two cells; centreness 1
        head.conv_cls.weight[0, 0, 1, 1] = head.conv_cls.weight[1, 1, 1, 1] = 12.0
        head.conv_cls.bias.fill_(-6.0)
        head.conv_reg.bias.fill_(STRIDE).log_()
        head.conv_centerness.bias.fill_(20.0)
    detector.dataset_meta = dict(classes=('red', 'blue'))
    return detector.eval()


def tiny_transformer():
    """A DETR on the colours; its answers mean nothing."""
    register_all_modules()
    attention = dict(embed_dims=4, num_heads=1, batch_first=True)
    ffn = dict(embed_dims=4, feedforward_channels=4, num_fcs=2)
    layer = dict(self_attn_cfg=attention, ffn_cfg=ffn)
    detector = MODELS.build(
        dict(
            type='DETR',
            num_queries=5,
            backbone=dict(type=ColourBackbone),
            neck=dict(type='ChannelMapper', in_channels=[3], kernel_size=1, out_channels=4),
            encoder=dict(num_layers=1, layer_cfg=layer),
            decoder=dict(
                num_layers=1,
                layer_cfg=dict(layer, cross_attn_cfg=attention),
                return_intermediate=True,
            ),
            positional_encoding=dict(num_feats=2, normalize=True),
            bbox_head=dict(
                type='DETRHead',
                num_classes=2,
                embed_dims=4,
                # not the default, which the head changes, so that a second one cannot be built
                loss_cls=dict(type='CrossEntropyLoss', bg_cls_weight=0.1, class_weight=1.0),
            ),
            test_cfg=dict(max_per_img=5),
        )
    )
    return detector.eval()


def reading_files(detector, pipeline):
    """The detector as `load_detector` gives it: it reads images with a test pipeline."""
    detector.data_preprocessor = MODELS.build(
        dict(type='DetDataPreprocessor', mean=[0] * 3, std=[255] * 3, bgr_to_rgb=True)
    )
    detector.cfg = Config(dict(test_dataloader=dict(dataset=dict(pipeline=pipeline))))
    return detector


def colour_image(*squares, size=(64, 96)):
    """(1, 3, H, W) with squares of one cell: (row, column, channel, value)."""
    image = torch.zeros(1, 3, *size)
    for row, column, channel, value in squares:
        rows = slice(row * STRIDE, (row + 1) * STRIDE)
        image[0, channel, rows, column * STRIDE : (column + 1) * STRIDE] = value
    return image


def colour_sample(size=(64, 96), scale=1.0):
    shape = tuple(int(side / scale) for side in size)
    return DetDataSample(
        metainfo=dict(
            img_shape=size,
            ori_shape=shape,
            batch_input_shape=size,
            pad_shape=size,
            scale_factor=(scale, scale),
        )
    )
