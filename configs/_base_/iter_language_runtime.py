# For loops over iterations.
_base_ = './language_runtime.py'

default_hooks = dict(
    checkpoint=dict(by_epoch=False, interval=2000),
    # Else every validation is logged as that of epoch 0.
    logger=dict(log_metric_by_epoch=False),
)
log_processor = dict(by_epoch=False)
