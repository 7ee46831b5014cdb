"""What an unlearning task is made of: sets of examples, read from files and divided."""
