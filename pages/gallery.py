"""Renders a page with a card for each of several plans, linking to their pages."""

from collections.abc import Mapping
from typing import Any

from ..compiler.as_written import at_most
from ..compiler.ids import StageId, rounds
from ..compiler.plan.plan import Plan, Sources
from ..spec.schema.recipe import STAGES
from .page import render
from .series import picture


def gallery(title: str, plans: Mapping[str, Plan]) -> str:
    """The complete HTML page; the linked pages come from `page.page`.

    Args:
        plans: addresses of the pages, relative to this one → the plans that they show.
    """
    cards = [_card(address, plan) for address, plan in plans.items()]
    counts = [plan.sources for plan in plans.values() if plan.sources]
    sources = Sources(
        **{name: sum(getattr(each, name) for each in counts) for name in Sources.model_fields}
    )
    return render(
        "gallery.jinja",
        {"pictures": [card["picture"] for card in cards]},
        title=title,
        cards=cards,
        sources=sources,
        claims=sum(card["claims"] for card in cards),
        held=sum(card["held"] for card in cards),
        contradicted=sum(card["contradicted"] for card in cards),
    )


def _card(address: str, plan: Plan) -> dict[str, Any]:
    jobs = plan.trained()
    lengths = sorted({job.seq_len for job in jobs})
    return {
        "address": address,
        "plan": plan,
        "path": _path(plan),
        "at_most": at_most(*(job.rows for job in jobs)),
        "cost": jobs[0].cost,
        "resources": max((job.resources for job in jobs), key=lambda of: of.world_size),
        "claims": len(plan.claims),
        "held": sum(claim.holds for claim in plan.claims),
        "contradicted": sum(claim.contradicted is not None for claim in plan.claims),
        "off": max((abs(claim.off) for claim in plan.claims if claim.holds), default=0.0),
        "lengths": lengths,
        "rate": max(piece.start for job in jobs for piece in job.schedule.lr),
        "picture": picture(plan),
    }


def _leads_on(kind: str) -> bool:
    """Whether other stages take the result of this kind by default or as data."""
    model = STAGES.get(kind)
    return model is None or model.continued or model.scores or bool(model.offers)


def _path(plan: Plan) -> str:
    """The stages in running order, rounds as one: `pretrain · anneal · align × 6`."""
    names = [
        StageId.parse(name).rounds or name
        for name, stage in plan.stages.items()
        if _leads_on(stage.kind)
    ]
    repeated = rounds(plan.stages)
    return " · ".join(
        name + (f" × {repeated[name]}" if name in repeated else "") for name in dict.fromkeys(names)
    )
