"""Bridges and a filter against messages that users cannot act upon."""

import logging
import warnings
from collections.abc import Callable
from importlib import import_module

from .bridging import bridges, replaced


@bridges('mmpretrain.datasets', 'mmseg.datasets', 'mmdet.datasets')
def _drop_debug_print_of_datasets(execute: Callable[[], None]) -> None:
    """The forks print a debug message about an optional package to stdout.

    ``print_log`` without a logger prints regardless of the level.
    """
    mmengine_logging = import_module('mmengine.logging')
    print_log = mmengine_logging.print_log

    def print_log_above_debug(msg, logger=None, level=logging.INFO):
        if logger is not None or level > logging.DEBUG:
            print_log(msg, logger, level)

    with replaced(mmengine_logging, 'print_log', print_log_above_debug):
        execute()


@bridges('mmcv.cnn.bricks.transformer')
def _quiet_missing_mmcv_ops(execute: Callable[[], None]) -> None:
    """mmcv from a plain ``pip install`` has no compiled ops and warns at import.

    Nothing here uses deformable attention. mmdet does, and raises its own error.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', 'Fail to import ``MultiScaleDeformable')
        execute()


@bridges('mmdet.models.dense_heads.clr_head.clr_head')
def _quiet_missing_line_nms(execute: Callable[[], None]) -> None:
    """mmdet warns in the log that a lane detector needs mmcv's compiled ops.

    mmseg, which needs none, imports mmdet where it is installed.
    """
    logger = import_module('mmengine.logging').MMLogger.get_current_instance()

    def not_line_nms(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith('Line NMS is not compiled')

    logger.addFilter(not_line_nms)
    try:
        execute()
    finally:
        logger.removeFilter(not_line_nms)


@bridges('mmdet.evaluation.metrics.faster_coco_metric')
def _quiet_missing_faster_coco_eval(execute: Callable[[], None]) -> None:
    """mmdet warns that an optional, faster metric is not installed."""
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', 'faster_coco_eval is not installed')
        execute()


class _Notices(logging.Filter):
    """mmengine's hooks use functions that mmengine has deprecated, and its optimizers
    list every frozen parameter, of which a stage's table shows the groups."""

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        return not (
            message.startswith(('"FileClient" will be', '"HardDiskBackend" is'))
            or message.endswith(' is skipped since its requires_grad=False')
        )


def quiet_logger(logger: logging.Logger) -> None:
    """Keep notices that users cannot act upon out of a Runner's log."""
    logger.addFilter(_Notices())
