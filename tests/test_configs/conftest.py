from collections.abc import Iterator

import pytest
from mmengine.registry import DefaultScope


@pytest.fixture(autouse=True)
def scope(request) -> Iterator[None]:
    """What the Runner does with ``default_scope``, which a module names in SCOPE."""
    scope = getattr(request.module, 'SCOPE', 'mmengine')
    with DefaultScope.overwrite_default_scope(scope):
        yield
