"""Record the definitions of proto/ as the baseline that later ones must not break: `proto/baseline.binpb`.

    .venv/bin/python tools/record_baseline.py

`make test-clients CLIENT=buf` compares the .proto files with the baseline. Record it at each release, after the tests
have passed. Between releases it stays, since clients rely on what was released. Before the first release it is recorded
whenever the definitions change on purpose.
"""

import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
SOURCES: Final = ROOT / "proto"
BASELINE: Final = SOURCES / "baseline.binpb"


def main() -> None:
    """Write the baseline: an encoded FileDescriptorSet without comments."""
    files = sorted(path.relative_to(SOURCES).as_posix() for path in (SOURCES / "puna").rglob("*.proto"))
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{SOURCES}", "--include_imports"]
    subprocess.run([*command, f"--descriptor_set_out={BASELINE}", *files], check=True)
    print(f"{BASELINE.relative_to(ROOT)}: {len(files)} files, {BASELINE.stat().st_size} bytes")


if __name__ == "__main__":
    main()
