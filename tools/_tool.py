"""The start of every tool: finds the package, and what all command lines share.

A clean checkout needs no installation of the package itself.
"""

import sys
from pathlib import Path

_ROOT = Path(__file__).absolute().parents[1]
if (_ROOT / 'mmtransmamba' / '__init__.py').is_file():
    sys.path.insert(0, str(_ROOT))

from mmtransmamba.utils.command import KeyValues, Parser, tool
from mmtransmamba.utils.numbers import natural, positive, real, seed_number, whole

__all__ = [
    'KeyValues',
    'Parser',
    'natural',
    'positive',
    'real',
    'seed_number',
    'tool',
    'whole',
]
