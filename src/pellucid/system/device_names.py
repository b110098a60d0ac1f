"""What names of devices mean, without PyTorch, which takes seconds to load."""


def names_several(device: str) -> bool:
    """Whether this is a list such as "cuda:0,cuda:1", or "all"."""
    return "," in device or device == "all"
