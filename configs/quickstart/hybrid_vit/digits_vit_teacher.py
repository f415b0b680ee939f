# The Transformer to convert: a ViT of four blocks for 8x8 images, with 16 patch tokens
# and a class token, trained on all digits.
_base_ = [
    '../../_base_/datasets/digits.py',
    '../../_base_/schedules/digits.py',
    '../../_base_/digits_runtime.py',
]

model = dict(
    type='mmtransmamba.EncoderClassifier',
    config=dict(
        model_type='vit',
        num_labels=10,
        num_channels=1,
        image_size=8,
        patch_size=2,
        hidden_size=64,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
    ),
    loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, end=5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, begin=5, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=100, val_interval=10)
custom_hooks = [
    dict(type='mmtransmamba.SaveStudentHook', folder='model'),
    dict(type='mmtransmamba.ProgressBarHook', title='ViT'),
]
