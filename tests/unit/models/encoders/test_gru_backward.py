"""The recurrence against torch's own cell, and its gradient against differences and against autograd."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.encoders.gru_backward import recur

Given = tuple[list[torch.Tensor], torch.Tensor]


def drawn(seed: int, steps: int, batch: int, width: int) -> Given:
    torch.manual_seed(seed)
    shapes = ((batch, width), (steps, batch, 3 * width), (3 * width, width), (3 * width,))
    leaves = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    return leaves, (torch.rand(steps, batch, 1) > 0.3).double()


def by_cells(leaves: list[torch.Tensor], keep: torch.Tensor) -> torch.Tensor:
    h, inputs, weight, bias = leaves
    # what the inputs add is there already: their own weights are the identity
    own, nothing = torch.eye(len(bias), dtype=bias.dtype), torch.zeros_like(bias)
    hs = []
    for step, kept in zip(inputs, keep, strict=True):
        h = torch.gru_cell(step, h * kept, own, weight, nothing, bias)
        hs.append(h)
    return torch.stack(hs)


shapes = {
    "seed": st.integers(0, 10**6),
    "steps": st.integers(1, 6),
    "batch": st.integers(1, 4),
    "width": st.integers(1, 5),
}


@settings(deadline=None, max_examples=30)
@given(**shapes)
def test_states_and_gradients_are_those_of_torchs_cells(seed: int, steps: int, batch: int, width: int) -> None:
    leaves, keep = drawn(seed, steps, batch, width)
    hs, cells = recur(leaves[0], leaves[1], keep, leaves[2], leaves[3]), by_cells(leaves, keep)
    torch.testing.assert_close(hs, cells)
    outer = torch.randn_like(hs)
    for ours, theirs in zip(
        torch.autograd.grad(hs, leaves, outer), torch.autograd.grad(cells, leaves, outer), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_the_gradient_is_what_differences_say() -> None:
    leaves, keep = drawn(0, 5, 3, 4)
    assert torch.autograd.gradcheck(lambda h0, given, *others: recur(h0, given, keep, *others), leaves)


def test_nothing_is_kept_of_the_state_before_a_start() -> None:
    (h0, given, weight, bias), keep = drawn(1, 4, 2, 3)
    keep = torch.ones_like(keep)
    keep[2, 1] = 0  # the second user's
    hs = recur(h0, given, keep, weight, bias)
    alone = recur(torch.zeros_like(h0), given[2:], torch.ones_like(keep[2:]), weight, bias)
    assert torch.equal(hs[2:, 1], alone[:, 1])
    assert not torch.allclose(hs[2:, 0], alone[:, 0])
