"""Changes that fit one kind of file."""

from fuzz.mutations import Mutation

SPECIAL: dict[str, tuple[Mutation, ...]] = {}
