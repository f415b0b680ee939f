# mmMamba's recipe with Gated DeltaNet: the first layer of every four stays attention.
_base_ = '../mmmamba/hybrid_stage1_8xb16_llama-3.2-1b.py'

model = dict(student=dict(convert=dict(mixer='GatedDeltaNet')))
