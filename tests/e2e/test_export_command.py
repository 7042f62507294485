"""`straightshot export`, as its user calls it."""

from tests.small_model import write_small_model


def test_a_model_is_exported_once_and_what_is_there_is_left_alone(straightshot, tmp_path):
    model, out = write_small_model(tmp_path / "model", upsampler=False), tmp_path / "out"
    command = ["export", "--to", "diffusers", "--model", model, "-o", out]
    result = straightshot(*command)
    assert (result.status, result.err) == (0, "")
    assert result.out == f"{out}  diffusers: see {out / 'README.md'}\n"
    assert {path.name for path in out.iterdir()} == {"README.md", "model", "model_index.json", "pipeline.py"}
    (out / "README.md").write_text("mine")
    again = straightshot(*command)
    assert again.status == 2
    assert (
        again.err
        == f"straightshot: {out} is there already; name a folder with -o that is empty or not there yet\n"
    )
    assert (out / "README.md").read_text() == "mine"
