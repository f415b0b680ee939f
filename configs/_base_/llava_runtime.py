# A model without a teacher: it is saved as `model/`, not `student/`.
_base_ = './language_runtime.py'

custom_hooks = [dict(type='mmtransmamba.SaveStudentHook', folder='model')]
