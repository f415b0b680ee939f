# The student alone on one tenth of the training digits.
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
        proportion=0.1,
        seed=0,
        dataset=_base_.train_dataloader.dataset,
    )
)
custom_hooks = [dict(type='mmtransmamba.ProgressBarHook', title='scratch')]
