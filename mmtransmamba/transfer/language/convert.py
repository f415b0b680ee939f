"""Conversion of a pre-trained causal language model to a Mamba hybrid."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, PretrainedConfig

from mmtransmamba.models.checkpoint import read_state_dict
from mmtransmamba.models.language import ATTENTION, HYBRIDS, MAMBA, choose_layers
from mmtransmamba.models.language.layer_choice import count_layers_of
from mmtransmamba.transfer.language.calibration import read_calibration
from mmtransmamba.transfer.language.plan import ConversionPlan
from mmtransmamba.transfer.language.sources import (
    InternLM2Source,
    StateDictSource,
    TensorSource,
    open_folder,
)
from mmtransmamba.transfer.subclone import SubcloneReport

INITS = {
    'mimic': dict(
        mamba_mixer='mamba2',
        mamba_d_conv=2,
        mamba_norm='per_head',
        mamba_skip=False,
    ),
    'inherit': dict(
        mamba_mixer='mamba2',
        mamba_d_conv=2,
        mamba_norm='per_head',
        mamba_skip=False,
    ),
    'vkq': dict(mamba_mixer='mamba2', mamba_d_conv=4, mamba_norm='gated'),
    'subclone': dict(mamba_mixer='mamba', mamba_d_conv=4, mamba_expand=2.0),
    'scratch': dict(
        mamba_mixer='mamba2',
        mamba_d_conv=2,
        mamba_norm='per_head',
        mamba_skip=False,
    ),
}
"""Kinds of initialisation, and the mixer of the paper that uses them."""

_INTERNLM2_FIELDS = (
    'vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads '
    'num_key_value_heads hidden_act max_position_embeddings initializer_range '
    'rms_norm_eps tie_word_embeddings bos_token_id eos_token_id pad_token_id'
).split()


def hybrid_config(
    teacher: Any,
    layers: str | Sequence[int] = 'evenly',
    ratio: float = 1.0,
    init: str = 'mimic',
    **fields: Any,
) -> Any:
    """Config of the hybrid that a Transformer's config becomes.

    Args:
        teacher: Config of a transformers model of one of the families in
            :data:`~mmtransmamba.models.language.HYBRIDS`.
        layers, ratio: See :func:`~mmtransmamba.models.language.choose_layers`.
        init: See :func:`convert_lm`.
        **fields: Fields that differ from those of the teacher or of ``init``.

    Raises:
        ValueError: Unknown family or initialisation.
    """
    if teacher.model_type not in HYBRIDS:
        raise ValueError(
            f'The teacher is a {teacher.model_type!r}; hybrids exist of '
            f'{", ".join(HYBRIDS)} and InternLM2.'
        )
    if init not in INITS:
        raise ValueError(f'init={init!r} must be one of {", ".join(INITS)}.')
    config_cls = HYBRIDS[teacher.model_type][0]
    given = teacher.to_dict() | fields
    depth = given['num_hidden_layers']
    kinds = (given.get('layer_types') or [_attention_of(teacher)] * depth)[:depth]
    chosen = choose_layers(depth, layers, ratio)
    kinds = [MAMBA if i in chosen else kind for i, kind in enumerate(kinds)]
    for name in ('model_type', 'architectures', 'transformers_version', 'dtype'):
        given.pop(name, None)
    own = INITS[init] | {
        'mamba_in_bias': _has_in_bias(teacher),
        'mamba_out_bias': _has_out_bias(teacher),
        'mamba_qk_norm': teacher.model_type == 'qwen3',
    }
    if own['mamba_mixer'] == 'mamba':
        own |= dict(mamba_in_bias=False, mamba_out_bias=False)
    return config_cls(
        **(given | own | fields | {'layer_types': kinds}),
        transfer_history=[f'init:{init}'],
    )


def _attention_of(teacher: Any) -> str:
    return (
        'sliding_attention' if getattr(teacher, 'sliding_window', None) else ATTENTION
    )


def _has_in_bias(teacher: Any) -> bool:
    return teacher.model_type in ('phi', 'qwen2') or bool(
        getattr(teacher, 'attention_bias', False)
    )


def _has_out_bias(teacher: Any) -> bool:
    return teacher.model_type == 'phi' or bool(
        getattr(teacher, 'attention_bias', False)
    )


def read_teacher(teacher: nn.Module | str | Path) -> tuple[Any, TensorSource]:
    """Config and tensors of a transformers model, or of a folder that holds one.

    The folder's weights are read one tensor at a time. An InternLM2-style folder is
    given as the Llama that it is.
    """
    if isinstance(teacher, nn.Module):
        return teacher.config, StateDictSource(teacher.state_dict())
    source = open_folder(teacher)
    raw, _ = PretrainedConfig.get_config_dict(str(teacher), local_files_only=True)
    if raw.get('model_type') != 'internlm2':
        config = AutoConfig.from_pretrained(str(teacher), local_files_only=True)
        return config, source
    config = LlamaConfig(
        **{name: raw[name] for name in _INTERNLM2_FIELDS if name in raw},
        attention_bias=raw.get('bias', False),
        rope_theta=raw.get('rope_theta', 10000.0),
        rope_scaling=raw.get('rope_scaling'),
    )
    return config, InternLM2Source(
        source, config.num_attention_heads, config.num_key_value_heads
    )


def plan_conversion(
    teacher: nn.Module | str | Path,
    layers: str | Sequence[int] = 'evenly',
    ratio: float = 1.0,
    init: str = 'mimic',
    seed: int = 0,
    mamba_checkpoint: str | Path | None = None,
    **fields: Any,
) -> ConversionPlan:
    """Check a conversion and say what it would do; see :func:`convert_lm`."""
    config, source = read_teacher(teacher)
    mamba = None
    if mamba_checkpoint is not None:
        if init != 'subclone':
            raise ValueError(
                f"mamba_checkpoint needs init='subclone', not init={init!r}."
            )
        path = Path(mamba_checkpoint)
        mamba = (
            open_folder(path)
            if path.is_dir()
            else StateDictSource(read_state_dict(path))
        )
    student = hybrid_config(config, layers, ratio, init, **fields)
    _check_heads(config, student)
    return ConversionPlan(student, source, init, seed, mamba)


def _check_heads(teacher: Any, student: Any) -> None:
    """Attention that stays keeps its meaning only if heads are dropped whole."""

    def geometry(config: Any) -> tuple[int, float]:
        heads = config.num_attention_heads
        size = getattr(config, 'head_dim', None) or config.hidden_size // heads
        return size, heads / (config.num_key_value_heads or heads)

    if set(student.layer_types) != {MAMBA} and geometry(teacher) != geometry(student):
        raise ValueError(
            'A narrower student with attention layers needs the head size and the '
            f'number of query heads per key-value head of its teacher, '
            f'{geometry(teacher)}; it has {geometry(student)}. Set head_dim, '
            'num_attention_heads and num_key_value_heads.'
        )


def convert_lm(
    teacher: nn.Module | str | Path,
    layers: str | Sequence[int] = 'evenly',
    ratio: float = 1.0,
    init: str = 'mimic',
    seed: int = 0,
    mamba_checkpoint: str | Path | None = None,
    calibration: Sequence[Tensor] | str | Path = (),
    **fields: Any,
) -> tuple[nn.Module, SubcloneReport]:
    r"""Turn a causal language model into a hybrid with Mamba layers.

    Only the attention of the chosen layers is replaced. Everything else is the
    teacher's, weights included.

    Args:
        teacher: A transformers causal language model, or its folder.
        layers, ratio: Which layers, see
            :func:`~mmtransmamba.models.language.choose_layers`; or ``'auto'``: those
            that cost least according to
            :func:`~mmtransmamba.transfer.language.rank_layers`.
        init: What the mixers begin with.

            * ``'mimic'`` (mmMamba): Mamba-2 whose x, B, C and out_proj are v, k, q and
              o, with a decay close to 1, a convolution that passes its input on, and a
              small gate;
            * ``'inherit'``: the same projections, all else as in a new Mamba-2
              (mmMamba, Table 4);
            * ``'vkq'`` (MaTVLM): the same projections in the original Mamba-2 mixer;
            * ``'subclone'`` (TransMamba): Mamba-1 mixers from ``mamba_checkpoint``,
              with a convolution drawn from a normal distribution. The student may be
              shallower (it has the first layers) and narrower (it has the top-left
              blocks) than the teacher;
            * ``'scratch'``: nothing of the attention, as in a new Mamba-2.
        seed: Seed of what is drawn.
        mamba_checkpoint: File or folder of a Mamba-1 model, for ``'subclone'``.
        calibration: Text that ``'auto'`` measures on: batches of token ids ``[B, L]``,
            or a file for :func:`~mmtransmamba.transfer.language.read_calibration`.
        **fields: Fields of the student's config that differ, such as
            ``num_hidden_layers`` or ``mamba_d_state``.

    Returns:
        The hybrid, in the teacher's dtype with float32 SSM parameters, and the account
        of every tensor.

    Raises:
        FileNotFoundError: A folder or file does not exist.
        ValueError: The teacher's family, a layer, or a shape does not fit.
    """
    if layers == 'auto':
        layers = automatic_layers(teacher, calibration, ratio, init, seed, **fields)
    plan = plan_conversion(
        teacher, layers, ratio, init, seed, mamba_checkpoint, **fields
    )
    family = plan.config.model_type.removeprefix('hybrid_')
    dtype = next(iter(read_teacher(teacher)[1].values())).dtype
    model = HYBRIDS[family][2](plan.config)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    buffers = dict(model.named_buffers())
    keep = tuple(HYBRIDS[family][2]._keep_in_fp32_modules_strict)
    with torch.no_grad():
        for name, parameter in parameters.items():
            if not name.endswith(keep):
                parameter.data = parameter.data.to(dtype)
        for name, step in plan:
            target = parameters[name] if name in parameters else buffers[name]
            target.copy_(step.make())
    model.tie_weights()
    return model.eval(), plan.report()


def automatic_layers(
    teacher: nn.Module | str | Path,
    calibration: Sequence[Tensor] | str | Path,
    ratio: float = 1.0,
    init: str = 'mimic',
    seed: int = 0,
    **fields: Any,
) -> list[int]:
    """The layers whose conversion alone costs least, and the log tells the ranking."""
    from mmtransmamba.transfer.language.ranking import rank_layers

    if isinstance(calibration, str | Path):
        folder = teacher.name_or_path if isinstance(teacher, nn.Module) else teacher
        calibration = read_calibration(calibration, folder)
    if not isinstance(teacher, nn.Module):
        teacher = AutoModelForCausalLM.from_pretrained(
            str(teacher), local_files_only=True
        )
    ranking = rank_layers(teacher, calibration, init, seed=seed, **fields)
    print_log(f'\n{ranking}', logger='current')
    count = count_layers_of(ratio, len(ranking.order))
    return sorted(ranking.order[:count])
