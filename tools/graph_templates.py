"""Write the graph templates of all models that ship: ONNX graphs without weights, one for each architecture.

    python tools/graph_templates.py

Needed after a change of a network, of how graphs are made, or of the models that ship; a test fails until then.
The files do not depend on the weights of the models, and are the same each time. Takes a minute.
"""

import sys

import torch

from pellucid.backends import graphs, templates
from pellucid.backends.model import load_model
from pellucid.recipes.network import Network
from pellucid.weights.models import list_models


def main() -> None:
    """Write the templates, print their sizes, and remove those of architectures that no longer ship."""
    contents = make_all()
    templates.FOLDER.mkdir(exist_ok=True)
    for path in templates.FOLDER.glob("*.onnx"):
        if path.name not in contents:
            path.unlink()
    for name, content in contents.items():
        (templates.FOLDER / name).write_bytes(content)
        sys.stdout.write(f"{len(content) / 1000:6.1f} KB  {name}\n")
    sys.stdout.write(f"{sum(map(len, contents.values())) / 1000:6.1f} KB  together\n")


def make_all() -> dict[str, bytes]:
    """Name and content of each template; the names start with that of the first model of the architecture."""
    contents: dict[str, bytes] = {}
    known: set[str] = set()
    for named in list_models():
        if not named.is_shipped:
            continue
        model, _ = load_model(named.path)
        network, num_planes = graphs.freeze(model.network, torch.float32), model.metadata.num_planes
        assert isinstance(network, Network)
        signature = templates.hash_architecture(network, num_planes)
        if signature is None:
            raise SystemExit(f"{named.name}: its network cannot have a template; see hash_architecture")
        if signature not in known:
            known.add(signature)
            content = make(network, num_planes)
            contents[templates.name_template(named.name, signature, content)] = content
    return contents


def make(frozen: Network, num_planes: int) -> bytes:
    """The template of a network of `graphs.freeze`, which gets random weights."""
    generator = torch.Generator().manual_seed(0)
    for tensor in frozen.state_dict().values():
        tensor.normal_(generator=generator)
    model = graphs.to_onnx(graphs.capture(frozen, num_planes))
    template = templates.make_template(model, graphs.freeze(frozen, torch.float32).state_dict())
    template.producer_version = torch.__version__.partition("+")[0]  # not that of a build for the CPU or a GPU
    return template.SerializeToString(deterministic=True)


if __name__ == "__main__":
    main()
