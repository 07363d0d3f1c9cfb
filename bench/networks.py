"""The shapes of the parameters of networks whose steps are timed."""

from __future__ import annotations

Shapes = list[tuple[int, ...]]


def resnet50(channels: float) -> Shapes:
    """ResNet-50 with so many times its channels in every layer, for 1,000 classes."""
    shapes: Shapes = []

    def convolution(into: int, out: int, size: int) -> None:
        shapes.extend([(out, into, size, size), (out,), (out,)])  # its batch normalisation after it

    width = int(64 * channels)
    convolution(3, width, 7)
    into = width
    for stage, blocks in enumerate((3, 4, 6, 3)):
        inner = width * 2**stage
        for block in range(blocks):
            convolution(into, inner, 1)
            convolution(inner, inner, 3)
            convolution(inner, 4 * inner, 1)
            if block == 0:
                convolution(into, 4 * inner, 1)
            into = 4 * inner
    return [*shapes, (1000, into), (1000,)]


def gpt2() -> Shapes:
    """GPT-2 small; its output layer is the embedding."""
    d = 768
    layer = [(d,), (d,), (d, 3 * d), (3 * d,), (d, d), (d,), (d,), (d,), (d, 4 * d), (4 * d,), (4 * d, d), (d,)]
    return [(50257, d), (1024, d), *12 * layer, (d,), (d,)]
