# Table VII, row "Layer+Feature+Logits".
_base_ = './digits_full.py'

model = dict(
    terms=dict(
        direction=None,
        layer=dict(weighting=dict(_delete_=True, type='mmtransmamba.UniformWeighting')),
    )
)
