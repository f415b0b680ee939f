#!/usr/bin/env bash
# Install everything and run the demonstration of vision-language models; options go to quickstart_vqa.py.
set -euo pipefail

TOOLS=$(cd "$(dirname "$0")" && pwd)
source "$TOOLS/setup_env.sh"
setup_env
exec "$ENV_PYTHON" "$TOOLS/quickstart_vqa.py" "$@"
