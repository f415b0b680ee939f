"""Metrics of evaluations as data that any reader of JSON or YAML takes."""

import json

import numpy as np
import torch
import yaml

from mmtransmamba.utils.metrics import plain_metrics


def test_numbers_of_numpy_and_pytorch_become_python_s():
    metrics = dict(
        mIoU=np.float64(70.5), per_class=np.arange(2), loss=torch.tensor(0.5), name='x'
    )
    plain = plain_metrics(metrics)
    assert plain == dict(mIoU=70.5, per_class=[0, 1], loss=0.5, name='x')
    assert yaml.safe_load(yaml.dump(plain)) == json.loads(json.dumps(plain)) == plain
