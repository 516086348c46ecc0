"""Figures of embeddings, as functions."""

from .embedding_stats import alignment, embedding_std, uniformity
from .knn import knn_accuracy, knn_predict

__all__ = ['alignment', 'embedding_std', 'knn_accuracy', 'knn_predict', 'uniformity']
