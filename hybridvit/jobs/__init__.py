"""Answers to very many pictures: units of work that can be lost, done twice or done elsewhere, and one whole table."""
