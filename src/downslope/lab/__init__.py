"""Races between update rules on real networks and real data.

Example:
    >>> import downslope, downslope.lab
    >>> table = downslope.lab.load_problem("breast-cancer")
    >>> table.task
    'classification'
"""

from downslope.extras import require

require("downslope.lab", "lab", ["jax", "scipy", "sklearn", "polars", "plotly", "latex2mathml"])

from downslope.lab.problems import PROBLEMS, Problem, load_problem, load_table
from downslope.lab.protocol import race
from downslope.lab.report import write_report
from downslope.lab.results import Race, RuleResult, Run
from downslope.lab.tables import DataError

__all__ = [
    "PROBLEMS",
    "DataError",
    "Problem",
    "Race",
    "RuleResult",
    "Run",
    "load_problem",
    "load_table",
    "race",
    "write_report",
]
