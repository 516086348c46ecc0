"""Workers of data loaders that are spawned, as programs that have used CUDA must start them."""

import os
import subprocess
import sys

import pytest
import torch

CONFIG = """
_base_ = '{base}'
data = '{root}/'
metainfo = dict(classes=('striped_disc', 'checkered_square', 'dotted_triangle'))
train_dataloader = dict(
    num_workers=2, persistent_workers=True, dataset=dict(data_root=data, metainfo=metainfo))
val_dataloader, val_evaluator, val_cfg = None, None, None
test_dataloader, test_evaluator, test_cfg = None, None, None
train_cfg = dict(max_epochs=1)
randomness = dict(seed=0)
"""


@pytest.mark.slow
def test_spawned_workers_draw_the_same_views(tiny_shapes, tmp_path, repo_root):
    base = repo_root / 'configs/contrast/retina_contrast_shapes.py'
    (tmp_path / 'config.py').write_text(CONFIG.format(base=base, root=tiny_shapes))
    weights = []
    for method in ('fork', 'spawn'):
        command = [sys.executable, repo_root / 'tools/train.py', tmp_path / 'config.py']
        options = ['--cfg-options', f'env_cfg.mp_cfg.mp_start_method={method}']
        folder = tmp_path / method
        # on a GPU equal runs differ by more
        env = dict(os.environ, CUDA_VISIBLE_DEVICES='')
        subprocess.run([*command, '--work-dir', folder, *options], check=True, env=env)
        saved = torch.load(folder / 'epoch_1.pth', map_location='cpu', weights_only=False)
        weights.append(saved['state_dict'])
    first, second = weights
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.allclose(value, second[name], rtol=1e-4, atol=1e-6), name
