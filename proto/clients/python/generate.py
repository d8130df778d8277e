"""Writes `tributary/v1/`, the messages and stubs, from the definitions beside this folder.

    pip install 'grpcio-tools>=1.66'
    python generate.py [DIRECTORY]

What it writes is not kept in the repository: it belongs to the version of the definitions.
"""

import sys
from importlib import resources
from pathlib import Path

from grpc_tools import protoc

HERE = Path(__file__).resolve().parent
PROTO = HERE.parent.parent


def main(out: Path) -> None:
    files = sorted(str(path.relative_to(PROTO)) for path in PROTO.glob("tributary/v1/*.proto"))
    folder = out / "tributary" / "v1"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "__init__.py").write_text('"""Generated from tributary/v1/*.proto."""\n')
    well_known = str(resources.files("grpc_tools") / "_proto")
    arguments = [
        "protoc",
        f"-I{PROTO}",
        f"-I{well_known}",
        f"--python_out={out}",
        f"--pyi_out={out}",
        f"--grpc_python_out={out}",
        *files,
    ]
    if protoc.main(arguments) != 0:
        sys.exit("the definitions cannot be compiled")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else HERE)
