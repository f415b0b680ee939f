from .wsd import WSD, WSDParamScheduler

__all__ = ['WSD', 'WSDParamScheduler']
