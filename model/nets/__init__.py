"""The networks by name. A checkpoint stores the name and the config, so it can rebuild its net."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from model.interface import Net
from model.nets.axm_net import AXMNet, AXMNetConfig
from model.nets.mcja import MCJA, MCJAConfig
from model.nets.mmet import MMET, MMETConfig
from model.nets.ssan import SSAN, SSANConfig

NetConfig = AXMNetConfig | SSANConfig | MCJAConfig | MMETConfig

NETS: dict[str, Any] = {"axm_net": AXMNet, "ssan": SSAN, "mcja": MCJA, "mmet": MMET}
CONFIGS: dict[str, type[NetConfig]] = {
    "axm_net": AXMNetConfig,
    "ssan": SSANConfig,
    "mcja": MCJAConfig,
    "mmet": MMETConfig,
}


def build(name: str, config: dict[str, Any]) -> Net:
    """The net called ``name`` with ``config`` as JSON gives it (lists for tuples); ValueError for anything unknown."""
    if name not in NETS:
        raise ValueError(f"There is no net called {name!r}; choose one of: {', '.join(sorted(NETS))}.")
    known = {field.name for field in fields(CONFIGS[name])}
    if unknown := sorted(set(config) - known):
        raise ValueError(f"{name} has no setting called {', '.join(unknown)}. It has: {', '.join(sorted(known))}.")
    net: Net = NETS[name](CONFIGS[name](**{key: _tuples(value) for key, value in config.items()}))
    return net


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list | tuple) else value
