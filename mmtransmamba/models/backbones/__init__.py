from .plain_mamba import PlainMamba

__all__ = ['PlainMamba']
