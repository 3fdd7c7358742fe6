#!/usr/bin/env python3
"""The project's own scenarios: what RabbitMQ 3.10.8 answers beyond the shared corpus.

    run.py [--shared DIR] compare --port P [--strict-text] [--allow FILE] ...
    run.py [--shared DIR] record --port P [--only NAME] ...

The tools are those of the shared corpus (`DIR/conformance`, with its options; DIR is `../shared` or WARREN_SHARED);
scenarios and goldens lie beside this file. Record from a real RabbitMQ 3.10.8 only.
"""

import os
import sys

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
SHARED = os.environ.get("WARREN_SHARED") or os.path.join(HERE, "..", "..", "..", "shared")

arguments = sys.argv[1:]
if arguments[:1] == ["--shared"]:
    SHARED, arguments = arguments[1], arguments[2:]
sys.path.insert(0, os.path.join(SHARED, "conformance"))

if __name__ == "__main__":
    if arguments[:1] == ["compare"]:
        import compare
        sys.exit(compare.main(arguments[1:], base=HERE))
    if arguments[:1] == ["record"]:
        import record
        sys.exit(record.main(arguments[1:], base=HERE))
    sys.exit(__doc__)
