"""The errors a user can cause; the command line prints them in one line and exits with status 2."""


class UserError(Exception):
    """A mistake in the input; the message names the thing, the value and the way out in a line."""


class ShapeError(UserError):
    """A base network whose output does not have the shape the task's targets have."""


class LossError(UserError):
    """An expression that is not a loss of the signature it is used with."""
