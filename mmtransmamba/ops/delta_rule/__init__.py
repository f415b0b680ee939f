"""The gated delta rule (Gated DeltaNet, KDA): one file per backend."""

from .interface import gated_delta_rule, gated_delta_rule_step, kda, kda_step

__all__ = ['gated_delta_rule', 'gated_delta_rule_step', 'kda', 'kda_step']
