"""Peak memory of a step, where the system can report it."""

import gc
from pathlib import Path

import pytest

needs_resettable_peak = pytest.mark.skipif(
    not Path('/proc/self/clear_refs').exists(), reason='no resettable memory peak'
)


def peak_growth(step):
    """Peak resident bytes during a step beyond those before it, the least of three.

    Pages of other data that the system had written out return during a step.
    """
    return min(_growth(step) for _ in range(3))


def _growth(step):
    status, reset = Path('/proc/self/status'), Path('/proc/self/clear_refs')

    def read(key):
        line = next(s for s in status.read_text().splitlines() if s.startswith(key))
        return int(line.split()[1]) * 1024

    gc.collect()
    reset.write_text('5')
    before = read('VmRSS')
    step()
    return read('VmHWM') - before
