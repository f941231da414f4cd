"""Nothing in the library runs what a file says, and only one module opens pickles."""

import ast
from pathlib import Path

import pytest

import hybridvit

PACKAGE = Path(hybridvit.__file__).parent
BANNED_CALLS = {
    *("pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.loads", "torch.hub.load", "torch.jit.load"),
    *("yaml.load", "yaml.unsafe_load", "yaml.full_load", "eval", "exec", "compile", "os.system", "os.popen"),
}
BANNED_ARGUMENTS = {"weights_only": False, "strict": False, "shell": True, "allow_pickle": True}
STRICT_OF = {"load_state_dict"}  # zip(strict=False) is another matter


def offences(source: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        if name in BANNED_CALLS or name == "torch.load":
            found.append(name)
        for argument in node.keywords:
            value = argument.value.value if isinstance(argument.value, ast.Constant) else None
            loose = argument.arg != "strict" or name.split(".")[-1] in STRICT_OF
            if argument.arg in BANNED_ARGUMENTS and value is BANNED_ARGUMENTS[argument.arg] and loose:
                found.append(f"{name}({argument.arg}={value})")
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_calls_what_could_run_a_file(path: Path) -> None:
    allowed = ["torch.load"] if path == PACKAGE / "checkpoints" / "files.py" else []
    assert offences(path.read_text(encoding="utf-8")) == allowed


def test_the_check_finds_what_it_looks_for() -> None:
    source = "eval('1'); torch.load(f, weights_only=False); model.load_state_dict(d, strict=False); model.eval()"
    assert sorted(offences(source)) == [
        "eval",
        "model.load_state_dict(strict=False)",
        "torch.load",
        "torch.load(weights_only=False)",
    ]
