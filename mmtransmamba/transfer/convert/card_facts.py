"""What a conversion adds to the model card."""

from __future__ import annotations

from mmtransmamba.models.card import CardFacts
from mmtransmamba.transfer.convert.plan import Plan
from mmtransmamba.transfer.subclone import SubcloneReport


def card_facts(plan: Plan, report: SubcloneReport) -> CardFacts:
    """The teacher, how much is inherited, and the comparison with it if there is one.

    Args:
        plan: The plan of the conversion.
        report: Its report.
    """
    teacher = plan.teacher
    source = teacher.path or getattr(teacher, 'file', None)
    if source is None:
        source = teacher.load().name_or_path or None
    rows = {'inherited': f'{report.totals()["inherited_percent"]} % of the values'}
    if report.proof is not None:
        rows['before training'] = str(report.proof)
    return CardFacts(source, rows)
