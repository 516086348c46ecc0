"""Figures of embeddings, as functions."""

from .embeddings import alignment, embedding_std, knn_accuracy, knn_predict, uniformity

__all__ = ['alignment', 'embedding_std', 'knn_accuracy', 'knn_predict', 'uniformity']
