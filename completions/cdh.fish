# fish completion of cdh: `command cdh completions fish`. The candidates come from `cdh complete`.

# fish has a function of this name (directory history), and completions for it: load them now, and replace both.
complete -C 'cdh ' >/dev/null 2>&1
functions --erase cdh
complete -c cdh -e

function __cdh_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l lines (command $words[1] complete fish -- $words[2..] "$current" 2>/dev/null)
    test (count $lines) -gt 1; and printf '%s\n' $lines[2..]
    switch "$lines[1]"
        case files
            __fish_complete_path "$current"
        case dirs
            __fish_complete_directories "$current" ''
        case commands
            __fish_complete_command
    end
end

complete -c cdh -f -k -a '(__cdh_complete)'
