"""Files that were saved by an earlier state of 0.1.0 go on being loaded, and trainings go on from them."""

from pathlib import Path

import numpy as np
import pytest
from saved_trainings import TRAININGS

from downslope.training import checkpoint

SAVED = Path(__file__).parent / "saved"


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("name", TRAININGS)
def test_a_training_goes_on_from_a_file_saved_before(name):
    whole, resumed = TRAININGS[name](), TRAININGS[name]()
    for _ in range(3):
        whole.step()
    resumed.load(SAVED / f"{name}.safetensors")
    for _ in range(3):
        for key, expected in whole.arrays().items():
            np.testing.assert_allclose(resumed.arrays()[key], expected, rtol=2e-6, atol=1e-7)
        before = resumed.arrays()["W"].copy()
        whole.step()
        resumed.step()
        assert not np.array_equal(resumed.arrays()["W"], before)


def test_an_option_that_there_was_not_yet_is_one_that_is_not_used(tmp_path):
    whole, resumed = TRAININGS["numpy_adam"](), TRAININGS["numpy_adam"]()
    tensors, record = checkpoint.read_raw(SAVED / "numpy_adam.safetensors")
    assert record["options"].pop("maximize") is False
    checkpoint.write(tmp_path / "older", tensors, record)
    resumed.load(tmp_path / "older")
    for _ in range(3):
        whole.step()
    for key, expected in whole.arrays().items():
        np.testing.assert_allclose(resumed.arrays()[key], expected, rtol=2e-6, atol=1e-7)
