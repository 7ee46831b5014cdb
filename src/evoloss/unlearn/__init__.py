"""Machine unlearning of language models: data, tokens and metrics."""
