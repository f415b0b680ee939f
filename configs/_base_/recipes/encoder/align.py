# First stage of a converted vision encoder: only the mixers are trained, and each block
# learns to have the teacher's output. Layers are compared at the patches, the final
# feature at the class token. No labels are used. A config takes the part of the model
# with `model = _base_.pop('encoder_stage')`.
_base_ = ['../../schedules/encoder.py', '../../default_runtime.py']

encoder_stage = dict(
    student=dict(
        stage='vision_align',
        convert=dict(layers='evenly', ratio=1.0, mixer='Mamba2', init='mimic'),
    ),
    alpha=0.0,
    terms=dict(
        layer=dict(type='mmtransmamba.LayerTerm'),
        feature=dict(type='mmtransmamba.FeatureTerm'),
    ),
)
default_hooks = dict(
    logger=dict(interval=50, log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=500, max_keep_ckpts=1),
    # One batch shows whether the teacher knows the classes.
    teacher=dict(batches=1),
)
log_processor = dict(by_epoch=False)
custom_hooks = [dict(type='mmtransmamba.SaveStudentHook')]
