"""Losses written by a language model behind any OpenAI-compatible endpoint."""

from evoloss.propose.llm.endpoint import Endpoint, Usage
from evoloss.propose.llm.proposer import LLMProposer
from evoloss.propose.llm.records import usage_of

__all__ = ["Endpoint", "LLMProposer", "Usage", "usage_of"]
