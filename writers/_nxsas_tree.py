"""The metadata tree of a technique, laid over the documents that are kept in the same file.

The tree is that of suitcase-nxsas, in `start["techniques"][n]["nxsas"]` or `start["md"]["techniques"][n]["nxsas"]`:
mappings are groups, all else is a dataset, `_attributes` are attributes, and `{"_data": …}` or `{"_link": …}` is a
dataset with attributes. `#bluesky/start/sample_name`, `#bluesky/stop/time`, `#bluesky/descriptors/<stream>/…` (or
`desc`) and `#bluesky/events/<stream>/data/<key>` link to a document's value; `@name` at the end takes an attribute of
it.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import h5py

from bec_bluesky.documents import Document
from writers._nexus_text import Names, set_attributes, write_value

__all__ = ["copy_document", "find", "lay", "merged", "technique_trees"]

_REFERENCE = "#bluesky/"
_OWN = ("_attributes", "_data", "_dataset", "_link")


def technique_trees(start: Document, kind: str = "nxsas") -> Iterator[Mapping[str, Any]]:
    """Give the trees of one kind in a start document."""
    inner = start.get("md")
    for place in (start, inner if isinstance(inner, Mapping) else {}):
        techniques = place.get("techniques")
        for technique in techniques if isinstance(techniques, list | tuple) else ():
            tree = technique.get(kind) if isinstance(technique, Mapping) else None
            if isinstance(tree, Mapping):
                yield tree


def merged(*trees: Mapping[str, Any]) -> dict[str, Any]:
    """Lay trees over each other: what comes later wins."""
    result: dict[str, Any] = {}
    for tree in trees:
        for key, value in tree.items():
            before = result.get(key)
            if isinstance(value, Mapping):
                value = merged(before, value) if isinstance(before, Mapping) else merged(value)
            result[key] = value
    return result


def copy_document(doc: Mapping[str, Any], group: h5py.Group) -> None:
    """Keep a document as groups and datasets; None is left out, and what HDF5 has no type for is JSON."""
    names = Names()
    for key, value in doc.items():
        if isinstance(value, Mapping):
            copy_document(value, group.create_group(names[str(key)]))
        elif value is not None:
            write_value(group, names[str(key)], value)


def lay(tree: Mapping[str, Any], group: h5py.Group, bluesky: h5py.Group, problems: list[str]) -> None:
    """Make groups, datasets and links as a tree says; what cannot be made is said in `problems`."""
    set_attributes(group, _attributes(tree))
    for key, value in tree.items():
        if key in _OWN:
            continue
        if not key or "/" in key or key in (".", ".."):
            problems.append(f"{group.name}: {key!r} is no name for a group or dataset")
            continue
        if isinstance(value, Mapping) and not any(word in value for word in _OWN[1:]):
            inner = group.get(key)
            lay(value, inner if isinstance(inner, h5py.Group) else group.create_group(key), bluesky, problems)
            continue
        _lay_dataset(group, key, value, bluesky, problems)


def _lay_dataset(group: h5py.Group, key: str, value: Any, bluesky: h5py.Group, problems: list[str]) -> None:
    attributes = _attributes(value) if isinstance(value, Mapping) else {}
    if isinstance(value, Mapping):
        value = value.get("_link", value.get("_data", value.get("_dataset")))
    if value is None:
        return
    if not (isinstance(value, str) and value.startswith(_REFERENCE)):
        write_value(group, key, value, attributes)
        return
    path, _, attribute = value.removeprefix(_REFERENCE).partition("@")
    found = find(bluesky, path)
    if found is None or (attribute and attribute not in getattr(found, "attrs", ())):
        problems.append(f"{group.name}/{key}: {value} names nothing in this run")
    elif isinstance(found, h5py.ExternalLink):
        group[key] = h5py.ExternalLink(found.filename, found.path)
    elif attribute:
        write_value(group, key, found.attrs[attribute], attributes)
    else:
        group[key] = found
        set_attributes(found, attributes)


def find(bluesky: h5py.Group, path: str) -> h5py.HLObject | h5py.ExternalLink | None:
    """Give what a reference names; a link into a detector's file is given itself, not followed."""
    found: Any = bluesky
    for number, word in enumerate(path.strip("/").split("/")):
        name = "descriptors" if number == 0 and word == "desc" else Names()[word]
        if not isinstance(found, h5py.Group):
            return None
        link = found.get(name, getlink=True)
        found = link if isinstance(link, h5py.ExternalLink) else found.get(name)
    return found


def _attributes(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Give the attributes, with the class under the name and in the spelling that readers look for."""
    given = tree.get("_attributes")
    attributes = dict(given) if isinstance(given, Mapping) else {}
    spelled = attributes.get("NX_class", attributes.get("NX_Class"))
    if isinstance(spelled, str) and spelled[:2] == "NX":  # the examples of suitcase-nxsas write NX_Class = NXEntry
        attributes["NX_class"] = f"NX{spelled[2:].lower()}"
    return attributes
