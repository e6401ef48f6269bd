"""Draw delay against polls: docs/explanation/waiting.svg, from the schedules that the client uses.

Run by hand: pip install matplotlib && python bench/frontier.py.  Tasks are lognormal with mean 1 s and sigma 0.5, as in
bench/waiting.py.  Nothing is measured: the figure is arithmetic, and the same on every machine.
"""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
from matplotlib import pyplot as plt

from fluxwerk.polling import schedule
from fluxwerk.polling.histogram import Histogram, bin_of
from fluxwerk.protocol import retry

MEAN_LOG, SIGMA = -0.125, 0.5
DRAWS = 20_000
INK, ORANGE, BLUE, GREY = "#1f2933", "#d9480f", "#1864ab", "#868e96"


def known() -> Histogram:
    """Return a histogram that knows the distribution as well as bins of two percent can."""
    dice, histogram = random.Random(1), Histogram()
    for _ in range(DRAWS):
        number = bin_of(dice.lognormvariate(MEAN_LOG, SIGMA))
        histogram.bins[number] = histogram.bins.get(number, 0.0) + 1
    return histogram


def running(at: float) -> float:
    """Return the share of tasks that is still running `at` seconds after the submit."""
    return 1.0 if at <= 0 else 0.5 * math.erfc((math.log(at) - MEAN_LOG) / (SIGMA * math.sqrt(2)))


def cost(moments: list[float]) -> tuple[float, float]:
    """Return polls and mean delay in seconds for polls at these moments, exactly."""
    polls = delay = at = 0.0
    for then in moments:
        share = running(at)
        polls += share
        steps = 40
        for step in range(steps):
            middle = at + (then - at) * (step + 0.5) / steps
            delay += (share - running(middle)) * (then - at) / steps
        at = then
    return polls, delay


def moments(pause: Any, until: float = 8.0) -> list[float]:
    """Return the polls of a plan until every task has ended; `pause` returns the pause after a poll at that time."""
    found, at = [], 0.0
    while at < until:
        at += pause(at)
        found.append(at)
    return found


def main() -> None:
    """Write the figure, and print its numbers."""
    histogram = known()
    prices = [0.003, 0.005, 0.007, schedule.CROWD_PRICE, 0.012, schedule.PRICE, 0.02, 0.03, 0.05]
    best = {price: schedule.schedule(histogram, price) for price in prices}
    optimum = {price: cost(moments(made.after)) for price, made in best.items() if made}
    steady = [cost(moments(lambda _, gap=gap: gap)) for gap in (0.08, 0.1, 0.125, 0.15, 0.2, 0.25, 0.35, 0.5)]
    plan = retry.geometric()
    unlearned = cost(moments(lambda _: plan(None)))
    for price, (polls, delay) in optimum.items():
        print(f"price {price:.4f} s: {polls:.2f} polls, {delay * 1e3:.0f} ms, {delay:.1%} of a slot")

    mpl.rcParams.update({"svg.hashsalt": "fluxwerk", "font.family": "sans-serif", "font.size": 10, "text.color": INK})
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    times = [number / 100 for number in range(1, 350)]
    density = [(running(at - 0.005) - running(at + 0.005)) / 0.01 for at in times]
    left.fill_between(times, density, color=BLUE, alpha=0.15, linewidth=0)
    left.plot(times, density, color=BLUE, linewidth=1.5)
    for price, height, name, colour in (
        (schedule.CROWD_PRICE, -0.08, "another submit waits for the slot", ORANGE),
        (schedule.PRICE, -0.2, "no submit waits for it", INK),
    ):
        made = best[price]
        assert made is not None
        ticks = [at for at in moments(made.after) if at < 3.4]
        left.plot(ticks, [height] * len(ticks), "|", color=colour, markersize=9, markeredgewidth=1.4, label=name)
    left.set(
        xlabel="seconds since the submit",
        ylabel="density of task ends",
        xlim=(0, 3.4),
        ylim=(-0.3, 1.1),
        yticks=[0, 0.5, 1],
    )
    left.set_title("When the client polls")
    left.legend(frameon=False, loc="upper right")
    right.plot(*_milliseconds(list(optimum.values())), "o-", color=ORANGE, label="learned: the optimum")
    right.plot(*_milliseconds(steady), "s--", color=GREY, label="at a fixed interval")
    right.plot([unlearned[0]], [unlearned[1] * 1e3], "^", color=BLUE, markersize=8, label="without history: geometric")
    right.axhline(50, color=INK, linewidth=0.8, linestyle=":")
    right.text(2.15, 56, "5 % of a slot", fontsize=9)
    right.set(xlabel="polls a task", ylabel="mean ms from ready to seen", xlim=(2, 14), ylim=(0, 330))
    right.set_title("Delay against polls")
    right.legend(frameon=False)
    for panel in (left, right):
        panel.spines[["top", "right"]].set_visible(False)
    file = Path(__file__).parent.parent / "docs/explanation/waiting.svg"
    figure.savefig(file, metadata={"Date": None, "Creator": None})
    text = file.read_text()
    file.write_text("\n".join(line.rstrip() for line in text.split("\n")))
    print(f"written: {file.name}")


def _milliseconds(points: list[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [polls for polls, _ in points], [delay * 1e3 for _, delay in points]


if __name__ == "__main__":
    main()
