_base_ = [
    '../../_base_/models/plain_mamba_t.py',
    '../../_base_/datasets/in1k_224.py',
    '../../_base_/schedules/adamw_300e.py',
    '../../_base_/default_runtime.py',
]
