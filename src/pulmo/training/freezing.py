"""Cuts a network into the frozen part and the rest, by following what flows between its modules."""

from torch import Tensor, fx, nn

from pulmo.base.errors import UserError
from pulmo.model.weights import find_head


class _Tracer(fx.Tracer):
    """Looks into the given modules only, so that every other one keeps its own training and evaluation behaviour."""

    def __init__(self, opened: set[str]) -> None:
        super().__init__()
        self.opened = opened

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name not in self.opened


def split_frozen(model: nn.Module, freeze: str) -> tuple[nn.Module | None, nn.Module]:
    """The network as (frozen part in eval mode or None, trainable rest), both sharing the layers of `model`.

    `freeze` is none, backbone (all but the new last layer) or the name of the last frozen block, such as layer3 or
    features.5. UserError where there is no such block, or where the network cannot be cut behind it.
    """
    if freeze == "none":
        return None, model
    block = find_head(model) if freeze == "backbone" else freeze
    if block not in dict(model.named_modules()) or not block:
        raise UserError(f"train.freeze: no block {freeze!r}", f"choose none, backbone, {', '.join(_blocks(model))}")
    prefix, rest = _split(model, freeze, block)
    if not list(rest.parameters()):
        raise UserError(
            f"train.freeze: nothing is left to train behind {freeze!r}", "choose backbone or an earlier block"
        )
    prefix.requires_grad_(False).eval()
    if isinstance(prefix, _BeforeHead):  # which holds the whole network
        rest.requires_grad_(True)
    return prefix, rest


def _split(model: nn.Module, freeze: str, block: str) -> tuple[nn.Module, nn.Module]:
    parts = block.split(".")
    try:
        graph = _Tracer({".".join(parts[:depth]) for depth in range(1, len(parts))}).trace(model)
    except (TypeError, fx.proxy.TraceError) as error:
        if freeze == "backbone":
            return _BeforeHead(model, block), model.get_submodule(block)
        raise UserError(f"train.freeze: this network cannot be cut behind {freeze!r}", "choose backbone") from error
    calls = [node for node in graph.nodes if node.op == "call_module" and node.target == block]
    if len(calls) != 1:
        raise UserError(f"train.freeze: this network cannot be cut behind {freeze!r}", "choose backbone")
    cut = calls[0]
    if freeze == "backbone":
        cut = cut.all_input_nodes[0]
        while cut.op == "call_module" and isinstance(model.get_submodule(str(cut.target)), nn.Dropout):
            cut = cut.all_input_nodes[0]  # dropout is drawn anew in every epoch
    return _cut(model, graph, cut)


class _BeforeHead(nn.Module):
    """The input of a network's last layer, for networks that cannot be traced.

    UserError where the network does more with the output of that layer than return it.
    """

    def __init__(self, model: nn.Module, head: str) -> None:
        super().__init__()
        self.model, self.head = model, head

    def forward(self, inputs: Tensor) -> Tensor:
        seen: list[Tensor] = []

        def note(layer: nn.Module, arguments: tuple[Tensor], output: Tensor) -> None:
            seen[:] = [arguments[0], output]

        hook = self.model.get_submodule(self.head).register_forward_hook(note)
        try:
            outputs = self.model(inputs)
        finally:
            hook.remove()
        if not seen or outputs is not seen[1]:
            raise UserError("train.freeze: this network cannot be cut behind 'backbone'", "choose none")
        return seen[0]


def _cut(model: nn.Module, graph: fx.Graph, cut: fx.Node) -> tuple[nn.Module, nn.Module]:
    front, back = fx.Graph(), fx.Graph()
    front_copies: dict[fx.Node, fx.Node] = {}
    back_copies = {cut: back.placeholder("features")}
    behind = False

    def later(node: fx.Node) -> fx.Node:
        if node not in back_copies:
            if node.op != "get_attr":
                raise UserError(f"train.freeze: a side branch passes {cut.target}", "choose backbone or another block")
            back_copies[node] = back.node_copy(node)
        return back_copies[node]

    for node in graph.nodes:
        if not behind:
            front_copies[node] = front.node_copy(node, lambda old: front_copies[old])
        elif node.op != "output":
            back_copies[node] = back.node_copy(node, later)
        else:
            back.output(later(node.args[0]))
        behind = behind or node is cut
    front.output(front_copies[cut])
    return fx.GraphModule(model, front), fx.GraphModule(model, back)


def _blocks(model: nn.Module) -> list[str]:
    """Blocks behind which the network can be cut."""
    head = find_head(model)
    names = []
    for name, child in model.named_children():
        if head == name or head.startswith(f"{name}.") or not list(child.parameters()):
            continue
        names.append(name)
        if isinstance(child, nn.Sequential) and name == "features":
            names += [f"{name}.{inner}" for inner, _ in child.named_children()]
    return [name for name in names if _can_cut(model, name)]


def _can_cut(model: nn.Module, block: str) -> bool:
    try:
        split_frozen(model, block)
    except UserError:
        return False
    return True
