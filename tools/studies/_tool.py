"""``tools/_tool.py``, for the scripts of this folder."""

import sys
from importlib import import_module
from pathlib import Path

# Python finds modules beside a script, but not above it. This module replaces itself
# with the one of the same name above: an import returns the final entry of sys.modules.
sys.path.insert(0, str(Path(__file__).absolute().parents[1]))
del sys.modules[__name__]
import_module(__name__)
