"""Models of this package in lmms-eval.

With both packages installed, ``--model mmtransmamba`` is available: the entry point
``lmms_eval.models`` names :func:`manifest`.
"""

from __future__ import annotations

from typing import Any

__all__ = ['manifest']


def manifest() -> Any:
    """The manifest of the model, which lmms-eval requests when it starts.

    Returns:
        Its ``ModelManifest``.
    """
    # Only lmms-eval calls this, so nothing else depends on lmms-eval.
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(
        model_id='mmtransmamba',
        chat_class_path='mmtransmamba.apis.lmms.model.MMTransMamba',
    )
