"""What was left of each limit over time, as a picture (SVG)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from html import escape

from llmproxy.core.types import Candidate
from llmproxy.simulation.engine import BEGIN
from llmproxy.simulation.upstreams import Upstreams

# How often it is looked in one run.
STEPS = 288
_ROW, _GAP, _LABELS, _WIDTH = 18, 4, 420, 720
_TICKS = 6


class Quota:
    """The shares that are left, from 0 to 1, by candidate and limit; times in seconds after the beginning."""

    def __init__(self) -> None:
        self.shares: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
        self._sources: dict[str, str] = {}

    def look(self, upstreams: Upstreams, candidates: Sequence[Candidate], at_s: float) -> None:
        """Write down what is left now."""
        for candidate in candidates:
            self._sources[candidate.key] = candidate.model.source
            for limit, share in upstreams.left(candidate, BEGIN + at_s):
                self.shares[candidate.key, limit].append((at_s, share))

    def svg(self) -> str:
        """A row for each limit; candidates of one provider that share it, or use it alike, have one row together."""
        rows: dict[tuple[str, str, tuple[tuple[float, float], ...]], list[str]] = defaultdict(list)
        for (key, limit), found in self.shares.items():
            rows[self._sources[key], limit, tuple(found)].append(key)
        end_s = max((at_s for found in self.shares.values() for at_s, _ in found), default=1.0) or 1.0
        height = (len(rows) + 1) * (_ROW + _GAP) + _GAP
        lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{_LABELS + _WIDTH + 20}" height="{height}" '
            'font-family="sans-serif" font-size="11">',
            '<rect width="100%" height="100%" fill="white"/>',
        ]
        for tick in range(_TICKS + 1):
            x = _LABELS + _WIDTH * tick / _TICKS
            lines.append(f'<text x="{x:.0f}" y="13" text-anchor="middle">{end_s * tick / _TICKS / 3600:.1f} h</text>')
        for number, ((source, limit, shares), keys) in enumerate(rows.items(), 1):
            who = keys[0] if len(keys) == 1 else f"{source} ({len(keys)} models)"
            lines += _row(number * (_ROW + _GAP), f"{who}: {limit}", shares, end_s)
        return "\n".join([*lines, "</svg>", ""])


def _row(top: int, label: str, shares: Sequence[tuple[float, float]], end_s: float) -> list[str]:
    points = " ".join(
        f"{_LABELS + _WIDTH * at_s / end_s:.1f},{top + _ROW * (1 - share):.1f}" for at_s, share in shares
    )  # fmt: skip
    ends = f"{_LABELS + _WIDTH},{top + _ROW} {_LABELS},{top + _ROW}"
    return [
        f'<text x="{_LABELS - 8}" y="{top + 13}" text-anchor="end">{escape(label)}</text>',
        f'<rect x="{_LABELS}" y="{top}" width="{_WIDTH}" height="{_ROW}" fill="#eee"/>',
        f'<polygon points="{points} {ends}" fill="#48c"><title>{escape(label)}</title></polygon>',
    ]
