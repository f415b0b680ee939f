"""Families of configs, and how each is shrunk so that a test can train it."""

from config_families.base import Family
from config_families.encoders import Encoders
from config_families.images import Images
from config_families.language import Language
from config_families.llava import Llava
from config_families.patch_decoders import PatchDecoders
from config_families.reasoning import Reasoning
from config_families.videos import Videos
from config_families.words import Words

FAMILIES: tuple[Family, ...] = (
    Images(),
    Encoders(),
    Videos(),
    Language(),
    Llava(),
    PatchDecoders(),
    Reasoning(),
    Words(),
)
FAMILY_OF = {name: family for family in FAMILIES for name in family.configs()}
"""The family of each config, by its path below ``configs/``."""
