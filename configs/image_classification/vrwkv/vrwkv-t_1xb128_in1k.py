# The paper specifies no batch size for RWKV; we use that of PMamba of the same width.
_base_ = [
    '../../_base_/models/vrwkv_t.py',
    '../../_base_/datasets/in1k_224.py',
    '../../_base_/schedules/adamw_300e.py',
    '../../_base_/default_runtime.py',
]
