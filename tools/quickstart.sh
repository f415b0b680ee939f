#!/usr/bin/env bash
# Install everything and run the demonstration; options go to quickstart.py.
set -euo pipefail

TOOLS=$(cd "$(dirname "$0")" && pwd)
source "$TOOLS/setup_env.sh"
setup_env
exec "$ENV_PYTHON" "$TOOLS/quickstart.py" "$@"
