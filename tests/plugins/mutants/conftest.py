"""`make test-mutants` runs the whole folder. Other runs leave out the host process, and plant one fault in ten."""

import os

collect_ignore_glob = [] if os.environ.get("PUNA_MUTANTS") else ["test_foreign_host.py"]
