"""Face-mask image classification: data, models, losses, votes. Never imports Ray."""
