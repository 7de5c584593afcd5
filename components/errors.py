"""The one kind of error that a person reads: commands print it, the program hands it to the engine."""


class UserError(Exception):
    """What is wrong and what to do about it, one line for each; shown without a traceback, so it holds no secret."""
