"""Bidirectional WKV of RWKV v4 and v6: one file per backend behind one interface."""

from .interface import bi_wkv, bi_wkv6

__all__ = ['bi_wkv', 'bi_wkv6']
