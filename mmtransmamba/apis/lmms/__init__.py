"""Models of this package in lmms-eval.

With both packages installed ``--model mmtransmamba`` is there without further ado: the
entry point ``lmms_eval.models`` names :func:`manifest`.
"""

from __future__ import annotations

from typing import Any

__all__ = ['manifest']


def manifest() -> Any:
    """What lmms-eval has to know of the model; it calls this when it starts.

    Returns:
        Its ``ModelManifest``.
    """
    # Only lmms-eval itself gets here, so that nothing else needs it.
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(
        model_id='mmtransmamba',
        chat_class_path='mmtransmamba.apis.lmms.model.MMTransMamba',
    )
