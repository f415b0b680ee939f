"""Folders of transformers models: reading them, and assembling models from them."""

from .assemble_llava import assemble_llava
from .assemble_patch_decoder import assemble_patch_decoder, write_patch_decoder
from .encoder import is_encoder, load_encoder
from .gguf import load_gguf, load_gguf_tokenizer
from .hub import model_folder
from .lm import load_lm
from .loading import load_folder
from .vlm import is_vision_language, language_model_of, load_vlm

__all__ = [
    'assemble_llava',
    'assemble_patch_decoder',
    'is_encoder',
    'is_vision_language',
    'language_model_of',
    'load_encoder',
    'load_folder',
    'load_gguf',
    'load_gguf_tokenizer',
    'load_lm',
    'load_vlm',
    'model_folder',
    'write_patch_decoder',
]
