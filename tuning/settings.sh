# shellcheck shell=sh
# What apply, check and revert share: the command line, and reading sysctl.d/90-tidegate.conf with the intent
# (raise, lower, exact) and the reason that stand above each setting. Sourced; does nothing by itself.
# shellcheck disable=SC2034  # the scripts that source this read its variables

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
root=''
act=no

usage() {
    sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
}

parse_arguments() {
    while [ $# -gt 0 ]; do
        case $1 in
        --yes) act=yes ;;
        --root)
            [ $# -ge 2 ] || { echo "--root needs a folder" >&2; exit 2; }
            root=${2%/}
            shift
            ;;
        -h | --help) usage; exit 0 ;;
        *) echo "unknown argument: $1 (see --help)" >&2; exit 2 ;;
        esac
        shift
    done
    settings=$here/sysctl.d/90-tidegate.conf
    limits=$here/limits.d/90-tidegate.conf
    sysctl_file=$root/etc/sysctl.d/90-tidegate.conf
    limits_file=$root/etc/security/limits.d/90-tidegate.conf
    state=$root/var/lib/tidegate
    saved=$state/tuning.saved
}

# Prints one setting a line: key, intent, wanted value, reason; apart by "|".
each_setting() {
    awk '
        /^$/ { reason = ""; intent = "" }
        /^# (raise|lower|exact)$/ { intent = $2; next }
        /^# / { reason = reason (reason == "" ? "" : " ") substr($0, 3); next }
        / = / {
            at = index($0, " = ")
            print substr($0, 1, at - 1) "|" intent "|" substr($0, at + 3) "|" reason
        }' "$settings"
}

# The file below /proc/sys that holds a key.
path_of() {
    printf '%s/proc/sys/%s' "$root" "$(printf '%s' "$1" | tr . /)"
}

# The present value, exactly as the kernel writes it.
value_of() {
    cat "$(path_of "$1")" 2>/dev/null
}

# The value before the first apply, or the present one if nothing was applied.
former_of() {
    if [ -f "$saved" ] && grep -q "^$1 = " "$saved"; then
        sed -n "s/^$1 = //p" "$saved"
    else
        value_of "$1"
    fi
}

# What a setting is to become: wanted value and former one, number by number, as the intent says.
target_of() { # intent, wanted, former
    awk -v intent="$1" -v wanted="$2" -v former="$3" 'BEGIN {
        n = split(wanted, w); m = split(former, f)
        for (i = 1; i <= n; i++) {
            v = w[i]
            # Compared as numbers, kept as text: file-max may pass what awk counts exactly.
            if (i <= m && intent == "raise" && f[i] + 0 > w[i] + 0) v = f[i]
            if (i <= m && intent == "lower" && f[i] + 0 < w[i] + 0) v = f[i]
            printf "%s%s", (i > 1 ? " " : ""), v
        }
    }'
}

# One space between numbers, for comparing.
plain() {
    printf '%s' "$1" | tr -s '\t ' '  '
}
