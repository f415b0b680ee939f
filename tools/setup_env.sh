#!/usr/bin/env bash
# Create or reuse a virtual environment and install the package into it. Sourced by
# quickstart.sh and run_tests.sh; by hand: bash tools/setup_env.sh [tests]
#
# Environment:
#   MMTRANSMAMBA_VENV         folder of the virtual environment (default: .venv beside
#                             tools); "active" means the one that is active now
#   MMTRANSMAMBA_CONSTRAINTS  file of pip constraints (default: the tested versions,
#                             requirements/constraints.txt); "none", the default in an
#                             active environment, leaves the choice to pip
#   PYTHON                    Python >= 3.11 to create it with

find_python() {
    local candidate
    for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11 python; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    echo 'error: no Python >= 3.11 found; install one or set PYTHON to its path' >&2
    return 1
}

# What an installation depends on: if it changes, the package is installed again.
fingerprint() {
    "$1" - "$2" "$3" <<'PYTHON_CODE'
import hashlib, pathlib, sys
root = pathlib.Path(sys.argv[1])
native = root / 'mmtransmamba' / 'ops' / 'native'
files = [root / 'setup.py', root / 'pyproject.toml', root / 'mmtransmamba/version.py']
files += sorted((root / 'requirements').glob('*.txt'))
files += [native / 'build.py', *sorted((native / 'csrc').glob('*'))]
if sys.argv[2] != 'none':
    files.append(pathlib.Path(sys.argv[2]))
digest = hashlib.sha256(f'{root} {sys.version} {sys.argv[2]}'.encode())
for file in files:
    digest.update(file.read_bytes())
print(digest.hexdigest())
PYTHON_CODE
}

# setup_env [EXTRA]: leaves the Python of the environment in ENV_PYTHON.
setup_env() {
    local extra=${1:-} root venv python created='' stamp wanted constraints tested=()
    constraints=${MMTRANSMAMBA_CONSTRAINTS:-}
    root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
    venv=${MMTRANSMAMBA_VENV:-$root/.venv}
    if [ "$venv" = active ]; then
        venv=${VIRTUAL_ENV:-${CONDA_PREFIX:-}}
        if [ -z "$venv" ]; then
            echo 'error: MMTRANSMAMBA_VENV=active, but no environment is active' >&2
            return 1
        fi
        # Whoever keeps an environment chooses its versions.
        constraints=${constraints:-none}
    # The last that is written: an interrupted creation has Python, but no pip.
    elif [ ! -x "$venv/bin/pip" ]; then
        python=$(find_python) || return 1
        [ -e "$venv" ] || created=1
        echo "Creating the virtual environment $venv"
        if ! "$python" -m venv "$venv"; then
            echo "error: $python cannot create virtual environments; on Debian and Ubuntu install python3-venv" >&2
            [ -z "$created" ] || rm -rf "$venv"
            return 1
        fi
    fi
    ENV_PYTHON=$venv/bin/python

    constraints=${constraints:-$root/requirements/constraints.txt}
    if [ "$constraints" != none ]; then
        if [ ! -f "$constraints" ]; then
            echo "error: MMTRANSMAMBA_CONSTRAINTS names \"$constraints\", which is not a file" >&2
            return 1
        fi
        tested=(--constraint "$constraints")
    fi
    wanted=$(fingerprint "$ENV_PYTHON" "$root" "$constraints") || return 1
    # An installation with an extra contains the one without.
    for stamp in "$venv/.mmtransmamba" "$venv/.mmtransmamba-tests"; do
        if [ "$stamp" = "$venv/.mmtransmamba${extra:+-$extra}" ] || [ -z "$extra" ]; then
            if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
                return 0
            fi
        fi
    done
    stamp=$venv/.mmtransmamba${extra:+-$extra}

    echo 'Installing mmtransmamba and what it needs (a few minutes the first time)'
    "$ENV_PYTHON" -m pip install --quiet --upgrade ${tested[@]+"${tested[@]}"} pip || return 1
    # Compiling every file of torch takes half a minute; Python compiles what it uses.
    if ! "$ENV_PYTHON" -m pip install --no-compile ${tested[@]+"${tested[@]}"} \
        --editable "$root${extra:+[$extra]}"; then
        if [ "$constraints" != none ]; then
            echo 'error: the tested versions could not be installed here; to let pip choose' \
                'others, set MMTRANSMAMBA_CONSTRAINTS=none' >&2
        fi
        return 1
    fi
    # These would print syntax warnings of their own when first imported.
    (
        cd "$("$ENV_PYTHON" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" &&
            "$ENV_PYTHON" -W ignore -m compileall -qq mmengine mmcv mmpretrain
    ) || true
    "$ENV_PYTHON" -c '
from mmtransmamba.ops import backends
reason = backends.available("selective_scan")["native"]
print("Native CPU kernels:", f"not available ({reason}), slower ones will run" if reason else "built")
' || return 1
    echo "$wanted" > "$stamp"
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
    setup_env "$@"
fi
