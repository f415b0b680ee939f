from .plain_mamba import PlainMambaMixer

__all__ = ['PlainMambaMixer']
