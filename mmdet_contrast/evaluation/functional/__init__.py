"""Figures of embeddings, as functions."""

from .embeddings import embedding_std, knn_accuracy, knn_predict

__all__ = ['embedding_std', 'knn_accuracy', 'knn_predict']
