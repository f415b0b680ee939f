# The student alone on 2,000 photographs of ten classes.
_base_ = [
    '../_base_/models/plain_mamba_imagenette.py',
    '../_base_/datasets/imagenette_views_72.py',
    '../_base_/schedules/imagenette.py',
    '../_base_/default_runtime.py',
]

default_hooks = dict(
    logger=dict(interval=50, log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=50, max_keep_ckpts=1),
)
log_processor = dict(by_epoch=False)
