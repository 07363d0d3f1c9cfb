"""A rule with every word that a kernel for whole tensors knows."""

from downslope import columns, mean, norm, part, rows, rule, size, sqrt, where
from downslope import max as largest
from downslope import sum as total


@part
def centered(a):
    return a - mean(a)


@rule
def every_word(x, dx, m=0, r=rows(0.5), c=columns(0.25), w=rows(0), *, t, lr=1e-2, decay=0.9):
    """Everything that passes can do, in one."""
    r_old = r
    r = decay * r + (1 - decay) * mean(dx**2, axis=1) + (norm(x, axis=1) + abs(total(x, axis=1))) / size(x, axis=1)
    c = decay * c + (1 - decay) * largest(abs(dx), axis=0) + norm(dx, axis=0) / (1 + norm(r))
    m = decay * m + centered(dx / (1 + sqrt(c) + r_old))
    even = where((size(x, axis=0) > size(x, axis=1)) & (t > 2), r / largest(r), mean(r, axis=1) / (1 + total(c)))
    w = w + mean(abs(m), axis=1) * norm(mean(c))
    return x - lr * m * even * where(largest(m) > 1, 0.5, 1) * sqrt(size(x)), m, r, c, w


@rule
def late(x, dx, r=rows(1.0), d=rows(0.0), c=columns(1.0), w=rows(0.0), v=columns(0.0), *, lr=0.01):
    """New states that are known soon, while others still need what they were."""
    slope, new = mean(dx, axis=1), 0.9 * r + 0.1 * mean(dx**2, axis=1)
    lengths = 0.9 * c + 0.1 * norm(dx, axis=0)
    w = 0.9 * w + r * norm(new) + d * norm(slope)
    return x - lr * dx / sqrt(r), new, d + slope, lengths, w, 0.9 * v + c * norm(new) * mean(w)
