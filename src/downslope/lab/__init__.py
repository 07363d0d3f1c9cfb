"""Races between update rules on real networks and real data.

Example:
    >>> import downslope, downslope.lab
    >>> table = downslope.lab.load_problem("breast-cancer")
    >>> table.task
    'classification'
"""

from downslope.extras import require

require("downslope.lab", "lab", ["jax", "scipy", "sklearn", "polars", "plotly", "latex2mathml"])

from downslope.lab.dry_run import foresee
from downslope.lab.engines.own_run import OwnRun
from downslope.lab.engines.protocol import Run
from downslope.lab.exports.export import export
from downslope.lab.problems.builtin import PROBLEMS, load_problem
from downslope.lab.problems.columns import DataError
from downslope.lab.problems.from_table import load_table
from downslope.lab.problems.problem import Problem
from downslope.lab.races.budget import Budget, Foreseen
from downslope.lab.races.results import Race, RuleResult
from downslope.lab.racing import race
from downslope.lab.report.page import write_report

__all__ = [
    "PROBLEMS",
    "Budget",
    "DataError",
    "Foreseen",
    "OwnRun",
    "Problem",
    "Race",
    "RuleResult",
    "Run",
    "export",
    "foresee",
    "load_problem",
    "load_table",
    "race",
    "write_report",
]
