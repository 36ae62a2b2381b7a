"""What goes wrong because of the input, said in one message instead of a traceback."""


class UserError(Exception):
    """A problem that the user can mend: the message names the file, the row and the remedy."""
