# The student alone on 2,000 photographs of ten classes.
_base_ = [
    '../_base_/models/plain_mamba_imagenette.py',
    '../_base_/datasets/imagenette_views_72.py',
    '../_base_/schedules/imagenette.py',
    '../_base_/imagenette_runtime.py',
]
