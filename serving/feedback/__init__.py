"""Answers that were given, and what people thought of them."""
