"""Generated questions about pictures of coloured shapes."""

from .dataset import ShapesCells, ShapesVQA
from .questions import CATEGORIES, words
from .scenes import split_of

__all__ = ['CATEGORIES', 'ShapesCells', 'ShapesVQA', 'split_of', 'words']
