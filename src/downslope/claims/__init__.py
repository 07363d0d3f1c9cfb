"""What everybody says about update rules, measured: each claim with what was expected, what was found, and its verdict.

A claim is one entry of `downslope.claims.entries`; to add one is to add one there.

Example:
    >>> from downslope.claims import CLAIMS
    >>> CLAIMS[0].name, CLAIMS[0].words
    ('mini-batches', 'Mini-batches speed training up greatly, at little cost in accuracy.')
"""

from downslope.claims.claim import Claim, Part, Quantity, at_least, at_most
from downslope.claims.entries import CLAIMS
from downslope.claims.experiments import Raced, Walked

__all__ = ["CLAIMS", "Claim", "Part", "Quantity", "Raced", "Walked", "at_least", "at_most"]
