"""Prints a suite of SPF, or the validation suite of ARC, as JSON."""

import gzip
import json
import sys

import yaml


class Loader(yaml.SafeLoader):
    """Numbers and dates stay as they are written."""


Loader.yaml_implicit_resolvers = {}


def mapping(loader, node):
    """Two tests of one name are two tests."""
    found = {}
    for name, value in loader.construct_pairs(node, deep=True):
        while name in found:
            name += "'"
        found[name] = value
    return found


Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)

documents = []
opened = gzip.open if sys.argv[1].endswith(".gz") else open
with opened(sys.argv[1], "rt", encoding="utf-8") as suite:
    for document in yaml.load_all(suite, Loader):
        if document:
            documents.append(document)
json.dump(documents, sys.stdout)
