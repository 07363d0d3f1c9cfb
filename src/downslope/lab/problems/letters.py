"""A text that comes with every Python, letter by letter, and a small transformer."""

from __future__ import annotations

import math
import unicodedata
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpy.typing import NDArray

from downslope.lab.problems.columns import Columns
from downslope.lab.problems.labels import cross_entropy, hits
from downslope.lab.problems.model import Weights
from downslope.lab.problems.problem import Problem, assemble

LETTERS = "\n -ABCDEFGHIJKLMNOPQRSTUVWXYZ"
LAST = 0xFFF
LENGTH = 32


@dataclass(frozen=True)
class Transformer:
    """A causal transformer that says after every letter what comes next: a `Model`.

    Every block adds to its input what attention sees in it, and then what two layers with a ReLU make of it; both see
    their input divided by its root mean square. There are no biases and no scales; weights are a vector for each
    letter, one for each place, for each block four arrays of shape `(out, in)`, and the scores of the letters.

    Attributes:
        letters: How many different ones there are.
        length: How many a row has.
        features: The numbers of a letter in between.
        heads: Of attention, in each block.
        blocks: One after the other.
    """

    letters: int = len(LETTERS)
    length: int = LENGTH
    features: int = 32
    heads: int = 2
    blocks: int = 1
    accurate: bool = True

    @property
    def name(self) -> str:
        """Its sizes."""
        blocks = f"{self.blocks} block{'s' if self.blocks != 1 else ''}"
        return f"transformer of {blocks} with {self.heads} heads and {self.features} features, {self.length} letters"

    @property
    def size(self) -> int:
        """The number of weights."""
        return sum(math.prod(shape) for shape, _ in self._shapes())

    @property
    def inner(self) -> tuple[int, ...]:
        """The matrices of the blocks; queries, keys and values are three in one."""
        return (0, 0, *(3, 1, 1, 1) * self.blocks, 0)

    @property
    def width(self) -> int:
        """What a row takes at every letter, forward and backward: features, and the attention to each letter."""
        block = 3 * (14 * self.features + 2 * self.heads * self.length)
        return self.length * (3 * self.features + self.blocks * block + 3 * self.letters)

    def initial(self, seed: int) -> tuple[NDArray[np.float32], ...]:
        """Normal weights with variance 1 / fan-in; less in what is added up over the blocks, as in GPT-2."""
        rng = np.random.default_rng((seed, 0))
        return tuple((spread * rng.standard_normal(shape)).astype(np.float32) for shape, spread in self._shapes())

    def outputs(self, weights: Weights, x: jax.Array) -> jax.Array:
        """A score for every letter that may come next, shape `(rows, length, letters)`."""
        letters, places, *blocks, scores = weights
        z = jax.nn.one_hot(x.astype(jnp.int32), self.letters) @ letters + places
        for attend, add, up, down in zip(*(blocks[kind::4] for kind in range(4)), strict=True):
            z = z + self._attention(_normed(z) @ attend.T) @ add.T
            z = z + jax.nn.relu(_normed(z) @ up.T) @ down.T
        said: jax.Array = _normed(z) @ scores.T
        return said

    def losses(self, outputs: jax.Array, y: Any) -> jax.Array:
        """Cross-entropy in nats, averaged over the letters of a row."""
        return cross_entropy(outputs, y)

    def hits(self, outputs: jax.Array, y: Any) -> jax.Array:
        """The share of the letters that are foretold."""
        return hits(outputs, y)

    def _attention(self, asked: jax.Array) -> jax.Array:
        """What every letter takes from itself and those before it."""
        rows, length, _ = asked.shape
        queries, keys, values = (
            one.reshape(rows, length, self.heads, -1).transpose(0, 2, 1, 3) for one in jnp.split(asked, 3, axis=-1)
        )
        fits = queries @ keys.transpose(0, 1, 3, 2) / math.sqrt(self.features // self.heads)
        earlier = np.tri(length, dtype=bool)
        taken = jax.nn.softmax(jnp.where(earlier, fits, -1e9), axis=-1) @ values
        return taken.transpose(0, 2, 1, 3).reshape(rows, length, -1)

    def _shapes(self) -> list[tuple[tuple[int, int], float]]:
        """Of all weights, and by how much they spread."""
        d = self.features
        one = 1 / math.sqrt(d)
        less = 1 / math.sqrt(2 * self.blocks)
        block = [((3 * d, d), one), ((d, d), one * less), ((4 * d, d), one), ((d, 4 * d), one * less / 2)]
        return [((self.letters, d), 1.0), ((self.length, d), 0.1), *block * self.blocks, ((self.letters, d), one)]


def _normed(z: jax.Array) -> jax.Array:
    return z * lax.rsqrt((z * z).mean(axis=-1, keepdims=True) + 1e-6)


def names_of_characters() -> str:
    """The names of the characters of Unicode 3.2 up to U+0FFF, Latin to Tibetan, each on a line.

    Every Python keeps them, whatever its own version of Unicode, and a name once given is never changed.
    """
    old = unicodedata.ucd_3_2_0
    return "".join(f"{name}\n" for code in range(LAST + 1) if (name := old.name(chr(code), "")))


def unicode_names() -> Problem:
    """The names of 2,774 characters, and a transformer that foretells their letters."""
    text = np.array([LETTERS.index(letter) for letter in names_of_characters()])
    rows = (len(text) - 1) // LENGTH
    x, y = (text[first : first + rows * LENGTH].reshape(rows, LENGTH) for first in (0, 1))
    names = tuple(f"letter {place + 1}" for place in range(LENGTH))
    return assemble(
        name="unicode-names",
        title="The names of the characters of Unicode, letter by letter",
        task="classification",
        x=Columns(x.astype(np.float64), names, tuple("ready" for _ in names)),
        y=y,
        classes=tuple("end of name" if letter == "\n" else letter for letter in LETTERS),
        hidden=(),
        batch_size=16,
        epochs=6,
        model=Transformer(),
        shows="tuned alike, Adam ends lower than gradient descent and momentum, as on larger transformers (Zhang et "
        "al. 2020)",
    )
