"""XMP: text in XML about a picture, some of which is about its size, its orientation and places in it.

A packet is only rewritten if something in it has to change; otherwise it stays byte for byte.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from xml.dom import minidom
from xml.dom.minidom import Attr, Document, Element
from xml.parsers.expat import ExpatError, ParserCreate

from pellucid.pictures.contents.parts import GAIN_MAP
from pellucid.pictures.geometry import Change

_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_TIFF, _EXIF = "http://ns.adobe.com/tiff/1.0/", "http://ns.adobe.com/exif/1.0/"
_AREAS = ("http://ns.adobe.com/xmp/sType/Area#", "http://ns.acdsee.com/sType/Area#")
_DIMENSIONS = (
    "http://ns.adobe.com/xap/1.0/sType/Dimensions#",
    "http://ns.acdsee.com/sType/Dimensions#",
)
_APPLIED_TO = "AppliedToDimensions"
_MICROSOFT_REGION = "http://ns.microsoft.com/photo/1.2/t/Region#"
_IPTC_EXTENSION = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
_PANORAMA = "http://ns.google.com/photos/1.0/panorama/"
_NOTE = "http://ns.adobe.com/xmp/note/"
_CAMERA = "http://ns.google.com/photos/1.0/camera/"
_DEPTH = "http://ns.google.com/photos/1.0/depthmap/"

_GONE = {
    "http://ns.adobe.com/hdr-gain-map/1.0/": GAIN_MAP,
    "http://ns.apple.com/HDRGainMap/1.0/": GAIN_MAP,
    "http://ns.apple.com/pixeldatainfo/1.0/": "auxiliary pictures",
    "http://ns.google.com/photos/1.0/container/": "appended pictures or videos",
    "http://ns.google.com/photos/1.0/container/item/": "appended pictures or videos",
    "http://ns.google.com/photos/dd/1.0/device/": "depth data",
}
"""Namespaces of properties that announce parts of the file that are not kept, and what these parts are."""

_DEVELOPERS: dict[str, frozenset[str]] = {
    "http://ns.adobe.com/camera-raw-settings/1.0/": frozenset(),
    "http://ns.adobe.com/camera-raw-saved-settings/1.0/": frozenset(),
    "http://ns.adobe.com/camera-raw-defaults/1.0/": frozenset(),
    "http://ns.adobe.com/camera-raw-embedded-lens-profile/1.0/": frozenset(),
    "http://darktable.sf.net/": frozenset({"colorlabels"}),
}
"""Namespaces of the settings of RAW developers, and properties in them that are none."""

_OF_RAW = {
    "http://purl.org/dc/elements/1.1/": ("format",),
    "http://ns.adobe.com/photoshop/1.0/": ("SidecarForExtension", "ColorMode", "ICCProfile"),
    _TIFF: ("Compression", "PhotometricInterpretation", "BitsPerSample", "SamplesPerPixel", "PlanarConfiguration"),
    _EXIF: ("ColorSpace", "CFAPattern", "CompressedBitsPerPixel"),
}
"""Properties of the undeveloped samples and of their file."""

_MAX_DEPTH = 200
_MAX_NAMES = 3
"""How many properties a note names."""

_GONE_CAMERA = re.compile(r"(MotionPhoto|MicroVideo)")
_ORIENTATION = re.compile(rb"(tiff:Orientation(?:=[\"']|>)\s*)\d")

_PANORAMA_WIDTHS = (
    *("FullPanoWidthPixels", "CroppedAreaImageWidthPixels", "CroppedAreaLeftPixels"),
    *("LargestValidInteriorRectLeft", "LargestValidInteriorRectWidth"),
)
_PANORAMA_HEIGHTS = (
    *("FullPanoHeightPixels", "CroppedAreaImageHeightPixels", "CroppedAreaTopPixels"),
    *("LargestValidInteriorRectTop", "LargestValidInteriorRectHeight"),
)

Node = Attr | Element
"""A property: as an attribute, or as an element."""


def adapt(packet: bytes, change: Change) -> tuple[bytes, tuple[str, ...]]:
    """(the packet, true for a turned and scaled picture, what was removed)."""
    try:
        editor = _Editor(packet)
    except (ExpatError, ValueError, LookupError):
        return _ORIENTATION.sub(rb"\g<1>1", packet) if change.is_turned else packet, ()
    _adapt_sizes(editor, change)
    _adapt_resolution(editor, change)
    _adapt_subject(editor, change)
    for area in editor.find_structures(_AREAS, "x"):
        _adapt_area(editor, area, change)
    for size in editor.find_structures(_DIMENSIONS, "w"):
        if any(_local_name(element) == _APPLIED_TO for element in (size.element, *_ancestors(size.element))):
            width, height = size.number("w"), size.number("h")
            if width and height:
                editor.set_all(size, zip("wh", _rounded(change.resize(width, height)), strict=True))
    for node in editor.find(_MICROSOFT_REGION, "Rectangle"):
        editor.set_text(node, _adapt_rectangle(_text(node), change))
    for boundary in editor.find_structures((_IPTC_EXTENSION,), "rbX"):
        _adapt_boundary(editor, boundary, change)
    _adapt_panorama(editor, change)
    _remove_gone(editor, change)
    return editor.packet, tuple(dict.fromkeys(editor.removed))


def reset_orientation(packet: bytes) -> bytes:
    """The packet of a picture whose orientation was applied."""
    try:
        editor = _Editor(packet)
    except (ExpatError, ValueError, LookupError):
        return _ORIENTATION.sub(rb"\g<1>1", packet)
    for node in editor.find(_TIFF, "Orientation"):
        editor.set_text(node, "1")
    return editor.packet


def is_packet(packet: bytes) -> bool:
    """Whether it can be read as XMP."""
    try:
        return bool(_Editor(packet).rdf)
    except (ExpatError, ValueError, LookupError):
        return False


def remove_development(packet: bytes) -> tuple[bytes, tuple[str, ...]]:
    """(the packet of a developed picture, what was removed), given that of its camera RAW file.

    The settings of RAW developers were for the undeveloped samples: programs would apply them again.
    """
    try:
        editor = _Editor(packet)
    except (ExpatError, ValueError, LookupError):
        return packet, ()
    removed: tuple[str, ...] = ()
    for namespace, kept in _DEVELOPERS.items():
        if any(_local_name(node) not in kept for node in editor.find(namespace, None)):
            editor.remove_namespace(namespace, kept)
            removed = ("settings of RAW developers",)
    for namespace, names in _OF_RAW.items():
        for node in [node for name in names for node in editor.find(namespace, name)]:
            editor.remove(node)
    return editor.packet, removed


def join(packets: Iterable[bytes]) -> tuple[bytes, tuple[str, ...]]:
    """(one packet with the properties of all, what is not kept), where the first value of a property is kept."""
    joined, dropped = b"", list[str]()
    for packet in filter(None, dict.fromkeys(packets)):
        if joined:
            dropped += _describe_conflicts(joined, packet)
        joined = complete(joined, packet)
    return joined, tuple(dropped)


def _describe_conflicts(packet: bytes, other: bytes) -> Iterator[str]:
    try:
        known, others = _list_values(_Editor(packet)), _list_values(_Editor(other))
    except (ExpatError, ValueError, LookupError):
        yield "one of several XMP packets, which is damaged"
        return
    names = [name for key, (name, value) in others.items() if known.get(key, (name, value))[1] != value]
    if names:
        more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
        yield f"other values of {', '.join(names[:_MAX_NAMES])}{more} in a second XMP packet"


def _list_values(editor: "_Editor") -> dict[tuple[str | None, str | None], tuple[str, str]]:
    """(namespace, local name) -> (name with prefix, value) of each property."""
    return {
        (node.namespaceURI, node.localName): (node.nodeName, _serialize_value(node))
        for node in _properties(editor)
    }


def _serialize_value(node: Node) -> str:
    """The content of a property, the same as an attribute and as an element, without space between elements."""
    elements = [] if isinstance(node, Attr) else [child for child in node.childNodes if isinstance(child, Element)]
    text = "".join(child.toxml() for child in elements) if elements else _text(node)
    return re.sub(r"(?<=>)\s+(?=<)", "", text).strip()


def complete(packet: bytes, other: bytes) -> bytes:
    """A packet with those properties of another one that it does not have; the first that can be read."""
    try:
        editor = _Editor(packet)
    except (ExpatError, ValueError, LookupError):
        return other
    try:
        source = _Editor(other)
    except (ExpatError, ValueError, LookupError):
        return packet
    known = {(node.namespaceURI, node.localName) for node in _properties(editor)}
    for node in [node for node in _properties(source) if (node.namespaceURI, node.localName) in known]:
        source.remove(node)
    return merge(packet, source.packet) if _properties(source) else packet


def merge(packet: bytes, extension: bytes) -> bytes:
    """One packet from the two parts of a long one in JPEG; the first part if they do not fit together."""
    try:
        editor, other = _Editor(packet), _Editor(extension)
    except (ExpatError, ValueError, LookupError):
        return packet
    for node in editor.find(_NOTE, "HasExtendedXMP"):
        editor.remove(node)
    target = editor.rdf
    for description in other.descriptions:
        copy = editor.document.importNode(description, deep=True)
        target.appendChild(copy)
        _declare_prefixes(description, copy)
    editor.is_changed = True
    return editor.packet


def split(packet: bytes, max_bytes: int) -> tuple[bytes, bytes]:
    """(a packet of at most max_bytes without what is too long, the rest as a second packet).

    The first is b"" if nothing fits, the second is b"" if everything does.
    """
    packet = _without_padding(packet)
    if len(packet) <= max_bytes:
        return packet, b""
    try:
        editor, other = _Editor(packet), _Editor(packet)
    except (ExpatError, ValueError, LookupError):
        return b"", b""
    moved = _longest_properties(editor, len(packet) - max_bytes)
    for node, twin in zip(_properties(editor), _properties(other), strict=True):
        if id(node) in moved:
            editor.remove(node)
        else:
            other.remove(twin)
    editor.is_changed = other.is_changed = True
    return (editor.packet, other.packet) if len(editor.packet) <= max_bytes else (b"", b"")


def note_extension(packet: bytes, digest: str) -> bytes:
    """The first packet of a split one, with the name (MD5) of the second."""
    editor = _Editor(packet)
    description = editor.descriptions[0]
    description.setAttributeNS("http://www.w3.org/2000/xmlns/", "xmlns:xmpNote", _NOTE)
    description.setAttributeNS(_NOTE, "xmpNote:HasExtendedXMP", digest)
    editor.is_changed = True
    return editor.packet


def _properties(editor: "_Editor") -> list[Node]:
    """All properties of the descriptions, in order."""
    found: list[Node] = []
    for description in editor.descriptions:
        found += [attr for attr in _attributes(description) if attr.namespaceURI != _RDF]
        found += [node for node in description.childNodes if isinstance(node, Element)]
    return found


def _longest_properties(editor: "_Editor", num_bytes: int) -> set[int]:
    """The properties, by identity, that have to go to shorten a packet by this and by the name of the rest."""
    lengths = {id(node): len(_serialize(node).encode()) for node in _properties(editor)}
    chosen: set[int] = set()
    missing = num_bytes + 256
    for node, length in sorted(lengths.items(), key=lambda item: -item[1]):
        if missing > 0:
            chosen.add(node)
            missing -= length
    return chosen


def _serialize(node: Node) -> str:
    return node.toxml() if isinstance(node, Element) else f"{node.name}={node.value}"


def _adapt_sizes(editor: "_Editor", change: Change) -> None:
    names = (
        (_TIFF, "ImageWidth", "ImageLength"),
        (_EXIF, "PixelXDimension", "PixelYDimension"),
    )
    for namespace, *pair in names:
        for name, size in zip(pair, change.after, strict=True):
            for node in editor.find(namespace, name):
                editor.set_text(node, str(size))


def _adapt_resolution(editor: "_Editor", change: Change) -> None:
    pairs = (
        (_TIFF, "XResolution", "YResolution", False),
        (_EXIF, "FocalPlaneXResolution", "FocalPlaneYResolution", True),
    )
    for namespace, across, down, is_scaled in pairs:
        for x, y in zip(editor.find(namespace, across), editor.find(namespace, down), strict=False):
            values = (_text(y), _text(x)) if change.swaps_axes else (_text(x), _text(y))
            for node, value, factor in zip((x, y), values, change.scale, strict=True):
                editor.set_text(node, _scale_fraction(value, factor) if is_scaled else value)


def _scale_fraction(text: str, factor: float) -> str:
    numerator, slash, denominator = text.partition("/")
    try:
        return text if factor == 1 else f"{round(float(numerator) * factor)}{slash}{denominator}"
    except ValueError:
        return text


def _adapt_subject(editor: "_Editor", change: Change) -> None:
    for name in ("SubjectArea", "SubjectLocation"):
        for node in editor.find(_EXIF, name):
            items = [*_elements(node, _RDF, "li")]
            numbers = [_parse_number(_text(item)) for item in items]
            if len(numbers) < 2 or None in numbers:
                continue
            known = [number for number in numbers if number is not None]
            moved = list(change.move_px(*known[:2]))
            if len(known) == 3:
                moved.append(known[2] * min(change.scale))
            elif len(known) == 4:
                moved += change.resize(*known[2:])
            for item, value in zip(items, moved, strict=False):
                editor.set_text(item, str(round(value)))


def _adapt_area(editor: "_Editor", area: "_Structure", change: Change) -> None:
    """A region by its center and size, in fractions of the picture, or in pixels."""
    x, y = area.number("x"), area.number("y")
    if x is None or y is None:
        return
    in_pixels = area.text("unit") == "pixel"
    move, resize = (change.move_px, change.resize) if in_pixels else (change.move, change.swap)
    values = dict(zip("xy", move(x, y), strict=True))
    width, height = area.number("w"), area.number("h")
    if width is not None and height is not None:
        values |= dict(zip("wh", resize(width, height), strict=True))
    diameter = area.number("d")
    if diameter is not None and in_pixels:
        values["d"] = diameter * min(change.scale)
    editor.set_all(area, ((name, _format(value)) for name, value in values.items()))


def _adapt_rectangle(text: str, change: Change) -> str:
    """Microsoft's "left, top, width, height" in fractions of the picture."""
    numbers = [_parse_number(part) for part in text.split(",")]
    if len(numbers) != 4 or None in numbers:
        return text
    left, top, width, height = (number for number in numbers if number is not None)
    corners = [change.move(left, top), change.move(left + width, top + height)]
    origin = (min(x for x, _ in corners), min(y for _, y in corners))
    return ", ".join(map(_format, (*origin, *change.swap(width, height))))


