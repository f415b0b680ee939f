"""Model folders in the layouts in which others have published theirs.

Each module reads one layout: it checks the fields of the config, gives the config of
the same model here, and lists where each published tensor goes.
"""

from .layouts import Published, is_published_vlm, read_published
from .processors import published_processor

__all__ = ['Published', 'is_published_vlm', 'published_processor', 'read_published']
