# Table IX: layer 4 of the teacher, counted from 1, supervises every student layer.
_base_ = '../trans-plain-mamba-s_1xb128_in100.py'

model = dict(teacher_layer=3)
