# The student alone on 60 of the 1,200 training digits, six of each kind.
_base_ = [
    '../_base_/models/plain_mamba_digits.py',
    '../_base_/datasets/digits.py',
    '../_base_/schedules/digits.py',
    '../_base_/digits_runtime.py',
]

train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='mmtransmamba.Subset',
        proportion=0.05,
        seed=0,
        dataset=_base_.train_dataloader.dataset,
    )
)
custom_hooks = [dict(type='mmtransmamba.ProgressBarHook', title='scratch')]
