"""Rendered pedestrians: bodies, clothes, street scenes and cameras drawn from a seed, with their descriptions.

Drawing is an optional extra (``pip install '.[synth]'``). What judges rendered sets (attributes, phrase books, oracle)
needs numpy alone; importing the package itself loads neither OpenGL nor the body data.
"""

from model.errors import ModelError


class SynthUnavailable(ModelError):  # noqa: N818 - a state of the machine, not a mistake
    """Pedestrians cannot be rendered on this machine; the message says what to install."""
