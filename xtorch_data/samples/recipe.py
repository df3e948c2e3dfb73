"""How samples become a batch."""

from .definition import SampleDefinition as Recipe

__all__ = ["Recipe"]
