# The teacher alone, to be tested: it is not trained.
_base_ = [
    '../../_base_/datasets/stories260k.py',
    '../../_base_/iter_language_runtime.py',
]

model = dict(type='mmtransmamba.CausalLM', path='data/stories260k/hf')
custom_hooks = []
test_cfg = dict()
