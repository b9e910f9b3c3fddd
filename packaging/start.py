"""What the self-contained program runs: the command line, or the helper that renders payloads.

`relay.rendering` starts its helpers as `sys.executable -m relay.renderworker`. Here sys.executable is relay itself, so
relay has to know that one module by the same words as Python does.
"""

from __future__ import annotations

import sys

if sys.argv[1:] == ["-m", "relay.renderworker"]:
    from relay.renderworker import main
else:
    from relay.__main__ import main

main()
