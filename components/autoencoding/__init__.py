"""Fits the autoencoder whose latents the DiT works on, where none is named."""
