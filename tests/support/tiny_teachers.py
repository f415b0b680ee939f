"""Vision models small enough for tests, and the same ViT in three libraries."""

NORMALISATION = dict(mean=[123.0, 116.0, 103.0], std=[58.0, 57.0, 56.0])
NUM_CLASSES = 5
IMAGE_SIZE = 32

# Width 32, 3 blocks of 2 heads, 4x4 patches of 8 pixels.
TIMM_VIT = dict(
    model_name='vit_tiny_patch16_224',
    img_size=IMAGE_SIZE,
    patch_size=8,
    embed_dim=32,
    depth=3,
    num_heads=2,
    num_classes=NUM_CLASSES,
)
TIMM_DISTILLED = {**TIMM_VIT, 'model_name': 'deit_tiny_distilled_patch16_224'}

_MM_ARCH = dict(
    arch=dict(embed_dims=32, num_layers=3, num_heads=2, feedforward_channels=128),
    img_size=IMAGE_SIZE,
    patch_size=8,
)
_MM_HEAD = dict(num_classes=NUM_CLASSES, in_channels=32)
MM_VIT = dict(
    type='ImageClassifier',
    backbone=dict(type='VisionTransformer', **_MM_ARCH),
    head=dict(type='VisionTransformerClsHead', **_MM_HEAD),
    data_preprocessor=dict(**NORMALISATION, to_rgb=True),
)
MM_DISTILLED = {
    **MM_VIT,
    'backbone': dict(type='DistilledVisionTransformer', **_MM_ARCH),
    'head': dict(type='DeiTClsHead', **_MM_HEAD),
}

HF_SIZES = dict(
    hidden_size=32,
    num_hidden_layers=3,
    num_attention_heads=2,
    intermediate_size=128,
    image_size=IMAGE_SIZE,
    patch_size=8,
    layer_norm_eps=1e-6,
)
HF_VIT = dict(model_type='vit', num_labels=NUM_CLASSES, **HF_SIZES)
HF_DISTILLED = dict(
    model_type='deit',
    architectures=['DeiTForImageClassificationWithTeacher'],
    num_labels=NUM_CLASSES,
    **HF_SIZES,
)
