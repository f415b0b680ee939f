"""Common start of all tools: finds the package, and imports the shared command line.

A clean checkout works without installing the package itself.
"""

import sys
from pathlib import Path

_ROOT = Path(__file__).absolute().parents[1]
if (_ROOT / 'mmtransmamba' / '__init__.py').is_file():
    sys.path.insert(0, str(_ROOT))

from mmtransmamba.utils.command import EachOnce, KeyValues, Parser, parse_run, tool
from mmtransmamba.utils.numbers import natural, positive, real, seed_number, whole
from mmtransmamba.utils.out_paths import out_file, out_folder

__all__ = [
    'EachOnce',
    'KeyValues',
    'Parser',
    'natural',
    'out_file',
    'out_folder',
    'parse_run',
    'positive',
    'real',
    'seed_number',
    'tool',
    'whole',
]
