"""The mesh of a hand from one picture: learn it, and write meshes and a page to turn them on.

python examples/hand.py --freihand FreiHAND --mano mano_right.safetensors    after `hybridvit mano convert`
python examples/hand.py                                          rendered hands that need no licence, in a minute or two
"""

import argparse
from pathlib import Path

import hybridvit
from hybridvit.cli import main as command
from hybridvit.errors import ImageDecodeError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--freihand", help="folder of FreiHAND as it is unpacked")
    parser.add_argument("--mano", default="generated", help="generated, or a file of `hybridvit mano convert`")
    parser.add_argument("--epochs", type=int, default=4, help="passes over the training pictures; better with more")
    parser.add_argument("--hands", type=int, default=300, help="to render and train on, where there is no FreiHAND")
    parser.add_argument("--output", default="runs/example-hand", help="folder of the run and of the meshes")
    options = parser.parse_args()

    keys: dict[str, object] = {"schedule.epochs": options.epochs, "output": options.output}
    if options.freihand:
        recipe, root = "fastvit_sa12_freihand", Path(options.freihand)
        keys |= {"hand.assets": options.mano}
    else:
        recipe, root = "hand_rendered", Path(f"{options.output}-hands")
        command(["hand", "render", str(root), "--train", str(options.hands), "--eval", "20", "--size", "64"])
        keys |= {"data.source": "freihand", "data.workers": 0}
    run = hybridvit.train(recipe, keys | {"data.root": str(root)})
    print(*run.summary(), sep="\n")  # beside the error of a hand that never moves

    shown = sorted((root / "evaluation" / "rgb").iterdir())[:3]
    for path, answer in hybridvit.predict(run.model, shown, pictures=run.folder / "meshes").items():
        said = [str(answer)] if isinstance(answer, ImageDecodeError) else answer.lines()
        print(path, *said, sep="\n  ")
    print(f"Meshes (GLB, OBJ, PLY) and hands.html, a page to turn them on: {run.folder / 'meshes'}")


if __name__ == "__main__":  # loader processes run the top level again
    main()
