"""Fields of entries, read in the same way by all readers: ids, texts, and images inside the data set's folder."""

from __future__ import annotations

import datetime as dt
import json
from typing import TYPE_CHECKING, Any, NamedTuple

from ciea_hf.data.dataset import unpack_metadata
from ciea_hf.data.images import UNAVAILABLE, path_inside

if TYPE_CHECKING:
    from pathlib import Path

    from ciea_hf.data.images import EncodedImage
    from ciea_hf.data.issues import IssueHandler, Location
    from ciea_hf.data.parsing import Entry

TEXTS = ("text", "caption", "contents")  # keys of a document's text
IDS = ("id", "_id", "corpus-id", "corpus_id", "docid", "doc_id", "query_id")
OWN_FIELDS = frozenset((*IDS, *TEXTS, "title", "image", "modality"))  # all other fields of a document are metadata
OTHER_IMAGES = ("images", "img", "image_path", "img_path", "image_file", "img_file")  # an image, but not by our name
QUERY_TEXTS = ("text", "query", "question")
QUERY_PARTS = ("image", "query_image", *OTHER_IMAGES, "instruction")  # keys of queries that are more than a text


class CorpusEntry(NamedTuple):
    """A document: text or caption, or `None`; encoded image, or `None` for a text; further fields as a JSON object."""

    location: Location
    id: str
    text: str | None
    image: EncodedImage | None
    metadata: str | None = None


class Query(NamedTuple):
    """A query."""

    location: Location
    id: str
    text: str


def short(value: Any) -> str:
    """Return a value for an error message."""
    return "nothing" if value is None else repr(value)[:80]


def required_id(entry: Entry, key: str, report: IssueHandler) -> str | None:
    """Return a field of an entry as text; report an issue if it is missing."""
    value = entry.value.get(key)
    if isinstance(value, str | int) and not isinstance(value, bool) and str(value).strip():
        return str(value)
    report("unreadable", entry.location, entry.key, f"{key!r} must be a text or a number; got {short(value)}")
    return None


def id_list(entry: Entry, key: str, report: IssueHandler) -> list[str]:
    """Return a field of an entry that is a list of ids; empty if missing."""
    value = entry.value.get(key) or []
    if isinstance(value, list) and all(isinstance(item, str | int) for item in value):
        return [str(item) for item in value]
    report("unreadable", entry.location, entry.key, f"{key!r} must be a list of ids; got {short(value)}")
    return []


def query_of(entry: Entry, name: str, text: Any, report: IssueHandler) -> Query | None:
    """Create a query; report an issue if its text is something else than a text."""
    if text is not None and not isinstance(text, str):
        report("unreadable", entry.location, name, f"the query must be a text; got {short(text)}")
        return None
    return Query(entry.location, name, text or "")


def only_text_query(entry: Entry, name: str, report: IssueHandler) -> Query | None:
    """Create a query of this package's own formats; report an issue if it is more than a text."""
    extra = [key for key in QUERY_PARTS if entry.value.get(key) not in (None, "", [])]
    if extra:
        message = f"the query has {extra[0]!r}; only queries that are texts are supported"
        report("unreadable", entry.location, name, message)
        return None
    return query_of(entry, name, _only_one(entry, QUERY_TEXTS, name, report), report)


def document_of(entry: Entry, name: str, text: Any, image: EncodedImage | None, report: IssueHandler) -> CorpusEntry:
    """Create a document; report an empty text or caption, and one that is something else than a text."""
    if text is not None and not isinstance(text, str):
        report("unreadable", entry.location, name, f"the text must be a text; got {short(text)}")
        text = None
    written = text if text is not None and text.strip() else None
    if written is None and image is not None:
        report("empty-caption", entry.location, name, "the caption is empty")
    elif written is None:
        report("empty-document", entry.location, name, "the text is empty")
        written = ""
    return CorpusEntry(entry.location, name, written, image)


def own_document(entry: Entry, name: str, image: EncodedImage | None, report: IssueHandler) -> CorpusEntry:
    """Create a document of this package's own formats: its text may have several names, and a title.

    A document that has an image and no field for a caption is an image alone, and not one whose caption is empty.
    Further fields are its metadata.
    """
    metadata = _further_fields(entry)
    other = next((key for key in OTHER_IMAGES if image is None and entry.value.get(key)), None)
    if other is not None:
        report("unreadable", entry.location, name, f"the image is under {other!r}; its name must be 'image'")
    text = _only_one(entry, TEXTS, name, report)
    title = entry.value.get("title")
    if image is not None and text is None and not title and all(entry.value.get(key) is None for key in TEXTS):
        return CorpusEntry(entry.location, name, None, image, metadata)
    if title is not None and not isinstance(title, str):
        report("unreadable", entry.location, name, f"'title' must be a text; got {short(title)}")
    elif title and title.strip() and (text is None or isinstance(text, str)):
        text = " ".join(part for part in (title.strip(), (text or "").strip()) if part)
    return document_of(entry, name, text, image, report)._replace(metadata=metadata)


def _further_fields(entry: Entry) -> str | None:
    """Return the fields of a document that have no meaning of their own, as a JSON object; `None` without any."""
    further = {key: value for key, value in entry.value.items() if key not in OWN_FIELDS and value is not None}
    return json.dumps(unpack_metadata(further), ensure_ascii=False, sort_keys=True, default=_text) if further else None


def _text(value: Any) -> str:
    """Return a value that JSON has no form for, such as a date, as text."""
    return str(value.isoformat()) if isinstance(value, dt.date | dt.time) else str(value)


def _only_one(entry: Entry, keys: tuple[str, ...], name: str, report: IssueHandler) -> Any:
    """Return the only given one of several fields; report an issue if two of them differ."""
    given = [key for key in keys if entry.value.get(key) not in (None, "")]
    for key in given[1:]:
        if entry.value[key] != entry.value[given[0]]:
            report("unreadable", entry.location, name, f"{given[0]!r} and {key!r} are two different texts; keep one")
    return entry.value[given[0]] if given else entry.value.get(keys[0])


def local_image(entry: Entry, name: str, root: Path, path: Any, report: IssueHandler) -> EncodedImage:
    """Return an image at a path; report an issue, and return a missing image, unless it is inside a folder.

    Args:
        entry: Entry of the document.
        name: Id of the document.
        root: The folder; relative paths start here.
        path: The path.
        report: Handler of issues.
    """
    try:
        return {"bytes": None, "path": path_inside(root, path)}
    except (TypeError, ValueError) as error:
        report("unreadable", entry.location, name, str(error))
        return UNAVAILABLE
