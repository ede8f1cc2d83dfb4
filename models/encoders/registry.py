"""The encoders that manifests and settings can name, one a line."""

from __future__ import annotations

from models.config import ModelConfig
from models.encoders.hgru import HGRUConfig
from models.encoders.hrnn import HRNNConfig
from models.encoders.rnn import RNNConfig

ENCODERS: dict[str, type[ModelConfig]] = {
    HRNNConfig.architecture: HRNNConfig,
    RNNConfig.architecture: RNNConfig,
    HGRUConfig.architecture: HGRUConfig,
}
