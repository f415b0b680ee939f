"""Choice of a backbone's dimensions: a published name, or a custom dict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def resolve_arch(
    backbone: str, arch: str | dict[str, Any], table: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """Dimensions of ``arch``.

    Args:
        backbone: Registry name, for error messages.
        arch: A name in ``table`` (case does not matter) or a dict of dimensions. A key
            may be omitted only if every entry of the table has the same value for it.
        table: Published architectures; all have the same keys.

    Returns:
        A new dict with exactly the keys of the table's entries.

    Raises:
        ValueError: Unknown name, unknown or missing keys, or neither.
    """
    if isinstance(arch, str):
        by_name = {name.lower(): name for name in table}
        if arch.lower() not in by_name:
            raise ValueError(
                f"{backbone}: unknown arch '{arch}', choose one of "
                f'{", ".join(table)} or give a dict of dimensions.'
            )
        return dict(table[by_name[arch.lower()]])
    if not isinstance(arch, Mapping):
        raise ValueError(
            f'{backbone}: arch={arch!r} must be one of {", ".join(table)} or a dict '
            'of dimensions.'
        )
    entries = list(table.values())
    common = {
        key: value
        for key, value in entries[0].items()
        if all(entry[key] == value for entry in entries)
    }
    settings = {**common, **arch}
    unknown = sorted(set(settings) - set(entries[0]))
    missing = sorted(set(entries[0]) - set(settings))
    if unknown or missing:
        raise ValueError(
            f'{backbone}: the arch dict takes the keys {", ".join(entries[0])}'
            + (f'; unknown: {", ".join(unknown)}' if unknown else '')
            + (f'; missing: {", ".join(missing)}' if missing else '')
            + '.'
        )
    return settings
