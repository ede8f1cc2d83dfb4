import torch

from models.catalogue import Catalogue
from models.encoders.hrnn import HRNNConfig
from models.model import Model
from trainer.fitting.fit import Fitted
from trainer.fitting.warm_start import copy_weights, fits


def learned(items: list[str], types: list[str], **config: int) -> Fitted:
    model = Model(HRNNConfig(len(items), len(types), hidden_dimension=4, **config))
    with torch.no_grad():
        model.bias.normal_()
    return Fitted(model, Catalogue(items, types), 0.0, 0.0, 1, 0.0, False)


def test_what_stays_keeps_its_weights_new_items_are_average_and_gone_ones_drop_out() -> None:
    old = learned(["gone", "kept", "also"], ["click", "view"])
    catalogue = Catalogue(["also", "kept", "new"], ["view", "buy"])
    model = Model(HRNNConfig(3, 2, hidden_dimension=4))
    shares, before = torch.tensor([-9.0, -1.0, -2.0, -3.0]), torch.tensor([-9.0, -1.5, -2.5, -9.0])
    copy_weights(old, model, catalogue, shares, before)
    for ours, theirs in ((model.encoder.item, old.model.encoder.item), (model.decoder, old.model.decoder)):
        torch.testing.assert_close(ours.weight[[0, 1, 2]], theirs.weight[[0, 3, 2]])
        torch.testing.assert_close(ours.weight[3], theirs.weight[[2, 3]].mean(0))
    torch.testing.assert_close(model.encoder.event_type.weight[1], old.model.encoder.event_type.weight[2])
    torch.testing.assert_close(model.encoder.cell.weight_hh, old.model.encoder.cell.weight_hh)
    torch.testing.assert_close(model.out.weight, old.model.out.weight)


def test_biases_follow_what_is_popular_now() -> None:
    old = learned(["a", "b"], [])
    model = Model(HRNNConfig(2, 0, hidden_dimension=4))
    shares, before = torch.tensor([-9.0, -1.0, -5.0]), torch.tensor([-9.0, -4.0, -2.0])
    copy_weights(old, model, old.catalogue, shares, before)
    torch.testing.assert_close(model.bias[1:] - old.model.bias[1:], torch.tensor([3.0, -3.0]))


def test_only_the_vocabulary_may_differ() -> None:
    old = learned(["a", "b"], ["click"])
    assert fits(old, HRNNConfig(7, 3, hidden_dimension=4, dropout=0.3))
    assert not fits(old, HRNNConfig(2, 1, hidden_dimension=5))
    assert not fits(old, HRNNConfig(2, 1, hidden_dimension=4, layers=2))
    assert not fits(old, HRNNConfig(2, 1, hidden_dimension=4, control_bounds_s=(60.0,)))
    assert not fits(old, HRNNConfig(2, 1, hidden_dimension=4, tied=True))