def _adapt_boundary(editor: "_Editor", boundary: "_Structure", change: Change) -> None:
    """A rectangle, circle or point of a polygon in IPTC's image regions; rectangles by their corner."""
    x, y = boundary.number("rbX"), boundary.number("rbY")
    if x is None or y is None:
        return
    in_pixels = _boundary_unit(boundary.element) == "pixel"
    move, resize = (change.move_px, change.resize) if in_pixels else (change.move, change.swap)
    width, height = boundary.number("rbW"), boundary.number("rbH")
    if width is not None and height is not None:
        corners = [move(x, y), move(x + width, y + height)]
        values = {"rbX": min(x for x, _ in corners), "rbY": min(y for _, y in corners)}
        values |= dict(zip(("rbW", "rbH"), resize(width, height), strict=True))
    else:
        values = dict(zip(("rbX", "rbY"), move(x, y), strict=True))
    radius = boundary.number("rbRx")
    if radius is not None and in_pixels:
        values["rbRx"] = radius * min(change.scale)
    elif radius is not None and change.swaps_axes:
        values["rbRx"] = radius * change.before[0] / change.before[1]  # in widths of the picture
    editor.set_all(boundary, ((name, _format(value)) for name, value in values.items()))


def _boundary_unit(element: Element) -> str:
    for parent in (element, *_ancestors(element)):
        unit = _Structure(parent, _IPTC_EXTENSION).text("rbUnit")
        if unit:
            return unit
    return ""


