"""Contrastive losses."""

from .nt_xent_loss import NTXentLoss, nt_xent_loss

__all__ = ['NTXentLoss', 'nt_xent_loss']
