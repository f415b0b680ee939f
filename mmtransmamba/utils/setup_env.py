"""Registration of everything at once, for callers without a config."""


def register_all_modules(init_default_scope: bool = True) -> None:
    """Import every module of the package that registers something.

    Configs do not need this; ``mmengine.hub.get_model`` calls it.

    Args:
        init_default_scope: Make ``mmtransmamba`` the default scope, in which
            types without a scope are looked up.
    """
    # Command lines import this package, and respond before mmengine is loaded.
    from mmengine.registry import Registry
    from mmengine.registry import init_default_scope as set_default_scope

    from mmtransmamba import registry

    for name in registry.__all__:
        node = getattr(registry, name)
        if isinstance(node, Registry):
            node.import_from_location()
    if init_default_scope:
        set_default_scope(registry.SCOPE)
