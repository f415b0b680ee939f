"""Utilities, including the function that OpenMMLab tooling expects in a package."""

from .setup_env import register_all_modules

__all__ = ['register_all_modules']
