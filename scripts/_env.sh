# shellcheck shell=sh
# Sourced by scripts/run, scripts/test and .ci/run, never run: makes and renews the project's own Python environment.
# The caller sets ROOT to the project's root. Afterwards $VENV/bin/python is the interpreter to use.
#
# The project is installed into it in editable mode, not merely its dependencies: so `python -m relay` and the console
# scripts in .venv/bin work from any directory, and a relative path among the arguments means what the caller meant.
# It costs one build with setuptools, which constraints.txt pins like everything else (hence --no-build-isolation).

VENV=$ROOT/.venv
ENV_STATE=$VENV/.blindrelay # one stamp for the runtime and each extra, the root it was made for, a mark while installing

say() { printf 'blindrelay: %s\n' "$*" >&2; }

# Prints the newest interpreter that is new enough and can make environments. Each is run, not looked up: a version
# manager puts names on PATH that start nothing, and Debian ships a python3 without ensurepip.
find_python() {
    env_without_venv=
    for env_candidate in ${PYTHON:+"$PYTHON"} python3.13 python3.12 python3.11 python3; do
        "$env_candidate" -I -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || continue
        if "$env_candidate" -I -c 'import ensurepip, venv' >/dev/null 2>&1; then
            printf '%s\n' "$env_candidate"
            return 0
        fi
        env_without_venv=${env_without_venv:-$env_candidate}
    done
    if [ -n "$env_without_venv" ]; then
        say "$env_without_venv lacks the modules venv and ensurepip. On Debian and Ubuntu: apt-get install python3-venv"
    else
        say "Python 3.11 or newer is needed, and there is none. On Debian 12, Ubuntu 24.04 or newer:" \
            "apt-get install python3 python3-venv (or set PYTHON to an interpreter that is not on PATH)"
    fi
    return 1
}

# What an installed part depends on. The text itself is the stamp: exact, and no hashing program is needed.
env_inputs() {
    "$VENV/bin/python" -I -S -c 'import sys; print(*sys.version_info[:2])' 2>/dev/null || return 1
    cat "$ROOT/pyproject.toml" "$ROOT/constraints.txt"
}

# env_current PART...: true if these parts are installed as the project now asks for. A part is `runtime` or an extra.
env_current() {
    [ ! -e "$ENV_STATE/installing" ] && env_root_is_ours && env_now=$(env_inputs) || return 1
    for env_part in "$@"; do
        [ "$env_now" = "$(cat "$ENV_STATE/$env_part" 2>/dev/null)" ] || return 1
    done
}

# An environment holds absolute paths: one that came along with a moved or copied project belongs to the old place.
env_root_is_ours() { [ ! -e "$ENV_STATE/root" ] || [ "$(cat "$ENV_STATE/root")" = "$ROOT" ]; }

env_pip() { "$VENV/bin/python" -I -m pip --quiet --disable-pip-version-check --no-input "$@"; }

# env_install PART...: only under the lock. The mark `installing` outlives an interrupt, a kill and a power cut, and
# what carries it is made anew; it is removed when pip itself refuses, since then the old environment is still whole
# (and a machine that is offline keeps it).
env_install() {
    trap 'exit 130' INT
    trap 'exit 143' TERM
    if [ -e "$ENV_STATE/installing" ] || ! env_root_is_ours || ! env_pip --version >/dev/null 2>&1; then
        env_python=$(find_python) || return 1
        say "making .venv with $("$env_python" --version 2>&1)"
        rm -rf "$VENV"
        mkdir -p "$ENV_STATE" && : >"$ENV_STATE/installing" && "$env_python" -m venv "$VENV" || return 1
    fi
    mkdir -p "$ENV_STATE" && : >"$ENV_STATE/installing" && printf '%s\n' "$ROOT" >"$ENV_STATE/root" || return 1
    env_wanted=$(env_inputs) || return 1 # before installing: an edit made meanwhile must count as a change
    env_extras=
    for env_part in "$@"; do
        [ "$env_part" = runtime ] || env_extras=${env_extras:+$env_extras,}$env_part
    done
    say "installing the pinned dependencies${env_extras:+ with the extra $env_extras} into .venv (once per change) ..."
    if (
        cd "$ROOT" &&
            env_pip install --constraint constraints.txt setuptools &&
            env_pip install --constraint constraints.txt --no-build-isolation --editable ".${env_extras:+[$env_extras]}"
    ); then
        for env_part in runtime "$@"; do
            printf '%s\n' "$env_wanted" >"$ENV_STATE/$env_part" || return 1
        done
        rm "$ENV_STATE/installing"
    else
        rm -f "$ENV_STATE/installing"
        say "the installation failed: see above"
        return 1
    fi
}

# ensure_env PART...: returns when the environment is complete, after waiting for whoever else is making it. The lock
# lies on this file, so that it survives the removal of .venv; the subshell gives it back however the work ends.
ensure_env() {
    env_current "$@" && return 0
    (
        if command -v flock >/dev/null 2>&1 && ! flock -n 9; then
            say "waiting for another installation into .venv"
            flock 9
        fi
        env_current "$@" || env_install "$@"
    ) 9<"$ROOT/scripts/_env.sh"
}
