# Read by the scripts before they do anything: `words "PART..." "$@"`. For --help it prints the
# comment that a script opens with; a word that is no PART it refuses, with 2 and the list. A part
# `SECONDS` stands for any number.

words() {
    local known="$1" word
    shift
    for word in "$@"; do
        case "$word" in
        -h | --help)
            sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
            exit 0
            ;;
        esac
    done
    for word in "$@"; do
        case " $known " in
        *" $word "*) continue ;;
        *" SECONDS "*) case "$word" in *[!0-9]* | "") ;; *) continue ;; esac ;;
        esac
        echo "${0##*/}: nothing is called '$word'; there is: ${known:-nothing to say}" >&2
        exit 2
    done
}
