#compdef tlpipe
# Completion of tlpipe for zsh. Each line that tlpipe gives has three fields, with tabs between: a
# kind; a word, or for files the endings they may have; a help text.

_tlpipe_completion() {
    local line
    local -a lines fields plain described endings
    lines=("${(@f)$(COMP_WORDS="${(F)words}" COMP_CWORD=$((CURRENT - 1)) \
        _TLPIPE_COMPLETE=zsh_complete ${(Q)~words[1]} 2>/dev/null)}")
    compset -P '--*='
    for line in $lines; do
        fields=("${(@ps:\t:)line}")
        case $fields[1] in
            word)
                if [[ -n $fields[3] ]]; then
                    described+=("${fields[2]//:/\\:}:$fields[3]")
                else
                    plain+=("$fields[2]")
                fi
                ;;
            folder) _path_files -/ ;;
            file)
                endings=(${=fields[2]})
                if (( $#endings )); then
                    _path_files -g "*(${(j:|:)endings})(-.)"
                    _path_files -/
                else
                    _path_files -f
                fi
                ;;
        esac
    done
    (( $#described )) && _describe -V 'tlpipe' described
    (( $#plain )) && compadd -V words -a plain
    return 0
}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _tlpipe_completion "$@"
else
    compdef _tlpipe_completion tlpipe
fi
