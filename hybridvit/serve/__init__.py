"""A model as a service: pictures come in over HTTP, answers go out; each model computes in a process of its own.

Nothing here knows a task: answers are what `Result` makes of them. Importing it needs no torch.
"""
