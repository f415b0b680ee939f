"""Early detection of generation settings that transformers refuses to save."""

from __future__ import annotations

from typing import Any

from mmengine.logging import print_log
from torch import nn

# Values, besides None, at which a setting has no effect.
_SAMPLING = {
    'temperature': 1.0,
    'top_p': 1.0,
    'top_k': 50,
    'min_p': None,
    'top_h': None,
    'typical_p': 1.0,
    'epsilon_cutoff': 0.0,
    'eta_cutoff': 0.0,
}
_BEAMS = {'early_stopping': False, 'length_penalty': 1.0}
_CACHE = ('cache_implementation', 'cache_config')


def repair_generation_config(model: nn.Module) -> list[str]:
    """Change a model's generation settings so that they can be saved.

    transformers does not save contradictory settings, such as Vicuna's, which have a
    temperature but no sampling: ``save_pretrained`` would fail, only after training.
    Sampling settings are interpreted as a request to sample (``do_sample=True``),
    unless ``do_sample`` is false. In that case, and if they belong to beams or a cache
    that are not used, they are dropped. A negative padding token, as in the first
    Llama folders, is removed.

    Args:
        model: A transformers model; its ``generation_config`` is changed.

    Returns:
        Descriptions of the changes, which are also logged.

    Raises:
        ValueError: Settings contradict each other in another way.
    """
    config = getattr(model, 'generation_config', None)
    if config is None:
        return []
    done = []
    sampling = _effective(config, _SAMPLING)
    if sampling and config.do_sample is None:
        config.do_sample = True
        done.append(f'do_sample=True, as it has {", ".join(sampling)}')
    elif not config.do_sample:
        done += _drop(config, sampling, 'do_sample is false')
    if (config.num_beams or 1) == 1:
        done += _drop(config, _effective(config, _BEAMS), 'there are no beams')
    if config.use_cache is False:
        used = [name for name in _CACHE if getattr(config, name, None) is not None]
        done += _drop(config, used, 'use_cache is false')
    if config.return_dict_in_generate is not True:
        flags = getattr(config, 'extra_output_flags', ())
        used = [flag for flag in flags if getattr(config, flag, None) is True]
        done += _drop(config, used, 'return_dict_in_generate is not set')
    if isinstance(config.pad_token_id, int) and config.pad_token_id < 0:
        done += _drop(config, ['pad_token_id'], 'it is negative')
    name = type(model).__name__
    try:
        config.validate(strict=True)
    except ValueError as error:
        reason = ' '.join(str(error).split())
        raise ValueError(
            f'The generation_config of {name} could not be saved: {reason}'
        ) from error
    if done:
        print_log(
            f'The generation_config of {name} could not have been saved; changed: '
            f'{"; ".join(done)}.',
            'current',
        )
    return done


def _effective(config: Any, neutral: dict[str, Any]) -> list[str]:
    """The settings that have an effect."""
    return [
        name
        for name, value in neutral.items()
        if getattr(config, name, None) is not None and getattr(config, name) != value
    ]


def _drop(config: Any, names: list[str], why: str) -> list[str]:
    done = [f'no {name}={getattr(config, name)}, as {why}' for name in names]
    for name in names:
        setattr(config, name, None)
    return done
