from mmengine.config import Config, ConfigDict

from mmdet_contrast.models.distill import model_section

MODEL = dict(type='RetinaNet', backbone=dict(depth=18))


def test_a_section_a_config_and_a_path_are_the_same(tmp_path):
    path = tmp_path / 'config.py'
    path.write_text(f'model = {MODEL!r}\n')
    for given in (MODEL, dict(model=MODEL), Config.fromfile(str(path)), str(path), path):
        section = model_section(given)
        assert isinstance(section, ConfigDict) and section == MODEL
        assert section.backbone.depth == 18


def test_the_data_preprocessor_is_the_models_then_its_configs_then_the_given():
    own, beside, given = dict(mean=[1]), dict(mean=[2]), dict(mean=[3])
    whole = dict(model=dict(MODEL, data_preprocessor=own), data_preprocessor=beside)
    assert model_section(whole, given).data_preprocessor == own
    whole = dict(model=MODEL, data_preprocessor=beside)
    assert model_section(whole, given).data_preprocessor == beside
    assert model_section(MODEL, given).data_preprocessor == given
    assert 'data_preprocessor' not in model_section(MODEL) and 'data_preprocessor' not in MODEL
