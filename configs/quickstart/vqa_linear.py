# A LLaVA that is linear from the pixels to the text: the converted tower, and the pure
# student that learns from the labels alone.
_base_ = './vqa_pure_scratch.py'

model = dict(vision='work_dirs/vqa_linear_tower/model')
custom_hooks = [
    dict(type='mmtransmamba.SaveStudentHook', folder='model'),
    dict(type='mmtransmamba.ProgressBarHook', title='linear from pixels to text'),
]
