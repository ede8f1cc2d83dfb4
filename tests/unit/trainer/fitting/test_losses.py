from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from trainer.fitting.losses import CatalogueCrossEntropy, Sampler


def fused(threads: int) -> Callable[..., Tensor]:
    """The loss of a model without signals."""

    def loss(queries: Tensor, matrix: Tensor, bias: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        none = queries.new_zeros(len(queries), 0)
        entropy = CatalogueCrossEntropy(threads)
        asked = entropy.prepare(targets, weights, targets, None).result()
        return entropy(queries, none, matrix, bias, asked)

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


def sampled(sampler: Sampler, inputs: list[Tensor], targets: Tensor, weights: Tensor) -> list[Tensor]:
    """Loss and gradients over one sample."""
    queries, matrix, bias = leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    sample = sampler.draw(targets)
    columns = sample.among.columns
    entropy, none = CatalogueCrossEntropy(1), queries.new_zeros(len(queries), 0)
    asked = entropy.prepare(targets, weights, targets, None).result()
    loss = entropy(queries, none, matrix[columns], bias[columns], asked, sample)
    loss.backward()
    return [loss.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


def whole(inputs: list[Tensor], targets: Tensor, weights: Tensor) -> list[Tensor]:
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    loss = plain(*leaves, targets, weights)
    loss.backward()
    return [loss.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


def test_a_sample_of_everything_is_the_full_softmax() -> None:
    torch.manual_seed(0)
    inputs = [torch.randn(7, 4), torch.randn(50, 4), torch.randn(50)]
    targets, weights = torch.randint(50, (7,)), torch.rand(7)
    for ours, theirs in zip(
        sampled(Sampler(torch.rand(50) + 0.1, 50), inputs, targets, weights),
        whole(inputs, targets, weights),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_samples_come_to_the_full_softmax_on_average() -> None:
    """Also where items are drawn by quite different chances, which an uncorrected loss would take for scores."""
    torch.manual_seed(0)
    items, draws = 2000, 100
    inputs = [torch.randn(5, 4) / 2, torch.randn(items, 4) / 2, torch.randn(items) / 2]
    targets, weights = torch.randint(items, (5,)), torch.ones(5)
    sampler = Sampler(torch.tensor([5.0, 1.0]).repeat(items // 2), 500)
    sums = [torch.zeros_like(tensor) for tensor in whole(inputs, targets, weights)]
    for _ in range(draws):
        for total, one in zip(sums, sampled(sampler, inputs, targets, weights), strict=True):
            total += one / draws
    expected = whole(inputs, targets, weights)
    assert float(sums[0]) == pytest.approx(float(expected[0]), rel=0.005)  # 18 % off if uncorrected
    for ours, theirs in zip(sums[1:], expected[1:], strict=True):
        assert float((ours - theirs).norm() / theirs.norm()) < 0.02  # 0.04 of the bias if uncorrected


def test_chances_are_in_proportion_until_they_are_sure() -> None:
    sampler = Sampler(torch.tensor([1000.0, 4.0, 2.0, 2.0]), 3)
    torch.manual_seed(0)
    drawn = torch.zeros(4)
    for _ in range(2000):
        drawn[sampler.draw(torch.tensor([0])).among.columns] += 1 / 2000
    torch.testing.assert_close(drawn, torch.tensor([1.0, 1.0, 0.5, 0.5]), rtol=0, atol=0.05)
