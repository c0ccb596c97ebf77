"""Aligning text-to-image models with human feedback (arXiv 2302.12192): what stands behind the notebooks."""

__version__ = "0.1.0"
