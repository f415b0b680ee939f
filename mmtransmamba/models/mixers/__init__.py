from .bimamba import BiMambaMixer
from .plain_mamba import PlainMambaMixer
from .ss2d import SS2DMixer
from .vrwkv import VRWKV6SpatialMix, VRWKVChannelMix, VRWKVSpatialMix

__all__ = [
    'BiMambaMixer',
    'PlainMambaMixer',
    'SS2DMixer',
    'VRWKV6SpatialMix',
    'VRWKVChannelMix',
    'VRWKVSpatialMix',
]
