# mmMamba's recipe with KDA layers: the first layer of every four stays attention.
_base_ = '../mmmamba/hybrid_stage1_8xb16_llama-3.2-1b.py'

model = dict(student=dict(convert=dict(mixer='KDA')))
