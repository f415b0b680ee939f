# mmMamba's three stages on a Llama of five layers, of which two become Mamba.
_base_ = [
    '../../_base_/models/stories260k_lm.py',
    '../../_base_/schedules/stories260k.py',
    '../../_base_/iter_language_runtime.py',
]

model = dict(
    stage='stage1',
    student=dict(convert=dict(layers='interleaved', ratio=0.5, init='mimic')),
    terms=dict(mixer=dict(type='mmtransmamba.MixerOutputTerm')),
)
