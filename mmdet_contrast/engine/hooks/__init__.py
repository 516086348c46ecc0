"""Hooks."""

from .view_epoch_hook import ViewEpochHook

__all__ = ['ViewEpochHook']
