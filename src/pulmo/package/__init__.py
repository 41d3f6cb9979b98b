"""The model package on disk: weights.safetensors and model.json, all that an answer needs; never a pickle."""
