"""lazyexp: what does a network gain when it learns only from its mistakes?"""

__version__ = "0.1.0"
