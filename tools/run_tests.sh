#!/usr/bin/env bash
# Install everything the tests need and run them; options go to pytest.
set -euo pipefail

TOOLS=$(cd "$(dirname "$0")" && pwd)
source "$TOOLS/setup_env.sh"
setup_env tests
cd "$TOOLS/.."
# One worker per core.
exec "$ENV_PYTHON" -m pytest -n auto --dist worksteal "$@"
