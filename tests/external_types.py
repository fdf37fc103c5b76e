"""Compares the crates whose types are in the public API with the list in `crates/stentor/Cargo.toml`.

    python3 tests/external_types.py

It reads the documentation as JSON, which only an unstable option of rustdoc writes; so the option is enabled
for this one program.
"""

import json
import os
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# All that `stentor` re-exports.
CRATES = ["wire", "delivery", "engine", "transport", "cluster", "auth"]
OWN = {"stentor", *(f"stentor_{name}" for name in CRATES)}
STANDARD = {"std", "core", "alloc"}


def documentation(name, rustdoc):
    command = ["cargo", "rustdoc", "--quiet", "--lib", "--package", f"stentor-{name}", "--all-features"]
    options = ["--", "-Zunstable-options", "--output-format", "json", "--cap-lints", "allow"]
    subprocess.run(command + options, cwd=ROOT, env=os.environ | {"RUSTDOC": rustdoc}, check=True)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return json.loads((target / "doc" / f"stentor_{name}.json").read_text())


def mentions(value, found):
    """The ids of the types and traits that a signature names."""
    if isinstance(value, list):
        for item in value:
            mentions(item, found)
    elif isinstance(value, dict):
        if {"path", "id", "args"} <= value.keys():
            found.add(value["id"])
        for item in value.values():
            mentions(item, found)


def external(document):
    """Crate -> a public item that names a type of the crate, for each crate that is not the standard library."""
    crates = {}
    for item in document["index"].values():
        impl = item["inner"].get("impl", {})
        # What every type implements, and what its methods look like, is not of this crate.
        if item["crate_id"] != 0 or impl.get("is_synthetic") or impl.get("blanket_impl"):
            continue
        named = set()
        mentions({key: value for key, value in item["inner"].items()}, named)
        for named_id in named:
            path = document["paths"].get(str(named_id))
            if path is None or path["crate_id"] == 0:
                continue
            name = document["external_crates"][str(path["crate_id"])]["name"]
            if name not in OWN | STANDARD:
                where = document["paths"].get(str(item["id"]), {}).get("path") or [item["name"] or "an impl"]
                crates.setdefault(name, f"{'::'.join(where)} names {'::'.join(path['path'])}")
    return crates


def main():
    manifest = tomllib.loads((ROOT / "crates/stentor/Cargo.toml").read_text())
    allowed = set(manifest["package"]["metadata"]["public-api"]["external-crates"])
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        rustdoc = Path(folder) / "rustdoc"
        rustdoc.write_text('#!/bin/sh\nRUSTC_BOOTSTRAP=1 exec rustdoc "$@"\n')
        rustdoc.chmod(0o755)
        for name in CRATES:
            for crate, where in external(documentation(name, str(rustdoc))).items():
                found.setdefault(crate, where)
    for crate in sorted(found.keys() - allowed):
        print(f"not in the list: {crate}, since {found[crate]}")
    for crate in sorted(allowed - found.keys()):
        print(f"in the list, but not in the API: {crate}")
    sys.exit(found.keys() != allowed)


if __name__ == "__main__":
    main()
