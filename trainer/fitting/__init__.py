"""Fitting a model to histories."""
