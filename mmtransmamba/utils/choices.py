"""Choices of command-line options, importable without heavy dependencies.

The modules that implement them import them from here.
"""

LAUNCHERS = ('none', 'pytorch', 'slurm', 'mpi')
"""Who starts the processes of a distributed run: :mod:`mmtransmamba.utils.launch`."""

STRATEGIES = ('ddp', 'fsdp', 'deepspeed')
"""How several devices train one model: :mod:`mmtransmamba.utils.strategies`."""

POSITIONS = (
    'evenly',
    'early',
    'middle',
    'late',
    'interleaved_head',
    'interleaved_tail',
)
"""Where Mamba layers lie: :func:`mmtransmamba.models.language.choose_layers`."""

INITS = ('mimic', 'inherit', 'vkq', 'calibrate', 'subclone', 'scratch')
"""Initialisations: :func:`mmtransmamba.transfer.convert.convert`."""

ENCODER_INITS = ('mimic', 'calibrate', 'vkq', 'scratch')
"""Those of vision encoders."""

RANKINGS = ('single', 'greedy', 'recall', 'gates')
"""Ways to rank layers: :func:`mmtransmamba.transfer.convert.rank_layers`."""

PROBES = ('text', 'recall')
"""Measurements that rankings use: :mod:`mmtransmamba.transfer.convert.probes`."""

UNITS = ('layers', 'heads')
"""What rankings consist of: layers, or single key-value heads of all layers."""

RECIPES = (
    *('calibrated', 'lolcats', 'matvlm', 'mmmamba', 'radlads', 'radlads_long'),
    'transmamba',
)
"""Recipes in ``configs/_base_/recipes/language``: :mod:`mmtransmamba.apis.recipes`."""

VLM_BENCHMARKS = (
    *('pope', 'mme', 'mmbench', 'seed_image', 'mmmu', 'ai2d', 'ai2d_no_mask'),
    *('mathvista', 'scienceqa_img', 'textvqa', 'gqa', 'vqav2', 'vqav2_testdev'),
    'mm_vet',
)
"""Benchmarks of vision-language models: :mod:`mmtransmamba.evaluation.vlm`."""

LM_BENCHMARKS = (
    *('arc_challenge', 'arc_challenge_val', 'arc_easy', 'arc_easy_val', 'boolq'),
    *('commonsense_qa', 'copa', 'hellaswag', 'lambada_openai', 'openbookqa_val'),
    *('piqa', 'sciq', 'social_iqa', 'winogrande'),
)
"""Benchmarks of language models: :mod:`mmtransmamba.evaluation.language`."""

LM_GENERATED = ('copy', 'mqar', 'needle', 'parity', 'passkey', 'permutation')
"""Generated benchmarks: :mod:`mmtransmamba.evaluation.language.generated`."""

LM_GROUPS = ('state_tracking',)
"""Names for several of them."""
