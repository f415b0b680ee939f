# The paper specifies no batch size for Vim; we use that of PMamba of the same width.
# Weight decay is the official 0.1.
_base_ = [
    '../../_base_/models/vim_t.py',
    '../../_base_/datasets/in1k_224.py',
    '../../_base_/schedules/adamw_300e.py',
    '../../_base_/default_runtime.py',
]

optim_wrapper = dict(optimizer=dict(weight_decay=0.1))
