#!/usr/bin/env bash
# Install everything and run the demonstration of retrieval; options go to quickstart_retrieval.py.
set -euo pipefail

TOOLS=$(cd "$(dirname "$0")" && pwd)
source "$TOOLS/setup_env.sh"
setup_env
exec "$ENV_PYTHON" "$TOOLS/quickstart_retrieval.py" "$@"
