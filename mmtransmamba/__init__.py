"""Transfer pre-trained Transformers into Mamba-family models.

Importing the package costs milliseconds: it only makes sure that the OpenMMLab
packages can be imported (see :mod:`mmtransmamba.compat`).
"""

from .compat import check_distributions, install_bridges
from .version import __version__

check_distributions()
install_bridges()

__all__ = ['__version__']
