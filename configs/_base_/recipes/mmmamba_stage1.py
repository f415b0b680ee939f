# mmMamba's first stage: the new SSM parameters learn to match the attention's output,
# layer by layer. In the hybrid, the first of every four layers keeps attention. A
# config takes the recipe of the model with `model = _base_.pop('mmmamba')`.
_base_ = ['../schedules/mmmamba.py', '../iter_language_runtime.py']

mmmamba = dict(
    stage='stage1',
    student=dict(convert=dict(layers='interleaved', ratio=0.75, init='mimic')),
    terms=dict(mixer=dict(type='mmtransmamba.MixerOutputTerm')),
)
