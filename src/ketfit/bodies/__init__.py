"""Sentence transformers: sources, cached embeddings and fine-tuning."""
