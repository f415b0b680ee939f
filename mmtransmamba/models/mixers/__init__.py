from .bimamba import BiMambaMixer
from .plain_mamba import PlainMambaMixer
from .ss2d import SS2DMixer

__all__ = ['BiMambaMixer', 'PlainMambaMixer', 'SS2DMixer']
