"""How the Triton kernels divide the WKV, a function of its shapes alone.

A table replaces tuning at the first call: there is no stall, and every process sums in
the same order and returns the same bits. The numbers follow from counts of registers,
see ``docs/kernels.md``; they were not measured.
"""

WARP = 32
"""Channels of a program, one for every lane."""
PIECE = 8
"""Tokens of a piece of the sequence in ``bi_wkv``. With twice as many the gradients'
kernel would run out of registers, and kernels would take four times as long to
compile."""
UNGROUPED = 512
"""Pieces up to which one program carries all of them."""
GROUP = 64
"""Pieces that one program carries where there are more."""
ROWS = 16
"""Keys of a tile of a state in ``bi_wkv6``, whose operands are loaded at once."""
COLUMNS = 4
"""Columns whose states the gradients' kernel keeps for all steps of a tile. With eight,
136 bytes of a lane do not fit in its registers."""
TILE = 8
"""Steps of a tile; the states of a tile's steps fit in registers."""
MAX_WIDTH = 64
"""Of a head: its state is kept in registers."""
