from .curves import RunScalars, plot_layer_weights, plot_runs, read_scalars

__all__ = ['RunScalars', 'plot_layer_weights', 'plot_runs', 'read_scalars']
