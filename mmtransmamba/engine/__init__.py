from . import hooks, optimizers, partwise_data_parallel, schedulers

__all__ = ['hooks', 'optimizers', 'partwise_data_parallel', 'schedulers']
