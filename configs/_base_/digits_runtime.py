# Small images and many short epochs: log and save less often.
_base_ = './default_runtime.py'

default_hooks = dict(
    logger=dict(interval=50),
    checkpoint=dict(interval=100, save_best='accuracy/top1', rule='greater'),
)
