"""The conversions that models look up when they are built."""

from mmtransmamba.registry import CONVERSIONS
from mmtransmamba.transfer.language import convert_lm
from mmtransmamba.transfer.vision_language import convert_vlm

CONVERSIONS.register_module('language', module=convert_lm)
CONVERSIONS.register_module('vision_language', module=convert_vlm)
