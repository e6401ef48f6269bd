"""The catalogue: the rows of `models.toml`, the sizes that follow from a request, and the prices."""

from fluxwerk.catalog.rows import (
    Model,
    Option,
    Price,
    check,
    did_you_mean,
    get_model,
    list_models,
    ratio,
    refuse,
    takes_webhooks,
)

__all__ = [
    "Model",
    "Option",
    "Price",
    "check",
    "did_you_mean",
    "get_model",
    "list_models",
    "ratio",
    "refuse",
    "takes_webhooks",
]
