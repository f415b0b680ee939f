from .bimamba import BiMambaMixer
from .plain_mamba import PlainMambaMixer

__all__ = ['BiMambaMixer', 'PlainMambaMixer']
