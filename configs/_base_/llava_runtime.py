# A model without teacher; its folder is called by what it is.
_base_ = './language_runtime.py'

custom_hooks = [dict(type='mmtransmamba.SaveStudentHook', folder='model')]
