"""The first FSDP, whose parameters look like ordinary ones and are parts of them."""

import pytest
import torch
import torch.distributed
from torch.distributed.fsdp import FullyShardedDataParallel

import downslope
import downslope.torch


@pytest.fixture
def alone():
    """A group of one process."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.filterwarnings("ignore")  # it is on its way out
@pytest.mark.parametrize("original", [True, False])
def test_rules_over_whole_tensors_refuse_its_parts(alone, original):
    model = FullyShardedDataParallel(torch.nn.Linear(4, 6), use_orig_params=original, device_id=torch.device("cpu"))
    for rule in (downslope.lamb, downslope.muon, downslope.prodigy):
        with pytest.raises(ValueError, match=r"in a FullyShardedDataParallel.* goes by whole tensors.*fully_shard"):
            downslope.torch.Optimizer(model.named_parameters(), rule)
    for given in ({"max_norm": 1.0}, {"nonfinite": "skip"}):
        with pytest.raises(ValueError, match=r"number 0 is in a Fully.* go by all gradients.*clip_grad_norm_"):
            downslope.torch.AdamW(model.parameters(), **given)
    downslope.torch.AdamW(model.parameters())
