"""What the page of a rule says of how to train with it runs in every framework."""

import numpy as np
import shown
import torch
from each_backend import on
from sybil import Sybil

from downslope.rules import OVER_TENSORS, RULES
from reader import PARSERS


@on("torch")
def test_the_lines_of_every_page_run(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("\n".join(shown.use(rule) for rule in (*RULES, *OVER_TENSORS)), encoding="utf-8")
    document = Sybil(PARSERS).parse(page)
    document.namespace |= {"weights": {"w": np.ones((2, 2))}, "model": torch.nn.Linear(2, 2, bias=False)}
    examples = list(document.examples())
    for example in examples:
        example.evaluate()
    assert len(examples) == len([*RULES, *OVER_TENSORS])
