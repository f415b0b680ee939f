from . import (
    averaged,
    hooks,
    optimizers,
    partwise_data_parallel,
    schedulers,
    sharding,
)

__all__ = [
    'averaged',
    'hooks',
    'optimizers',
    'partwise_data_parallel',
    'schedulers',
    'sharding',
]
