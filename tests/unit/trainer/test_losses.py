from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from trainer.losses import Asked, CatalogueCrossEntropy


def fused(threads: int) -> Callable[..., Tensor]:
    """The loss of a model without signals."""

    def loss(queries: Tensor, matrix: Tensor, bias: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        none = queries.new_zeros(len(queries), 0)
        return CatalogueCrossEntropy(threads)(queries, none, matrix, bias, Asked(targets, weights, targets, None))

    return loss


def plain(queries: Tensor, matrix: Tensor, bias: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    losses = torch.nn.functional.cross_entropy(queries @ matrix.T + bias, targets, reduction="none")
    return (losses * weights).sum()


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("rows", [1, 3, 700])
def test_loss_and_gradients_are_those_of_plain_cross_entropy(threads: int, rows: int) -> None:
    torch.manual_seed(rows)
    items = 9000  # 116 rows in a block
    inputs = [torch.randn(rows, 5), torch.randn(items, 5), torch.randn(items)]
    targets, weights = torch.randint(items, (rows,)), torch.rand(rows)
    made = []
    for loss_of in (fused(threads), plain):
        leaves = [tensor.clone().requires_grad_() for tensor in inputs]
        loss = loss_of(*leaves, targets, weights)
        (loss * 0.3).backward()
        made.append((loss.detach(), *(leaf.grad for leaf in leaves)))
    for ours, theirs in zip(*made, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_nothing_is_kept_for_a_gradient_that_nobody_wants() -> None:
    queries, matrix, bias = torch.randn(4, 3), torch.randn(10, 3), torch.randn(10)
    with torch.inference_mode():
        loss = fused(2)(queries, matrix, bias, torch.tensor([1, 2, 3, 4]), torch.ones(4))
    torch.testing.assert_close(loss, plain(queries, matrix, bias, torch.tensor([1, 2, 3, 4]), torch.ones(4)))
