from . import averaged, hooks, optimizers, partwise_data_parallel, schedulers

__all__ = ['averaged', 'hooks', 'optimizers', 'partwise_data_parallel', 'schedulers']
