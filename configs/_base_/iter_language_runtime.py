# For loops over iterations.
_base_ = './language_runtime.py'

default_hooks = dict(checkpoint=dict(by_epoch=False, interval=2000))
log_processor = dict(by_epoch=False)
