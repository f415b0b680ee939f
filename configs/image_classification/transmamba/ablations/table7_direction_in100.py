# Table VII: directions, final feature and logits.
_base_ = '../trans-plain-mamba-t_1xb128_in100.py'

model = dict(
    terms=dict(
        direction=dict(
            weighting=dict(_delete_=True, type='mmtransmamba.UniformWeighting')
        )
    )
)
