# Table VII, row "Direction+Feature+Logits".
_base_ = './digits_full.py'

model = dict(
    terms=dict(
        layer=None,
        direction=dict(
            weighting=dict(_delete_=True, type='mmtransmamba.UniformWeighting')
        ),
    )
)