def _adapt_panorama(editor: "_Editor", change: Change) -> None:
    if change.is_turned and editor.has_namespace(_PANORAMA):
        editor.remove_namespace(_PANORAMA)
        editor.removed.append("the description as a panorama, because the picture was turned")
        return
    for names, factor in zip((_PANORAMA_WIDTHS, _PANORAMA_HEIGHTS), change.scale, strict=True):
        for name in names:
            for node in editor.find(_PANORAMA, name):
                number = _parse_number(_text(node))
                if number is not None:
                    editor.set_text(node, str(round(number * factor)))


def _remove_gone(editor: "_Editor", change: Change) -> None:
    for namespace, part in _GONE.items():
        if editor.has_namespace(namespace):
            editor.remove_namespace(namespace)
            editor.removed.append(part)
    for node in [*editor.find(_CAMERA, None)]:
        if _GONE_CAMERA.match(node.localName or ""):
            editor.remove(node)
            editor.removed.append("the video of a motion photo")
    for node in [*editor.find("http://ns.adobe.com/xap/1.0/", "Thumbnails")]:
        editor.remove(node)
        editor.removed.append("the preview in XMP")
    if change.is_turned and editor.has_namespace(_DEPTH):
        editor.remove_namespace(_DEPTH)
        editor.removed.append("the depth map, because the picture was turned")


