"""A new rule in six lines: compiled, certified, raced against Adam, and shown as its formula.

    python examples/custom_rule.py

The rule is Lion (Chen et al., "Symbolic discovery of optimization algorithms", 2023), without its weight decay, which
every rule has as an option.
"""

import downslope
import downslope.lab
from downslope import rule, sign


@rule
def lion(x, dx, m=0, *, lr=1e-4, beta1=0.9, beta2=0.99):
    """Only the sign of a look at the slope and the inertia counts: every weight moves by the same amount."""
    step = sign(beta1 * m + (1 - beta1) * dx)
    m = beta2 * m + (1 - beta2) * dx
    return x - lr * step, m


def main() -> None:
    print(downslope.check_rule(lion), "\n")
    print(lion.latex(), "\n")
    print(f"Cost: {lion.cost()}\n")

    race = downslope.lab.race("breast-cancer", [lion, downslope.adam])
    print(race.verdict)


if __name__ == "__main__":
    main()
