"""What stops a conversion."""


class ConversionError(Exception):
    """The folder cannot be converted; the text says which file and why."""


class UnsupportedError(Exception):
    """Nothing is wrong with the folder, but nobody here knows its kind; the text is the reference's."""
