"""Why an import was refused; each message names what is wrong, the value and the remedy."""


class ImportRefused(Exception):
    """Base: nothing was published."""


class RecipeRefused(ImportRefused):
    """The recipe is not what it must be, or does not go with the network."""


class SourceRefused(ImportRefused):
    """The file or folder is no network that may or can be imported."""


class IsolationRefused(ImportRefused):
    """The kernel does not give the child a network of its own, and nobody said to go on without."""


class ConversionFailed(ImportRefused):
    """The child ended without an answer: killed, out of memory or out of time."""
