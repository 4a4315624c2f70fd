#!/usr/bin/env python3
"""Goals by Olive's own functions: tests/golden/goals.json.

    OLIVE_DISABLE_TELEMETRY=1 python3 tools/oracle/goal_goldens.py

Of every kind of goal, value, baseline and direction: the limit (Engine.resolve_goals), and which of some figures meet
it (SearchResults.meets_goals).  Then orders of candidates by priorities under such goals, as Olive's search ends:
those that meet all (SearchResults.sort), and all if none does.
Needs olive-ai 0.13.
"""
import itertools
import json
import pathlib
import types

import numpy as np
from olive.engine.engine import Engine
from olive.evaluator.metric_config import MetricGoal
from olive.search.search_results import SearchResults

OUT = pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden" / "goals.json"
KINDS = ["threshold", "min-improvement", "percent-min-improvement", "max-degradation", "percent-max-degradation"]


class FakeMetric:
    """What resolve_goals asks of a metric."""

    def __init__(self, goal, higher, anchor):
        self.name = "m"
        self.infos = {"goal": {"s": goal, "z": anchor}, "higher_is_better": {"s": higher, "z": False}}

    def get_sub_type_info(self, info_name, callback=lambda x: x):
        return {k: callback(v) for k, v in self.infos[info_name].items()}


def limit(kind, value, higher, baseline):
    measured = types.SimpleNamespace(get_value=lambda metric, sub: baseline)
    engine = types.SimpleNamespace(evaluator_config=object(), _evaluate_model=lambda *args: measured)
    # the second figure's goal makes it look at the baseline, which a threshold alone does not
    anchor = MetricGoal(type="max-degradation", value=0)
    metric = FakeMetric(MetricGoal(type=kind, value=value), higher, anchor)
    return Engine.resolve_goals(engine, None, "id", [metric], None)["m-s"]


def results(objectives, rows):
    found = SearchResults(objectives)
    for i, row in enumerate(rows):
        found.record_feedback_signal(
            i, {name: types.SimpleNamespace(value=v) for name, v in zip(objectives, row)}, [f"model{i}"])
    return found


def limits():
    cases = []
    for kind, value, baseline, higher in itertools.product(
            KINDS, [0, 0.5, 2, 25, 100, 150], [-3, 0, 0.75, 8, 1000], [True, False]):
        at = limit(kind, value, higher, baseline)
        figures = [at, np.nextafter(at, -np.inf), np.nextafter(at, np.inf), at - 1, at + 1, baseline]
        objectives = {"m": {"priority": 1, "goal": at, "higher_is_better": higher}}
        found = results(objectives, [[float(f)] for f in figures])
        cases.append({"kind": kind, "value": value, "baseline": baseline, "higher_is_better": higher, "limit": at,
                      "figures": [float(f) for f in figures], "met": [found.meets_goals(i) for i in range(len(figures))]})
    return cases


def orders():
    rng = np.random.default_rng(7)
    cases = []
    for case in range(40):
        count, n = int(rng.integers(1, 4)), int(rng.integers(2, 9))
        objectives = {f"m{k}": {"priority": k + 1, "higher_is_better": bool(rng.integers(2))} for k in range(count)}
        rows = rng.integers(0, 4, (n, count)).astype(float)
        for name in objectives:
            if rng.integers(2):
                objectives[name]["goal"] = float(rng.integers(0, 4))
        found = results(objectives, rows)
        if not found.sort(apply_goals=True):
            found.sort(apply_goals=False)
        cases.append({"figures": list(objectives.values()), "rows": rows.tolist(),
                      "met": [found.meets_goals(i) for i in range(n)],
                      "best": [float(v) for v in rows[found._sorted_indices[0]]]})
    return cases


def main():
    OUT.write_text(json.dumps({"limits": limits(), "orders": orders()}) + "\n")


if __name__ == "__main__":
    main()
