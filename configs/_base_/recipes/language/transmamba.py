# TransMamba (arXiv:2502.15130). The student: Sections 3.2 and 4.2. The terms:
# Equations 4 to 6 and 12 with alpha = 0.5; the paper gives alpha for image
# classification. The settings: Section 4.2, which names no schedule. The paper
# freezes nothing.
width = 2048  # of Llama-3.2-1B, for which the learning rate is
convert = dict(layers='evenly', ratio=1.0, init='subclone')
optim_wrapper = dict(optimizer=dict(type='Adam'))
schedule = dict(warmup=0.0, decay=0.0, end=1.0)
stages = [
    dict(
        name='transmamba',
        share=1,
        lr=2e-5,
        trains='all',
        terms=dict(
            task=dict(type='mmtransmamba.NextTokenTerm', weight=0.5),
            hidden=dict(
                type='mmtransmamba.HiddenStatesTerm',
                weight=0.5,
                weighting=dict(type='mmtransmamba.AdaptiveWeighting'),
            ),
        ),
    ),
]
