# mmMamba-hybrid: the first of every four layers keeps attention. In stage 1, the new
# SSM parameters learn to match the attention's output, layer by layer.
_base_ = [
    '../../_base_/models/llama_3_2_1b_lm.py',
    '../../_base_/schedules/mmmamba.py',
    '../../_base_/iter_language_runtime.py',
]

model = dict(
    stage='stage1',
    student=dict(
        convert=dict(layers='interleaved', ratio=0.75, init='mimic'),
    ),
    terms=dict(mixer=dict(type='mmtransmamba.MixerOutputTerm')),
)
train_dataloader = dict(sampler=dict(type='InfiniteSampler'))
