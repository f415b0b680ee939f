# The paper specifies no batch size for RWKV; we use that of PMamba of the same width.
_base_ = [
    '../../_base_/models/trans_vrwkv_t.py',
    '../../_base_/datasets/in1k_224.py',
    '../../_base_/schedules/adamw_300e.py',
    '../../_base_/default_runtime.py',
]

model = dict(
    teacher=dict(
        checkpoint='checkpoints/deit-tiny_pt-4xb256_in1k_20220218-13b382a0.pth',
    ),
)
train_dataloader = dict(dataset=dict(proportion=0.75))
