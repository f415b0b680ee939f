"""Base of the families of configs."""

from pathlib import Path

import pytest
import torch
from config_runs import CONFIG_DIR, Steps, batches_of, evaluate
from mmengine.config import Config
from torch import nn

from mmtransmamba.registry import MODELS


class Family:
    """Configs that a test shrinks and trains in the same way.

    Attributes:
        patterns: Paths of the configs below ``configs/``.
        still: Parts of the names of trained parameters that two steps of a tiny model
            may leave as they are.
    """

    patterns: tuple[str, ...]
    still: tuple[str, ...] = ()

    def configs(self) -> list[str]:
        """The names of its configs."""
        found = {path for each in self.patterns for path in CONFIG_DIR.glob(each)}
        return sorted(path.relative_to(CONFIG_DIR).as_posix() for path in found)

    def write(self, root: Path) -> None:
        """Write the tiny models and data that shrunk configs start from."""

    def shrink(self, cfg: Config, root: Path) -> Config:
        """Replace the models and data of a config by those below ``root``."""
        raise NotImplementedError

    def batches(self, cfg: Config) -> list[dict]:
        """Batches to train on: one batch twice.

        Parameters that are zero at first give no gradient to others in the first step.
        """
        return 2 * batches_of(cfg.train_dataloader, 1)

    def build(self, cfg: Config) -> nn.Module:
        torch.manual_seed(0)
        model = MODELS.build(cfg.model)
        model.init_weights()
        return model

    def may_stay(self, name: str, key: str) -> bool:
        """If training the config ``name`` may leave the parameter ``key`` as it is."""
        return any(part in key for part in self.still)

    def check_training(self, name: str, cfg: Config, model, steps: Steps) -> None:
        """Particular expectations of the trained model."""

    def check_testing(self, name: str, cfg: Config, model: nn.Module) -> None:
        """Expectations of what the model predicts: by default, of its metrics."""
        self.check_metrics(name, cfg, evaluate(cfg, model))

    def check_metrics(self, name: str, cfg: Config, metrics: dict[str, float]) -> None:
        raise NotImplementedError

    def shorten(self, cfg: Config) -> Config:
        """Make a shrunk config's run short, with all of its hooks at work."""
        raise NotImplementedError

    def count_parameters(self, cfg: Config) -> int:
        """Parameters of the model, in its real size, that remains after training."""
        pytest.fail(f'{type(self).__name__} has no count')
