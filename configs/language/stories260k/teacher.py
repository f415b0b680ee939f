# The teacher alone, for testing only.
_base_ = [
    '../../_base_/datasets/stories260k.py',
    '../../_base_/iter_language_runtime.py',
]

model = dict(type='mmtransmamba.CausalLM', path='data/stories260k/hf')
custom_hooks = []
test_cfg = dict()
