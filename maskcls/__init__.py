"""Face-mask image classification: data, models, losses, votes. Never imports Ray."""

__version__ = "0.1.0"
