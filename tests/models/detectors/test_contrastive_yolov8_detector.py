import pytest
import torch
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmdet_contrast import config_path
from mmdet_contrast.models.detectors import ContrastiveYOLOv8Detector, YOLOv8Detector


def build(name='yolov8_contrast_n_shapes_nograd.py', **options):
    init_default_scope('mmdet')
    cfg = Config.fromfile(config_path(name)).model
    torch.manual_seed(0)
    model = MODELS.build(dict(cfg, **options))
    model.init_weights()
    return model


def one_batch(model, counts=(3, 2), size=96, views=True):
    torch.manual_seed(3)
    data = demo_mm_inputs(
        len(counts),
        [[3, size, size]] * len(counts),
        num_classes=3,
        num_items=list(counts),
        use_box_type=True,
    )
    if views:
        data['inputs'] = [torch.stack((x, x.flip(0))) for x in data['inputs']]
    return model.data_preprocessor(data, training=True)


def total_of(model, data):
    return model.parse_losses(model(data['inputs'], data['data_samples'], mode='loss'))[0]


@pytest.mark.parametrize('canvas', [None, dict(share=0.5)])
def test_value_of_the_stock_detector_and_gradient_of_the_originals(canvas):
    stock = build('yolov8_contrast_n_shapes.py').eval()
    model = build().eval()
    assert list(model.state_dict()) == list(stock.state_dict())
    model.load_state_dict(stock.state_dict())
    if canvas is not None:
        for detector in (stock, model):
            preprocessor = dict(type='ContrastiveDataPreprocessor', canvas=canvas)
            detector.data_preprocessor = MODELS.build(preprocessor)
    seen, extract = [], model.extract_feat

    def record(inputs):
        feats = extract(inputs)
        seen.append((len(inputs), feats[0].requires_grad))
        return feats

    model.extract_feat = record
    data = one_batch(model)
    total = total_of(model, data)
    assert seen == [(2, True), (2 if canvas is None else 1, False)]
    torch.testing.assert_close(total, total_of(stock, data))
    total.backward()
    gradients = [p.grad for p in model.parameters() if p.requires_grad]
    assert all(g is not None and torch.isfinite(g).all() for g in gradients)
    assert model.backbone.stem.conv.weight.grad.abs().sum() > 0


@pytest.mark.parametrize('counts', [(3, 2), (0, 0), (0, 1)])
def test_steps_of_training(counts):
    model = build()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    # in training mode statistics of the batch are used; the running ones are those of originals
    for _ in range(2):
        optimizer.zero_grad()
        total = total_of(model, one_batch(model, counts))
        total.backward()
        optimizer.step()
        assert torch.isfinite(total)
    assert all(torch.isfinite(v).all() for v in model.state_dict().values())


def test_a_head_without_views_from_keys_of_the_same_image():
    cfg = Config.fromfile(config_path('yolov8_contrast_n_shapes.py')).model
    cfg.bbox_head.contrast.update(key_source='image', box_jitter=0.1)
    model = build('yolov8_contrast_n_shapes.py', bbox_head=cfg.bbox_head)
    data = one_batch(model, views=False)
    losses = model(data['inputs'], data['data_samples'], mode='loss')
    assert all(losses[f'loss_contrast_p{i}'] > 0 for i in (3, 4, 5))
    model.parse_losses(losses)[0].backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
    with pytest.raises(RuntimeError, match='remove ContrastiveView from the train_pipeline'):
        total_of(model, one_batch(model))


def test_it_knows_the_sizes_and_refuses_what_both_refuse():
    assert issubclass(ContrastiveYOLOv8Detector, YOLOv8Detector)
    channels = build(scale='s').neck.out_channels
    assert channels == build('yolov8_contrast_n_shapes.py', scale='s').neck.out_channels
    with pytest.raises(ValueError, match="scale='xxl'"):
        build(scale='xxl')
    with pytest.raises(ValueError, match="ContrastiveYOLOv8Detector got view_norm='frozen'"):
        build(view_norm='frozen')
