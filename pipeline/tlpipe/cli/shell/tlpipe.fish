# Completion of tlpipe for fish. Each line that tlpipe gives has three fields, with tabs between: a
# kind; a word, or for files the endings they may have; a help text.

function __tlpipe_completion
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l option (string match -r -- '^--[^=]+=' $current)
    set -l begun (string replace -r -- '^--[^=]+=' '' $current)
    set -lx COMP_WORDS (string join \n -- $words | string collect)
    set -lx COMP_CWORD $current
    set -lx _TLPIPE_COMPLETE fish_complete
    for line in ($words[1] 2>/dev/null)
        set -l fields (string split \t -- $line)
        switch $fields[1]
            case word
                printf '%s%s\t%s\n' "$option" $fields[2] "$fields[3]"
            case folder
                string replace -r -- '^' "$option" (__fish_complete_directories $begun)
            case file
                set -l wanted (string replace -a . '\\.' -- $fields[2] | string replace -a ' ' '|')
                string replace -r -- '^' "$option" (
                    __fish_complete_path $begun | string match -r -- "^[^\t]*(?:/|$wanted)(?:\t.*)?\$"
                )
        end
    end
end

complete --command tlpipe --no-files --keep-order --arguments '(__tlpipe_completion)'
