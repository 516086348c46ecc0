# What every config of the plugin needs: MMDetection's runtime, the import that registers the modules,
# and the checks of a run, before anything is built. A dict of hooks merges, so a config that sets
# `custom_hooks` keeps them.
_base_ = 'mmdet::_base_/default_runtime.py'

custom_imports = dict(imports=['mmdet_contrast'], allow_failed_imports=False)
runner_type = 'mmdet.CheckedRunner'
default_hooks = dict(run_check=dict(type='RunCheckHook'))
