"""How a bridge surrounds the import of a module.

A bridge supplies what the module lacks, lets its import run, and removes the supplied
names again. :func:`install_bridges` puts a finder in front of ``sys.meta_path``, so
nothing is imported or changed before that import happens, and nothing at all if
upstream has fixed the problem.
"""

import importlib.machinery
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Bridge = Callable[[Callable[[], None]], None]
"""Takes the function that executes a module, and calls it."""

BRIDGES: dict[str, Bridge] = {}
_lasting: set[str] = set()
_bridged: set[str] = set()


def bridges(*modules: str, lasts: bool = False) -> Callable[[Bridge], Bridge]:
    """Register a bridge.

    Args:
        modules: The modules whose import it surrounds.
        lasts: Whether its changes last longer than the import, so that they can be
            made when the module has already been imported.
    """

    def register(bridge: Bridge) -> Bridge:
        for module in modules:
            BRIDGES[module] = bridge
        if lasts:
            _lasting.update(modules)
        return bridge

    return register


@contextmanager
def supplied(module: types.ModuleType, **names: Any) -> Iterator[None]:
    """Add those of ``names`` that ``module`` lacks, for the duration of the block."""
    missing = [name for name in names if not hasattr(module, name)]
    for name in missing:
        setattr(module, name, names[name])
    try:
        yield
    finally:
        for name in missing:
            delattr(module, name)


@contextmanager
def replaced(module: types.ModuleType, name: str, value: Any) -> Iterator[None]:
    """Set the attribute ``name`` of ``module`` for the duration of the block."""
    original = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, original)


class _BridgedLoader:
    """Runs the loader of a module inside its bridge."""

    def __init__(self, loader: Any, bridge: Bridge) -> None:
        self._loader = loader
        self._bridge = bridge

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> Any:
        return self._loader.create_module(spec)

    def exec_module(self, module: types.ModuleType) -> None:
        # From here on, the module is an ordinary one: pickling, inspect and
        # importlib.resources see the loader they expect.
        module.__spec__.loader = module.__loader__ = self._loader
        _bridged.add(module.__name__)
        self._bridge(lambda: self._loader.exec_module(module))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)


class _BridgeFinder:
    """Finds the modules that have a bridge, by asking the other finders."""

    def find_spec(
        self, fullname: str, path: Any = None, target: Any = None
    ) -> importlib.machinery.ModuleSpec | None:
        bridge = BRIDGES.get(fullname)
        if bridge is None:
            return None
        for finder in sys.meta_path:
            # Python 3.10 and 3.11 still accept finders without find_spec.
            if isinstance(finder, _BridgeFinder) or not hasattr(finder, 'find_spec'):
                continue
            spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _BridgedLoader(spec.loader, bridge)
                return spec
        return None


def install_bridges() -> None:
    """Make the imports of this process use the bridges; repeated calls do nothing."""
    if not any(isinstance(finder, _BridgeFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _BridgeFinder())
    # Modules imported before this package need their bridges nevertheless; bridges that
    # only last for an import come too late.
    for module in _lasting & sys.modules.keys() - _bridged:
        _bridged.add(module)
        BRIDGES[module](lambda: None)