def _rounded(pair: tuple[float, float]) -> tuple[str, str]:
    return str(round(pair[0])), str(round(pair[1]))


def _format(value: float) -> str:
    """At most 10 digits behind the point."""
    return f"{value:.10f}".rstrip("0").rstrip(".")


def _parse_number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _text(node: Node) -> str:
    if isinstance(node, Attr):
        return str(node.value)
    return "".join(child.data for child in node.childNodes if child.nodeType == child.TEXT_NODE).strip()


def _local_name(node: Node) -> str:
    return str(node.localName)


def _ancestors(element: Element) -> Iterator[Element]:
    parent = element.parentNode
    while isinstance(parent, Element):
        yield parent
        parent = parent.parentNode


def _attributes(element: Element) -> list[Attr]:
    """All attributes but declarations of namespaces."""
    attributes = [element.getAttributeNode(name) for name in [*element.attributes.keys()]]
    return [attr for attr in attributes if attr is not None and not attr.name.startswith("xmlns")]


def _elements(node: Node, namespace: str, name: str) -> Iterator[Element]:
    if isinstance(node, Element):
        yield from node.getElementsByTagNameNS(namespace, name)


def _declare_prefixes(source: Element, target: Element) -> None:
    """Repeat the declarations of namespaces that an element inherited in its old document."""
    for parent in _ancestors(source):
        for name, value in parent.attributes.items():
            if name.startswith("xmlns") and not target.hasAttribute(name):
                target.setAttributeNS("http://www.w3.org/2000/xmlns/", name, value)


