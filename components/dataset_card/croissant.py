"""A dataset's Croissant metadata (MLCommons, version 1.0): JSON-LD that loaders and search engines read.

Every tar with its sha256, and for each split the fields of its samples' JSON, and their images.
Source: https://docs.mlcommons.org/croissant/docs/croissant-spec.html
"""

import json
from collections.abc import Iterator
from typing import Any

from components.dataset_card.facts import DatasetFacts, limits
from components.shards.index import HOLDOUT, TRAIN, Shard, Split

CONFORMS_TO = "http://mlcommons.org/croissant/1.0"
# The specification's own.
CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
DATA_TYPES = {"string": "sc:Text", "integer": "sc:Integer", "number": "sc:Float"}
IMAGES = "*.[jpw][pne][gb]*"  # jpg, png and webp, and not json: one pattern, so that one set has them all
IMAGE_FORMATS = ["image/jpeg", "image/png", "image/webp"]


def croissant(facts: DatasetFacts, *, terms: str, url: str | None = None) -> str:
    """The metadata as JSON. terms: the licence of the dataset as a whole. url: where it is published."""
    splits = [split for split in (TRAIN, HOLDOUT) if any(tar.split == split for tar in facts.tars)]
    document: dict[str, Any] = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "name": facts.name,
        "description": _description(facts),
        "conformsTo": CONFORMS_TO,
        "license": terms,
        **({"url": url} if url else {}),
        "version": f"1.0.0+{facts.digest[:12]}",
        "datePublished": facts.made_at,
        "citeAs": f"{facts.name}, snapshot {facts.snapshot}, content {facts.digest[:12]}.",
        "inLanguage": sorted(facts.languages.keys() - {"", "und"}),
        "rai:dataCollection": _collected(facts),
        "rai:dataLimitations": limits(facts),
        "rai:machineAnnotationTools": [facts.captioner, facts.judge],
        "distribution": [
            *(_tar(tar) for tar in facts.tars),
            *(file_set for split in splits for file_set in _file_sets(facts, split)),
        ],
        "recordSet": [found for split in splits for found in _record_sets(facts, split)],
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _description(facts: DatasetFacts) -> str:
    licenses = ", ".join(sorted(facts.licenses.keys() - {""}))
    of_images = f" Licences of the images, as the corpus has them: {licenses}." if licenses else ""
    return f"{facts.samples:,} images with a model's captions and alt texts, as WebDataset tars.{of_images}"


def _collected(facts: DatasetFacts) -> str:
    steps = "; ".join(f"{step.stage}: {step.kept:,} of {step.records:,} records kept" for step in facts.steps)
    return f"Web images and their alt texts, snapshot {facts.snapshot}. {steps}."


def _tar(tar: Shard) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": tar.name,
        "name": tar.name,
        "contentUrl": tar.name,
        "contentSize": f"{tar.bytes} B",
        "encodingFormat": "application/x-tar",
        "sha256": tar.sha256,
    }


def _file_sets(facts: DatasetFacts, split: Split) -> Iterator[dict[str, Any]]:
    tars = [{"@id": tar.name} for tar in facts.tars if tar.split == split]
    for name, includes, formats in (
        ("json", "*.json", "application/json"),
        ("images", IMAGES, IMAGE_FORMATS),
    ):
        yield {
            "@type": "cr:FileSet",
            "@id": f"{split}-{name}",
            "name": f"{split}-{name}",
            "containedIn": tars,
            "encodingFormat": formats,
            "includes": includes,
        }


def _record_sets(facts: DatasetFacts, split: Split) -> Iterator[dict[str, Any]]:
    """The samples of a split: the columns of their JSON, and their images, each with the sample's key.

    Two sets rather than a joined one: mlcroissant 1.1 reads files in tars, but joins none.
    """
    in_json, in_images = {"fileSet": {"@id": f"{split}-json"}}, {"fileSet": {"@id": f"{split}-images"}}
    yield _record_set(
        split,
        [
            _field(split, name, DATA_TYPES[kind], {**in_json, "extract": {"jsonPath": f"$.{name}"}})
            for name, kind in facts.columns.items()
        ],
    )
    name = f"{split}-pictures"
    key = {"extract": {"fileProperty": "filename"}, "transform": {"regex": r"^([0-9a-f]+)\..*$"}}
    yield _record_set(
        name,
        [
            _field(name, "key", "sc:Text", {**in_images, **key}),
            _field(name, "image", "sc:ImageObject", {**in_images, "extract": {"fileProperty": "content"}}),
        ],
    )


def _record_set(name: str, fields: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "key": {"@id": f"{name}/key"},
        "field": fields,
    }


def _field(record_set: str, name: str, data_type: str, source: dict[str, Any]) -> dict[str, Any]:
    return {
        "@type": "cr:Field",
        "@id": f"{record_set}/{name}",
        "name": name,
        "dataType": data_type,
        "source": source,
    }
