from .multi_direction import MultiDirectionDistiller

__all__ = ['MultiDirectionDistiller']
