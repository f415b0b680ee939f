"""Models that are saved and uploaded with their card."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mmtransmamba.models.card import CARD, CardFacts, read_rows, write_card

_LOADED = 'figures'


class CardMixin:
    """Saves and uploads a transformers model with the card of a converted model.

    A card that is already in the folder, or on the hub, is kept.

    Attributes:
        card: What the card says beyond the config. Without it, the facts are those in
            the card of the folder from which the model was loaded.
    """

    card: CardFacts | None = None

    def save_pretrained(
        self,
        save_directory: str | os.PathLike,
        is_main_process: bool = True,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Like transformers', with a model card."""
        super().save_pretrained(save_directory, is_main_process, *args, **kwargs)
        if is_main_process:
            name = Path(save_directory).absolute().name
            self._write_card(save_directory, name)

    def _upload_modified_files(
        self, working_dir: str | os.PathLike, repo_id: str, *args: Any, **kwargs: Any
    ) -> Any:
        """Like transformers', which has just written an empty card if there was none.

        Every upload passes through here, so no other method has to be replaced.
        """
        from huggingface_hub import HfApi, ModelCard

        path = Path(working_dir) / CARD
        if not HfApi().file_exists(repo_id, CARD, token=kwargs.get('token')):
            tags = ModelCard.load(path).data.tags or ()
            self._write_card(working_dir, repo_id, tuple(tags), replace=True)
        return super()._upload_modified_files(working_dir, repo_id, *args, **kwargs)

    def card_facts(self) -> CardFacts:
        """What the card says beyond the config."""
        if self.card is not None:
            return self.card
        source = self.name_or_path or None
        rows = read_rows(source)
        if rows:
            loaded = f'those above are of `{Path(source).absolute().name}`'
            rows[_LOADED] = f'{loaded}, from which this model was loaded'
        return CardFacts(source, rows)

    def _write_card(
        self, folder: str | os.PathLike, name: str, tags: tuple[str, ...] = (), **kwargs
    ) -> None:
        facts = self.card_facts()
        write_card(
            folder, name, self.config, facts.teacher, facts.rows, tags=tags, **kwargs
        )
