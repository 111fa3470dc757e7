"""Measures of pictures, masks, embeddings and feature sets."""
