"""`python3 -m sternpost_checkpoint COMMAND`."""

import signal
import sys

if __name__ == "__main__":
    if sys.argv[1:2] == ["sidecar"]:
        # Held back until the service can act on it: a SIGTERM during the imports must not cost the last save.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    from sternpost_checkpoint.cli import main

    main()
