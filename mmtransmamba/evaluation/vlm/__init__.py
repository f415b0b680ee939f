"""Benchmarks of vision-language models: questions, answers and scores."""

from .ai2d import AI2DMetric, load_ai2d
from .benchmarks import (
    BENCHMARKS,
    Benchmark,
    Known,
    Provider,
    Result,
    from_files,
    from_model,
    run_benchmark,
    score,
)
from .gqa import GQAMetric, load_gqa
from .images import find_images
from .mathvista import MathVistaMetric, load_mathvista
from .metric import AnswerMetric
from .mm_vet import MMVetMetric, load_mm_vet
from .mmbench import MMBenchMetric, load_mmbench
from .mme import MMEMetric, load_mme
from .mmmu import MMMUMetric, load_mmmu
from .pope import POPEMetric, load_pope
from .predictions import (
    PredictionError,
    generate_predictions,
    match_predictions,
    read_predictions,
)
from .sample import VLMSample, load_images
from .science_qa import ScienceQAMetric, load_science_qa
from .seed_bench import SEEDBenchMetric, load_seed_bench
from .textvqa import TextVQAMetric, load_textvqa
from .vqav2 import VQAv2Metric, load_vqav2

__all__ = [
    'AI2DMetric',
    'AnswerMetric',
    'BENCHMARKS',
    'Benchmark',
    'GQAMetric',
    'Known',
    'MMBenchMetric',
    'MMEMetric',
    'MMMUMetric',
    'MMVetMetric',
    'MathVistaMetric',
    'POPEMetric',
    'PredictionError',
    'Provider',
    'Result',
    'SEEDBenchMetric',
    'ScienceQAMetric',
    'TextVQAMetric',
    'VLMSample',
    'VQAv2Metric',
    'find_images',
    'from_files',
    'from_model',
    'generate_predictions',
    'load_ai2d',
    'load_gqa',
    'load_images',
    'load_mathvista',
    'load_mm_vet',
    'load_mmbench',
    'load_mme',
    'load_mmmu',
    'load_pope',
    'load_science_qa',
    'load_seed_bench',
    'load_textvqa',
    'load_vqav2',
    'match_predictions',
    'read_predictions',
    'run_benchmark',
    'score',
]
