"""Measures adamant beside the optimizers that people use on CPUs today."""
