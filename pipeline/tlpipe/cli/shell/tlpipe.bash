# Completion of tlpipe for bash 4.4 and newer. Each line that tlpipe gives is a kind, a tab and a
# value: a word, or for files the endings they may have.

_tlpipe_completion() {
    local current=${COMP_WORDS[COMP_CWORD]} kind value name ending
    [[ $current == '=' ]] && current=
    COMPREPLY=()
    while IFS=$'\t' read -r kind value; do
        if [[ $kind == word ]]; then
            COMPREPLY+=("$value")
            continue
        fi
        compopt -o filenames
        while IFS= read -r name; do
            COMPREPLY+=("$name")
        done < <(
            if [[ $kind == file && -z $value ]]; then
                compgen -f -- "$current"
            else
                compgen -d -- "$current"
                for ending in $value; do
                    compgen -f -X "!*$ending" -- "$current"
                done
            fi
        )
    done < <(
        IFS=$'\n'
        COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD=$COMP_CWORD _TLPIPE_COMPLETE=bash_complete \
            "$1" 2>/dev/null
    )
}

complete -o nosort -F _tlpipe_completion tlpipe
