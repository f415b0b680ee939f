# mmMamba-linear: all 32 layers become Mamba-2. In stage 1, the new SSM parameters learn
# to match the attention's output, layer by layer.
_base_ = [
    '../../_base_/models/hovle_2_6b_vlm.py',
    '../../_base_/schedules/mmmamba.py',
    '../../_base_/iter_language_runtime.py',
]

model = dict(
    stage='stage1',
    student=dict(convert=dict(ratio=1.0, init='mimic')),
    terms=dict(mixer=dict(type='mmtransmamba.MixerOutputTerm')),
)
