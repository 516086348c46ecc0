# What every config of the plugin needs: importing the package registers its modules.
custom_imports = dict(imports=['mmdet_contrast'], allow_failed_imports=False)
