"""``tools/_tool.py``, for the scripts of this folder."""

import sys
from importlib import import_module
from pathlib import Path

# Python finds modules beside a script, not above it. From here on the module of this
# name is the one above: an import gives what stands in sys.modules at its end.
sys.path.insert(0, str(Path(__file__).absolute().parents[1]))
del sys.modules[__name__]
import_module(__name__)
