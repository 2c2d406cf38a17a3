"""Sizes of the ranker by name."""

from __future__ import annotations

from typing import Any

from components.features.feature_list import FeatureConfig

MODELS: dict[str, dict[str, Any]] = {
    "tiny": {"embedding_dim": 8, "sequence_dim": 16, "hidden_sizes": [64, 32], "head_size": 16},
    "demo": {"embedding_dim": 4, "sequence_dim": 16, "hidden_sizes": [128, 64]},
    "paper": {
        "embedding_dim": 32,
        "sequence_dim": 256,
        "sequence_heads": 4,
        "sequence_layers": 2,
        "dhen": {"num_layers": 6, "num_heads": 4, "hidden_size": 2144},
        "hidden_sizes": [1024, 512],
        "head_size": 256,
    },
}


def with_preset(model: dict[str, Any]) -> dict[str, Any]:
    """Sizes with those that `preset` stands for filled in, without its name.

    Raises:
        ValueError: If there is no such preset.
    """
    if "preset" not in model:
        return model
    name = model["preset"]
    if name not in MODELS:
        raise ValueError(f"preset: {name!r} is not one of {list(MODELS)}")
    return {**MODELS[name], **{key: value for key, value in model.items() if key != "preset"}}


def paper_features() -> FeatureConfig:
    """60 tables of 21-bit binary codes with 5.2 million rows, as many as 167 million parameters at dim 32 take.

    Qiu et al. 2025 give the number of tables and "up to 21 bits", not the blocks: here 20 tables have blocks of 16 bits
    and 40 of 15.
    """
    code = {"code_bits": 21, "split": "skip"}
    names = ["user_id", "item_id", *(f"entity_{number:02d}" for number in range(2, 60))]
    return FeatureConfig.parse(
        {
            "categorical": [
                {"name": name, "binary_code": code | {"block_bits": 16 if number < 20 else 15}}
                for number, name in enumerate(names)
            ],
            "sequence": {"length": 50, "entities": ["item_id"]},
        },
        "paper_features",
    )
