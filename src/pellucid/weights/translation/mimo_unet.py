"""MIMO-UNet: Cho's PyTorch code and MindSpore's model zoo, which share their names."""

import re
from typing import Any

from pellucid.weights.foreign.reading import ForeignWeights
from pellucid.weights.translation.scheme import Scheme, Tensors, rename

AUTHORS = Scheme(
    "feat_extract, Encoder, Decoder, Convs, ConvsOut, AFFs, FAM1, SCM1 (Cho, MindSpore)",
    {
        "feat_extract.0.main.0": "enter1.0",
        "feat_extract.1.main.0": "enter2.0",
        "feat_extract.2.main.0": "enter4.0",
        "feat_extract.3.main.0": "up4.0",
        "feat_extract.4.main.0": "up2.0",
        "feat_extract.5.main.0": "leave1.0",
        "Encoder.0.layers.*.main.0.main.0": "encoder1.*.first.0",
        "Encoder.0.layers.*.main.1.main.0": "encoder1.*.second.0",
        "Encoder.1.layers.*.main.0.main.0": "encoder2.*.first.0",
        "Encoder.1.layers.*.main.1.main.0": "encoder2.*.second.0",
        "Encoder.2.layers.*.main.0.main.0": "encoder4.*.first.0",
        "Encoder.2.layers.*.main.1.main.0": "encoder4.*.second.0",
        "Decoder.0.layers.*.main.0.main.0": "decoder4.*.first.0",
        "Decoder.0.layers.*.main.1.main.0": "decoder4.*.second.0",
        "Decoder.1.layers.*.main.0.main.0": "decoder2.*.first.0",
        "Decoder.1.layers.*.main.1.main.0": "decoder2.*.second.0",
        "Decoder.2.layers.*.main.0.main.0": "decoder1.*.first.0",
        "Decoder.2.layers.*.main.1.main.0": "decoder1.*.second.0",
        "Convs.0.main.0": "join2.0",
        "Convs.1.main.0": "join1.0",
        "ConvsOut.0.main.0": "leave4.0",
        "ConvsOut.1.main.0": "leave2.0",
        "AFFs.0.conv.*.main.0": "fuse1.layers.*.0",
        "AFFs.1.conv.*.main.0": "fuse2.layers.*.0",
        "FAM1.merge.main.0": "attend4.merge.0",
        "FAM2.merge.main.0": "attend2.merge.0",
        "SCM1.main.*.main.0": "shallow4.layers.*.0",
        "SCM1.conv.main.0": "shallow4.mix.0",
        "SCM2.main.*.main.0": "shallow2.layers.*.0",
        "SCM2.conv.main.0": "shallow2.mix.0",
    },
)


def translate_tensors(foreign: ForeignWeights) -> tuple[dict[str, Any], Tensors]:
    _, renamed = rename(foreign, dict(foreign.tensors), [AUTHORS])
    # MindSpore's version has the same names, but upsamples features by another rule.
    upsampling = "asymmetric" if foreign.framework == "MindSpore" else "nearest"
    num_blocks = sum(re.fullmatch(r"encoder1\.\d+\.first\.0\.weight", name) is not None for name in renamed)
    enter = renamed.get("enter1.0.weight")
    size = {"num_blocks": num_blocks, "width": len(enter)} if num_blocks and enter is not None else {}
    return {"upsampling": upsampling, **size}, renamed
