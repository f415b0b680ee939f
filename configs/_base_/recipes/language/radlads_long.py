# RADLADS (arXiv:2505.03005) with step 3: longer sequences, the task's loss alone,
# half as many tokens as in step 2. The curriculum of lengths is ours; the paper has
# 16,384 at once.
_base_ = './radlads.py'
stages = [
    *_base_.stages,
    dict(
        name='long',
        share=2.5,
        lr=7e-6,
        schedule=dict(warmup=0.02, decay=0.0, end=1.0),
        trains='all',
        terms=dict(task=dict(type='mmtransmamba.NextTokenTerm')),
        lengths=[2048, 4096, 16384],
    ),
]
