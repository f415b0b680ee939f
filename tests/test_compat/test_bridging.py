"""How a bridge surrounds the import of a module."""

import sys
import types

from mmtransmamba.compat import bridging


def test_bridged_module_keeps_its_own_loader(tmp_path, monkeypatch):
    (tmp_path / 'bridged_example.py').write_text('value = supplied')
    monkeypatch.syspath_prepend(tmp_path)
    order = []

    def bridge(execute):
        order.append('before')
        with bridging.supplied(sys.modules['builtins'], supplied=3):
            execute()
        order.append('after')

    monkeypatch.setitem(bridging.BRIDGES, 'bridged_example', bridge)
    bridging.install_bridges()
    import bridged_example

    assert bridged_example.value == 3
    assert order == ['before', 'after']
    assert not hasattr(sys.modules['builtins'], 'supplied')
    assert type(bridged_example.__loader__).__name__ == 'SourceFileLoader'
    assert bridged_example.__spec__.loader is bridged_example.__loader__
    del sys.modules['bridged_example']


def test_supplied_keeps_what_upstream_has():
    module = types.ModuleType('upstream')
    module.fixed = 'upstream'
    with bridging.supplied(module, fixed='bridge', missing='bridge'):
        assert module.fixed == 'upstream'
        assert module.missing == 'bridge'
    assert module.fixed == 'upstream'
    assert not hasattr(module, 'missing')


def test_installing_twice_adds_one_finder():
    bridging.install_bridges()
    bridging.install_bridges()
    finders = [f for f in sys.meta_path if isinstance(f, bridging._BridgeFinder)]
    assert len(finders) == 1