@dataclass(frozen=True)
class _Structure:
    """Properties of one namespace, as attributes or as elements within one element."""

    element: Element
    namespace: str

    def find(self, name: str) -> Node | None:
        if self.element.hasAttributeNS(self.namespace, name):
            return self.element.getAttributeNodeNS(self.namespace, name)
        for child in self.element.childNodes:
            if isinstance(child, Element) and (child.namespaceURI, child.localName) == (self.namespace, name):
                return child
        return None

    def text(self, name: str) -> str:
        node = self.find(name)
        return "" if node is None else _text(node)

    def number(self, name: str) -> float | None:
        return _parse_number(self.text(name))


@dataclass
class _Editor:
    """A packet that can be changed. Raises ExpatError or ValueError for a packet that is not XMP."""

    original: bytes
    document: Document = field(init=False)
    removed: list[str] = field(default_factory=list)
    is_changed: bool = False

    def __post_init__(self) -> None:
        text = _decode(self.original)
        if "<!DOCTYPE" in text or "<!ENTITY" in text:
            raise ValueError("XMP has no document type")
        match = re.search(r"<(?:\w+:)?(?:xmpmeta|xapmeta|RDF)\b", text)
        if match is None:
            raise ValueError("not XMP")
        end = text.rindex(">", 0, _find_end(text, match.start())) + 1
        self._before, self._behind = text[: match.start()], text[end:]
        content = text[match.start() : end].encode()
        _check_depth(content)
        self.document = minidom.parseString(content)
        if not self.document.getElementsByTagNameNS(_RDF, "RDF"):
            raise ValueError("XMP without RDF")

    @property
    def packet(self) -> bytes:
        """The original bytes if nothing was changed."""
        if not self.is_changed:
            return self.original
        root = self.document.documentElement
        assert root is not None
        return (self._before + root.toxml() + self._behind).encode()

    @property
    def rdf(self) -> Element:
        return self.document.getElementsByTagNameNS(_RDF, "RDF")[0]

    @property
    def descriptions(self) -> list[Element]:
        return [
            node
            for node in self.rdf.childNodes
            if isinstance(node, Element) and (node.namespaceURI, node.localName) == (_RDF, "Description")
        ]

    def find(self, namespace: str, name: str | None) -> Iterator[Node]:
        """All properties of this name, or all of the namespace."""
        for element in [*self.document.getElementsByTagName("*")]:
            if element.namespaceURI == namespace and name in (None, element.localName):
                yield element
            for attr in _attributes(element):
                if attr.namespaceURI == namespace and name in (None, attr.localName):
                    yield attr

    def has_namespace(self, namespace: str) -> bool:
        return next(self.find(namespace, None), None) is not None

    def find_structures(self, namespaces: tuple[str, ...], name: str) -> list[_Structure]:
        """All structures that have this property in one of the namespaces."""
        found: list[_Structure] = []
        for namespace in namespaces:
            for node in self.find(namespace, name):
                owner = node.ownerElement if isinstance(node, Attr) else node.parentNode
                if isinstance(owner, Element):
                    found.append(_Structure(owner, namespace))
        return found

    def set_text(self, node: Node, text: str) -> None:
        if _text(node) == text:
            return
        self.is_changed = True
        if isinstance(node, Attr):
            node.value = text
            return
        for child in [*node.childNodes]:
            node.removeChild(child)
        node.appendChild(self.document.createTextNode(text))

    def set_all(self, structure: _Structure, values: Iterable[tuple[str, str]]) -> None:
        for name, text in values:
            node = structure.find(name)
            if node is not None:
                self.set_text(node, text)

    def remove(self, node: Node) -> None:
        self.is_changed = True
        if isinstance(node, Attr):
            if node.ownerElement is not None:
                node.ownerElement.removeAttributeNode(node)
        elif node.parentNode is not None:
            node.parentNode.removeChild(node)

    def remove_namespace(self, namespace: str, kept: frozenset[str] = frozenset()) -> None:
        """Remove all properties of a namespace, and what is in them, but those with the names `kept`."""
        for node in [node for node in self.find(namespace, None) if node.localName not in kept]:
            owner = node.ownerElement if isinstance(node, Attr) else node.parentNode
            if owner is not None:
                self.remove(node)
        for element in [] if kept else self.document.getElementsByTagName("*"):
            for name, value in [*element.attributes.items()]:
                if value == namespace and name.startswith("xmlns:"):
                    element.removeAttribute(name)


def _check_depth(content: bytes) -> None:
    """Raise ValueError for elements nested so deeply that walking through them would fail."""
    depth = 0

    def enter(*_: object) -> None:
        nonlocal depth
        depth += 1
        if depth > _MAX_DEPTH:
            raise ValueError("elements are nested too deeply")

    def leave(_: str) -> None:
        nonlocal depth
        depth -= 1

    parser = ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = enter, leave
    parser.Parse(content, True)


def _decode(packet: bytes) -> str:
    """The text; UTF-16 is recognized by its zeros."""
    if packet.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in packet[:4]:
        return packet.decode("utf-16" if packet[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-16-be")
    return packet.rstrip(b"\0").decode("utf-8-sig")


def _find_end(text: str, start: int) -> int:
    """Where the root element ends: in front of the last processing instruction."""
    end = text.rfind("<?xpacket", start)
    return len(text) if end < 0 else end


def _without_padding(packet: bytes) -> bytes:
    """The packet without the spaces that are reserved for changes."""
    return re.sub(rb"\s{64,}(?=<\?xpacket)", b"\n", packet)
