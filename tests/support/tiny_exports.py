"""Every vision family in a size that exports in seconds."""

from mmtransmamba.models import VRWKV, PlainMamba, VideoMamba, Vim, VMamba

_BIMAMBA = dict(embed_dims=16, depth=1, d_state=2)
_VRWKV = dict(
    embed_dims=16,
    depth=1,
    post_norm=False,
    init_values=None,
    key_norm=False,
    drop_path_rate=0.0,
)
_IMAGE = (3, 16, 16)

FAMILIES = {
    'plain_mamba': lambda: PlainMamba(
        dict(
            embed_dims=16,
            depth=1,
            num_convs=1,
            dwconv_layers=(0,),
            drop_path_rate=0.0,
            d_state=2,
        ),
        img_size=16,
        patch_size=4,
    ),
    'vim': lambda: Vim(_BIMAMBA, img_size=16, patch_size=4),
    'vmamba_v0': lambda: VMamba(
        dict(
            embed_dims=8,
            depths=(1, 1),
            drop_path_rate=0.0,
            version='v0',
            ssm_ratio=2.0,
            d_state=2,
        ),
        # The second stage has three rows and columns: they are padded.
        patch_size=5,
    ),
    'vmamba_v05': lambda: VMamba(
        dict(
            embed_dims=8,
            depths=(1, 1),
            drop_path_rate=0.0,
            version='v05_noz',
            ssm_ratio=1.0,
            d_state=1,
        )
    ),
    'video_mamba_image': lambda: VideoMamba(_BIMAMBA, img_size=16, patch_size=4),
    'video_mamba': lambda: VideoMamba(
        _BIMAMBA, img_size=16, patch_size=8, num_frames=4, tubelet_size=2
    ),
    'vrwkv_v4': lambda: VRWKV(dict(_VRWKV, num_heads=None), 16, 4),
    'vrwkv_v4_cuda': lambda: VRWKV(
        dict(_VRWKV, num_heads=None, key_norm=True), 16, 2, wkv_rule='cuda'
    ),
    'vrwkv_v6': lambda: VRWKV(dict(_VRWKV, num_heads=2, post_norm=True), 16, 4),
}
"""The backbones by name."""


def tiny_export(family):
    """A backbone in training mode, with weights drawn, and the shape of its input."""
    model = FAMILIES[family]()
    model.reset_parameters()
    return model, (3, 4, 16, 16) if family == 'video_mamba' else _IMAGE
