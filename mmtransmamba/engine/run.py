"""The Runner of a config that is complete."""

import time
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from mmengine.visualization import Visualizer

from mmtransmamba.compat import quiet_logger


def build_runner(cfg: Config) -> Runner:
    """The Runner of a complete config, of the type that the config specifies.

    Unless the config names the experiment, its name contains the work directory:
    mmengine names it by config and second, and runs of one name share their log.
    For the same reason a run waits for a second in which its work directory has no
    records yet: one that goes on at once would overwrite the log of the one before.

    A visualizer that another run of this process has taken the name of would write
    into that run's folder; it is named by the experiment instead.
    """
    while (Path(cfg.work_dir) / time.strftime('%Y%m%d_%H%M%S')).exists():
        time.sleep(0.05)
    if not cfg.get('experiment_name'):
        cfg.experiment_name = str(Path(cfg.work_dir).absolute())
    visualizer = cfg.get('visualizer') or {}
    if Visualizer.check_instance_created(visualizer.get('name', '')):
        del visualizer['name']
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    quiet_logger(runner.logger)
    return runner
