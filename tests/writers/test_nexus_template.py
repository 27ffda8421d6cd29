"""Names of files that no metadata can lead astray."""

from pathlib import Path

import pytest

from bec_bluesky.documents import FileReady
from bec_bluesky.errors import SettingsError
from tests.writers.nexus_harness import feed, recorded
from writers.nexus import NexusWriter

HOSTILE = [
    "../../x",
    "/etc/passwd",
    "a/../b",
    "x" * 300,
    "名前",
    "Probe_é",
    "a\0b",
    "..",
    ".",
    "{uid}",
    "%s",
    "a b\n",
    "",
]


def test_a_template_is_filled_from_the_start_document(root: Path, emitted: list[FileReady]) -> None:
    template = "{proposal}/{year:04d}-{month:02d}/{sample}_{scan_id:05d}_{plan_name}_{user}.h5"
    writer = NexusWriter(directory=root, emit=emitted.append, template=template)
    documents = recorded([1.0], proposal="p123", sample={"name": "Si 111 (é)"}, plan_name="scan", scan_id=7)
    documents[0][1].update(time=1.7e9, user={"name": "Ada"})
    feed(writer, documents)
    assert Path(emitted[0].path).relative_to(root) == Path("p123/2023-11/Si_111_e_00007_scan_Ada.h5")
    assert Path(emitted[0].path).is_file()


@pytest.mark.parametrize("where", ["sample", "proposal", "plan_name", "user", "uid"])
@pytest.mark.parametrize("word", HOSTILE)
def test_hostile_metadata_stay_inside(
    root: Path, tmp_path: Path, emitted: list[FileReady], where: str, word: str
) -> None:
    template = f"{{{where}}}/{{{where}}}/{{scan_id}}_{{{where}}}_{{{where}}}_{{{where}}}.nxs"
    writer = NexusWriter(directory=root, emit=emitted.append, template=template)
    documents = recorded([1.0])
    documents[0][1][where] = word
    documents[1][1]["run_start"] = documents[-1][1]["run_start"] = documents[0][1]["uid"]
    feed(writer, documents)
    path = Path(emitted[0].path)
    assert path.resolve().is_relative_to(root.resolve())
    assert len(path.relative_to(root).parts) == 3
    assert path.is_file()
    assert [found.name for found in tmp_path.iterdir()] == ["files"]


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{smaple}/{scan_id}.nxs", r"no field 'smaple': did you mean 'sample'\?"),
        ("{sample.__class__}.nxs", "no field 'sample.__class__'"),
        ("{sample[0]}.nxs", r"no field 'sample\[0\]'"),
        ("{}.nxs", "no field ''"),
        ("{sample!r}.nxs", "can have a width if it is a number"),
        ("{sample:300}.nxs", "can have a width if it is a number"),
        ("{scan_id:0999999d}.nxs", "can have a width if it is a number"),
        ("{scan_id:{year}}.nxs", "can have a width if it is a number"),
        ("{scan_id.nxs", "expected '}'"),
        ("/data/{scan_id}.nxs", "it must be a relative path"),
        ("../{scan_id}.nxs", "it must be a relative path"),
        ("a/../../{scan_id}.nxs", "it must be a relative path"),
        (".{scan_id}.nxs", "it must be a relative path"),
        ("{year}//{scan_id}.nxs", "it must be a relative path"),
        ("{scan_id} {plan_name}.nxs", "other characters"),
        ("{scan_id}.txt", "it must end in"),
        ("{scan_id}", "it must end in"),
        ("", "it must be a relative path"),
    ],
)
def test_a_template_that_is_unsafe_or_wrong_is_refused_at_once(root: Path, template: str, why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        NexusWriter(directory=root, template=template)
    assert not root.exists()


def test_names_that_are_the_same_get_the_run_uid(root: Path, emitted: list[FileReady]) -> None:
    writer = NexusWriter(directory=root, emit=emitted.append, template="{sample}.nxs")
    for number in range(3):
        feed(writer, recorded([float(number)], sample="Si"))
    names = [Path(ready.path).name for ready in emitted]
    assert names[0] == "Si.nxs"
    assert names[1:] == [f"Si_{ready.run_uid[:8]}.nxs" for ready in emitted[1:]]
