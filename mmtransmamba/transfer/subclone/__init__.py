"""Weight inheritance: the first stage of the transfer."""

from .core import subclone
from .donor import Source
from .modules import subclone_into, with_target_grid
from .options import SubcloneOptions
from .report import ACTIONS, Entry, SubcloneReport, Unused
from .sources import read_mixers, read_source, read_teacher

__all__ = [
    'ACTIONS',
    'Entry',
    'Source',
    'SubcloneOptions',
    'SubcloneReport',
    'Unused',
    'read_mixers',
    'read_source',
    'read_teacher',
    'subclone',
    'subclone_into',
    'with_target_grid',
]
