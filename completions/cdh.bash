# bash completion of cdh: `cdh completions bash`. The candidates come from `cdh complete`.

_cdh() {
    local -a lines=()
    mapfile -t lines < <("$1" complete bash \
        "$COMP_LINE" "$COMP_POINT" "$COMP_TYPE" "$COMP_WORDBREAKS" 2>/dev/null)
    COMPREPLY=("${lines[@]:1}")
    compopt -o nosort 2>/dev/null
    case ${lines[0]-files} in
        nospace) compopt -o nospace ;;
        # Only if there is no other candidate.
        files) compopt -o default ;;
        dirs) compopt -o dirnames ;;
        commands) mapfile -t COMPREPLY < <(compgen -c -- "$2") ;;
    esac
}

complete -F _cdh cdh
