# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_cdh_global_optspecs
    string join \n store= config= color= h/help V/version
end

function __fish_cdh_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_cdh_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_cdh_using_subcommand
    set -l cmd (__fish_cdh_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c cdh -n "__fish_cdh_needs_command" -l store -d 'Where the dumps are: a directory, `s3://bucket/prefix`, or a name from the config file' -r
complete -c cdh -n "__fish_cdh_needs_command" -l config -d 'Config file [default: `$XDG_CONFIG_HOME/cdh/config.toml`; of the agent `/etc/cdh/agent.toml`]' -r -F
complete -c cdh -n "__fish_cdh_needs_command" -l color -d 'When to colour output; `NO_COLOR` turns it off too' -r -f -a "auto\t'On a terminal, unless `NO_COLOR` is set'
always\t'Always'
never\t'Never'"
complete -c cdh -n "__fish_cdh_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c cdh -n "__fish_cdh_needs_command" -s V -l version -d 'Print version'
complete -c cdh -n "__fish_cdh_needs_command" -f -a "tui" -d 'Browse the dumps of a store; the default on a terminal'
complete -c cdh -n "__fish_cdh_needs_command" -f -a "ls" -d 'List the dumps in a store, newest first'
complete -c cdh -n "__fish_cdh_needs_command" -f -a "list" -d 'List the dumps in a store, newest first'
complete -c cdh -n "__fish_cdh_needs_command" -f -a "info" -d 'Show everything known about a dump'
complete -c cdh -n "__fish_cdh_needs_command" -f -a "fetch" -d 'Download dumps, verify them and unpack each into a case directory'
complete -c cdh -n "__fish_cdh_needs_command" -f -a "bt" -d 'Print the backtrace of a dump'
complete -c cdh -n "__fish_cdh_needs_command" -f -a "backtrace" -d 'Print the backtrace of a dump'
complete -c cdh -n "__fish_cdh_needs_command" -f -a "groups" -d 'List crashes: the dumps of the same crash as one line'
complete -c cdh -n "__fish_cdh_needs_command" -f -a "drops" -d 'List crashes of which there is no dump, and why'
complete -c cdh -n "__fish_cdh_needs_command" -f -a "diff" -d 'Show what differs between two dumps'
complete -c cdh -n "__fish_cdh_needs_command" -f -a "debug" -d 'Start a debugger on a dump'
complete -c cdh -n "__fish_cdh_needs_command" -f -a "sysroot" -d 'Pull what a core needs from its image and print the directory'
complete -c cdh -n "__fish_cdh_needs_command" -f -a "cache" -d 'List or delete unpacked dumps and cached files of images'
complete -c cdh -n "__fish_cdh_needs_command" -f -a "import" -d 'Put a bare core or a bundle into the store'
complete -c cdh -n "__fish_cdh_needs_command" -f -a "rm" -d 'Delete dumps from the store'
complete -c cdh -n "__fish_cdh_needs_command" -f -a "gc" -d 'Apply retention limits by age, count and size, and remove unreferenced modules'
complete -c cdh -n "__fish_cdh_needs_command" -f -a "share" -d 'Print an address with which anybody can download a dump for a while'
complete -c cdh -n "__fish_cdh_needs_command" -f -a "agent" -d 'Capture cores on this node and ship them'
complete -c cdh -n "__fish_cdh_needs_command" -f -a "completions" -d 'Print a completion script for a shell'
complete -c cdh -n "__fish_cdh_needs_command" -f -a "man" -d 'Write the man pages'
complete -c cdh -n "__fish_cdh_needs_command" -f -a "schemas" -d 'Write the JSON schemas of everything that `-o json` prints'
complete -c cdh -n "__fish_cdh_using_subcommand tui" -l filter -d 'Show only dumps that match, as typed after `/`: `namespace:payments signal:SEGV since:2d`' -r
complete -c cdh -n "__fish_cdh_using_subcommand tui" -l refresh -d 'Refresh the list every so many seconds while idle; 0 turns it off [default: 5]' -r
complete -c cdh -n "__fish_cdh_using_subcommand tui" -l debugger -d 'Debugger that `d` starts [default: `debugger` of the config file, else gdb]' -r -f -a "(__fish_complete_command)"
complete -c cdh -n "__fish_cdh_using_subcommand tui" -l store -d 'Where the dumps are: a directory, `s3://bucket/prefix`, or a name from the config file' -r
complete -c cdh -n "__fish_cdh_using_subcommand tui" -l config -d 'Config file [default: `$XDG_CONFIG_HOME/cdh/config.toml`; of the agent `/etc/cdh/agent.toml`]' -r -F
complete -c cdh -n "__fish_cdh_using_subcommand tui" -l color -d 'When to colour output; `NO_COLOR` turns it off too' -r -f -a "auto\t'On a terminal, unless `NO_COLOR` is set'
always\t'Always'
never\t'Never'"
complete -c cdh -n "__fish_cdh_using_subcommand tui" -l ascii -d 'Draw with ASCII only [default: as the locale says]'
complete -c cdh -n "__fish_cdh_using_subcommand tui" -l no-mouse -d 'Leave the mouse to the terminal'
complete -c cdh -n "__fish_cdh_using_subcommand tui" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c cdh -n "__fish_cdh_using_subcommand tui" -s V -l version -d 'Print version'
complete -c cdh -n "__fish_cdh_using_subcommand ls" -s n -l namespace -d 'Only dumps of this namespace (`*` and `?` match)' -r
complete -c cdh -n "__fish_cdh_using_subcommand ls" -l pod -d 'Only dumps of this pod, or of this container outside Kubernetes' -r
complete -c cdh -n "__fish_cdh_using_subcommand ls" -l exe -d 'Only dumps of this program' -r
complete -c cdh -n "__fish_cdh_using_subcommand ls" -l image -d 'Only dumps of this image (reads manifests)' -r
complete -c cdh -n "__fish_cdh_using_subcommand ls" -l node -d 'Only dumps from this node (reads manifests)' -r
complete -c cdh -n "__fish_cdh_using_subcommand ls" -l signal -d 'Only dumps of this signal: 11, SEGV or SIGSEGV' -r
complete -c cdh -n "__fish_cdh_using_subcommand ls" -l since -d 'Only dumps since then: 2h, 7d, 2026-01-31, 2026-01-31T12:00:00Z' -r
complete -c cdh -n "__fish_cdh_using_subcommand ls" -l until -d 'Only dumps until then' -r
complete -c cdh -n "__fish_cdh_using_subcommand ls" -l new-since -d 'Only crashes that the store first received since then: 1d, 2026-01-31' -r
complete -c cdh -n "__fish_cdh_using_subcommand ls" -l fingerprint -d 'Only dumps with this fingerprint (or the start of it)' -r
complete -c cdh -n "__fish_cdh_using_subcommand ls" -s o -l output -d 'Output format' -r -f -a "table\t'Aligned columns for people'
wide\t'More columns, and nothing cut to the width of the terminal'
json\t'One JSON array'
jsonl\t'One JSON object per line'
csv\t'Comma-separated values with a header line; columns and values are those of JSON'
id\t'Ids only, one per line'"
complete -c cdh -n "__fish_cdh_using_subcommand ls" -l sort -d 'Order of the dumps [default: time], or of the groups [default: count]' -r -f -a "time\t'Newest first; dumps of one second in the order of capture if they are few'
size\t'Largest first'
exe\t'By program'
signal\t'By signal'
pod\t'By namespace and pod'
count\t'Most frequent first (only groups)'"
complete -c cdh -n "__fish_cdh_using_subcommand ls" -l limit -d 'Maximum number of dumps, or of groups' -r
complete -c cdh -n "__fish_cdh_using_subcommand ls" -l store -d 'Where the dumps are: a directory, `s3://bucket/prefix`, or a name from the config file' -r
complete -c cdh -n "__fish_cdh_using_subcommand ls" -l config -d 'Config file [default: `$XDG_CONFIG_HOME/cdh/config.toml`; of the agent `/etc/cdh/agent.toml`]' -r -F
complete -c cdh -n "__fish_cdh_using_subcommand ls" -l color -d 'When to colour output; `NO_COLOR` turns it off too' -r -f -a "auto\t'On a terminal, unless `NO_COLOR` is set'
always\t'Always'
never\t'Never'"
complete -c cdh -n "__fish_cdh_using_subcommand ls" -l truncated -d 'Only dumps that are not complete'
complete -c cdh -n "__fish_cdh_using_subcommand ls" -l group -d 'Print the same crashes as one line'
complete -c cdh -n "__fish_cdh_using_subcommand ls" -l json -d 'Same as `-o json`'
complete -c cdh -n "__fish_cdh_using_subcommand ls" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c cdh -n "__fish_cdh_using_subcommand ls" -s V -l version -d 'Print version'
complete -c cdh -n "__fish_cdh_using_subcommand list" -s n -l namespace -d 'Only dumps of this namespace (`*` and `?` match)' -r
complete -c cdh -n "__fish_cdh_using_subcommand list" -l pod -d 'Only dumps of this pod, or of this container outside Kubernetes' -r
complete -c cdh -n "__fish_cdh_using_subcommand list" -l exe -d 'Only dumps of this program' -r
complete -c cdh -n "__fish_cdh_using_subcommand list" -l image -d 'Only dumps of this image (reads manifests)' -r
complete -c cdh -n "__fish_cdh_using_subcommand list" -l node -d 'Only dumps from this node (reads manifests)' -r
complete -c cdh -n "__fish_cdh_using_subcommand list" -l signal -d 'Only dumps of this signal: 11, SEGV or SIGSEGV' -r
complete -c cdh -n "__fish_cdh_using_subcommand list" -l since -d 'Only dumps since then: 2h, 7d, 2026-01-31, 2026-01-31T12:00:00Z' -r
complete -c cdh -n "__fish_cdh_using_subcommand list" -l until -d 'Only dumps until then' -r
complete -c cdh -n "__fish_cdh_using_subcommand list" -l new-since -d 'Only crashes that the store first received since then: 1d, 2026-01-31' -r
complete -c cdh -n "__fish_cdh_using_subcommand list" -l fingerprint -d 'Only dumps with this fingerprint (or the start of it)' -r
complete -c cdh -n "__fish_cdh_using_subcommand list" -s o -l output -d 'Output format' -r -f -a "table\t'Aligned columns for people'
wide\t'More columns, and nothing cut to the width of the terminal'
json\t'One JSON array'
jsonl\t'One JSON object per line'
csv\t'Comma-separated values with a header line; columns and values are those of JSON'
id\t'Ids only, one per line'"
complete -c cdh -n "__fish_cdh_using_subcommand list" -l sort -d 'Order of the dumps [default: time], or of the groups [default: count]' -r -f -a "time\t'Newest first; dumps of one second in the order of capture if they are few'
size\t'Largest first'
exe\t'By program'
signal\t'By signal'
pod\t'By namespace and pod'
count\t'Most frequent first (only groups)'"
complete -c cdh -n "__fish_cdh_using_subcommand list" -l limit -d 'Maximum number of dumps, or of groups' -r
complete -c cdh -n "__fish_cdh_using_subcommand list" -l store -d 'Where the dumps are: a directory, `s3://bucket/prefix`, or a name from the config file' -r
complete -c cdh -n "__fish_cdh_using_subcommand list" -l config -d 'Config file [default: `$XDG_CONFIG_HOME/cdh/config.toml`; of the agent `/etc/cdh/agent.toml`]' -r -F
complete -c cdh -n "__fish_cdh_using_subcommand list" -l color -d 'When to colour output; `NO_COLOR` turns it off too' -r -f -a "auto\t'On a terminal, unless `NO_COLOR` is set'
always\t'Always'
never\t'Never'"
complete -c cdh -n "__fish_cdh_using_subcommand list" -l truncated -d 'Only dumps that are not complete'
complete -c cdh -n "__fish_cdh_using_subcommand list" -l group -d 'Print the same crashes as one line'
complete -c cdh -n "__fish_cdh_using_subcommand list" -l json -d 'Same as `-o json`'
complete -c cdh -n "__fish_cdh_using_subcommand list" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c cdh -n "__fish_cdh_using_subcommand list" -s V -l version -d 'Print version'
complete -c cdh -n "__fish_cdh_using_subcommand info" -s o -l output -d 'Output format' -r -f -a "text\t'For people'
json\t'One JSON document'"
complete -c cdh -n "__fish_cdh_using_subcommand info" -l store -d 'Where the dumps are: a directory, `s3://bucket/prefix`, or a name from the config file' -r
complete -c cdh -n "__fish_cdh_using_subcommand info" -l config -d 'Config file [default: `$XDG_CONFIG_HOME/cdh/config.toml`; of the agent `/etc/cdh/agent.toml`]' -r -F
complete -c cdh -n "__fish_cdh_using_subcommand info" -l color -d 'When to colour output; `NO_COLOR` turns it off too' -r -f -a "auto\t'On a terminal, unless `NO_COLOR` is set'
always\t'Always'
never\t'Never'"
complete -c cdh -n "__fish_cdh_using_subcommand info" -l json -d 'Same as `-o json`'
complete -c cdh -n "__fish_cdh_using_subcommand info" -s a -l all -d 'List every module, entry and thread instead of counting them'
complete -c cdh -n "__fish_cdh_using_subcommand info" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c cdh -n "__fish_cdh_using_subcommand info" -s V -l version -d 'Print version'
complete -c cdh -n "__fish_cdh_using_subcommand fetch" -s d -l directory -d 'Unpack into this directory instead of the cache (one sub-directory per dump when there are several)' -r -f -a "(__fish_complete_directories)"
complete -c cdh -n "__fish_cdh_using_subcommand fetch" -l max-size -d 'Refuse cores that unpack to more, such as `100G` [default: 4T]' -r
complete -c cdh -n "__fish_cdh_using_subcommand fetch" -s o -l output -d 'Output format' -r -f -a "text\t'For people'
json\t'One JSON document'"
complete -c cdh -n "__fish_cdh_using_subcommand fetch" -l store -d 'Where the dumps are: a directory, `s3://bucket/prefix`, or a name from the config file' -r
complete -c cdh -n "__fish_cdh_using_subcommand fetch" -l config -d 'Config file [default: `$XDG_CONFIG_HOME/cdh/config.toml`; of the agent `/etc/cdh/agent.toml`]' -r -F
complete -c cdh -n "__fish_cdh_using_subcommand fetch" -l color -d 'When to colour output; `NO_COLOR` turns it off too' -r -f -a "auto\t'On a terminal, unless `NO_COLOR` is set'
always\t'Always'
never\t'Never'"
complete -c cdh -n "__fish_cdh_using_subcommand fetch" -l json -d 'Same as `-o json`'
complete -c cdh -n "__fish_cdh_using_subcommand fetch" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c cdh -n "__fish_cdh_using_subcommand fetch" -s V -l version -d 'Print version'
complete -c cdh -n "__fish_cdh_using_subcommand bt" -l source-dir -l source-root -d 'Search this directory and the current checkout for source files; nothing else is read (implies `--source`; repeatable)' -r -f -a "(__fish_complete_directories)"
complete -c cdh -n "__fish_cdh_using_subcommand bt" -l source-map -d 'Replace the start of source paths (implies `--source`; repeatable)' -r
complete -c cdh -n "__fish_cdh_using_subcommand bt" -l limit -d 'Maximum number of frames per thread [default: 256, or 300000 with folding]' -r
complete -c cdh -n "__fish_cdh_using_subcommand bt" -l sysroot -d 'Take modules from this directory, laid out as the root of the crashed process' -r -f -a "(__fish_complete_directories)"
complete -c cdh -n "__fish_cdh_using_subcommand bt" -l image -d 'Take modules from this image instead of the one that the dump names: `repository@sha256:…`' -r
complete -c cdh -n "__fish_cdh_using_subcommand bt" -l debug-image -d 'Take debug files from this image' -r
complete -c cdh -n "__fish_cdh_using_subcommand bt" -l auth-file -d 'Credentials for registries: a docker or podman config, or an image pull secret as JSON or YAML' -r -F
complete -c cdh -n "__fish_cdh_using_subcommand bt" -l registry-ca -d 'Trust the certificates in this file (PEM) for registries, besides the system\'s' -r -F
complete -c cdh -n "__fish_cdh_using_subcommand bt" -s o -l output -d 'Output format' -r -f -a "text\t'For people'
json\t'One JSON document'"
complete -c cdh -n "__fish_cdh_using_subcommand bt" -l store -d 'Where the dumps are: a directory, `s3://bucket/prefix`, or a name from the config file' -r
complete -c cdh -n "__fish_cdh_using_subcommand bt" -l config -d 'Config file [default: `$XDG_CONFIG_HOME/cdh/config.toml`; of the agent `/etc/cdh/agent.toml`]' -r -F
complete -c cdh -n "__fish_cdh_using_subcommand bt" -l color -d 'When to colour output; `NO_COLOR` turns it off too' -r -f -a "auto\t'On a terminal, unless `NO_COLOR` is set'
always\t'Always'
never\t'Never'"
complete -c cdh -n "__fish_cdh_using_subcommand bt" -s a -l all-threads -d 'Print every thread, not only the one that crashed'
complete -c cdh -n "__fish_cdh_using_subcommand bt" -s g -l group -d 'Merge threads with equal stacks (prints every thread)'
complete -c cdh -n "__fish_cdh_using_subcommand bt" -s r -l registers -d 'Print the registers of each frame 0'
complete -c cdh -n "__fish_cdh_using_subcommand bt" -s f -l fold -d 'Fold recursions, how the process ended and the start of the runtime [default: on a terminal]'
complete -c cdh -n "__fish_cdh_using_subcommand bt" -l no-fold -d 'Print every frame'
complete -c cdh -n "__fish_cdh_using_subcommand bt" -s s -l source -d 'Print the lines of source around each frame'
complete -c cdh -n "__fish_cdh_using_subcommand bt" -l no-cache -d 'Name everything anew and remember nothing'
complete -c cdh -n "__fish_cdh_using_subcommand bt" -s v -l verbose -d 'Print how long it took'
complete -c cdh -n "__fish_cdh_using_subcommand bt" -l offline -d 'Use no network for modules: only what is cached or on this machine'
complete -c cdh -n "__fish_cdh_using_subcommand bt" -l json -d 'Same as `-o json`'
complete -c cdh -n "__fish_cdh_using_subcommand bt" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c cdh -n "__fish_cdh_using_subcommand bt" -s V -l version -d 'Print version'
complete -c cdh -n "__fish_cdh_using_subcommand backtrace" -l source-dir -l source-root -d 'Search this directory and the current checkout for source files; nothing else is read (implies `--source`; repeatable)' -r -f -a "(__fish_complete_directories)"
complete -c cdh -n "__fish_cdh_using_subcommand backtrace" -l source-map -d 'Replace the start of source paths (implies `--source`; repeatable)' -r
complete -c cdh -n "__fish_cdh_using_subcommand backtrace" -l limit -d 'Maximum number of frames per thread [default: 256, or 300000 with folding]' -r
complete -c cdh -n "__fish_cdh_using_subcommand backtrace" -l sysroot -d 'Take modules from this directory, laid out as the root of the crashed process' -r -f -a "(__fish_complete_directories)"
complete -c cdh -n "__fish_cdh_using_subcommand backtrace" -l image -d 'Take modules from this image instead of the one that the dump names: `repository@sha256:…`' -r
complete -c cdh -n "__fish_cdh_using_subcommand backtrace" -l debug-image -d 'Take debug files from this image' -r
complete -c cdh -n "__fish_cdh_using_subcommand backtrace" -l auth-file -d 'Credentials for registries: a docker or podman config, or an image pull secret as JSON or YAML' -r -F
complete -c cdh -n "__fish_cdh_using_subcommand backtrace" -l registry-ca -d 'Trust the certificates in this file (PEM) for registries, besides the system\'s' -r -F
complete -c cdh -n "__fish_cdh_using_subcommand backtrace" -s o -l output -d 'Output format' -r -f -a "text\t'For people'
json\t'One JSON document'"
complete -c cdh -n "__fish_cdh_using_subcommand backtrace" -l store -d 'Where the dumps are: a directory, `s3://bucket/prefix`, or a name from the config file' -r
complete -c cdh -n "__fish_cdh_using_subcommand backtrace" -l config -d 'Config file [default: `$XDG_CONFIG_HOME/cdh/config.toml`; of the agent `/etc/cdh/agent.toml`]' -r -F
complete -c cdh -n "__fish_cdh_using_subcommand backtrace" -l color -d 'When to colour output; `NO_COLOR` turns it off too' -r -f -a "auto\t'On a terminal, unless `NO_COLOR` is set'
always\t'Always'
never\t'Never'"
complete -c cdh -n "__fish_cdh_using_subcommand backtrace" -s a -l all-threads -d 'Print every thread, not only the one that crashed'
complete -c cdh -n "__fish_cdh_using_subcommand backtrace" -s g -l group -d 'Merge threads with equal stacks (prints every thread)'
complete -c cdh -n "__fish_cdh_using_subcommand backtrace" -s r -l registers -d 'Print the registers of each frame 0'
complete -c cdh -n "__fish_cdh_using_subcommand backtrace" -s f -l fold -d 'Fold recursions, how the process ended and the start of the runtime [default: on a terminal]'
complete -c cdh -n "__fish_cdh_using_subcommand backtrace" -l no-fold -d 'Print every frame'
complete -c cdh -n "__fish_cdh_using_subcommand backtrace" -s s -l source -d 'Print the lines of source around each frame'
complete -c cdh -n "__fish_cdh_using_subcommand backtrace" -l no-cache -d 'Name everything anew and remember nothing'
complete -c cdh -n "__fish_cdh_using_subcommand backtrace" -s v -l verbose -d 'Print how long it took'
complete -c cdh -n "__fish_cdh_using_subcommand backtrace" -l offline -d 'Use no network for modules: only what is cached or on this machine'
complete -c cdh -n "__fish_cdh_using_subcommand backtrace" -l json -d 'Same as `-o json`'
complete -c cdh -n "__fish_cdh_using_subcommand backtrace" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c cdh -n "__fish_cdh_using_subcommand backtrace" -s V -l version -d 'Print version'
complete -c cdh -n "__fish_cdh_using_subcommand groups" -s n -l namespace -d 'Only dumps of this namespace (`*` and `?` match)' -r
complete -c cdh -n "__fish_cdh_using_subcommand groups" -l pod -d 'Only dumps of this pod, or of this container outside Kubernetes' -r
complete -c cdh -n "__fish_cdh_using_subcommand groups" -l exe -d 'Only dumps of this program' -r
complete -c cdh -n "__fish_cdh_using_subcommand groups" -l image -d 'Only dumps of this image (reads manifests)' -r
complete -c cdh -n "__fish_cdh_using_subcommand groups" -l node -d 'Only dumps from this node (reads manifests)' -r
complete -c cdh -n "__fish_cdh_using_subcommand groups" -l signal -d 'Only dumps of this signal: 11, SEGV or SIGSEGV' -r
complete -c cdh -n "__fish_cdh_using_subcommand groups" -l since -d 'Only dumps since then: 2h, 7d, 2026-01-31, 2026-01-31T12:00:00Z' -r
complete -c cdh -n "__fish_cdh_using_subcommand groups" -l until -d 'Only dumps until then' -r
complete -c cdh -n "__fish_cdh_using_subcommand groups" -l new-since -d 'Only crashes that the store first received since then: 1d, 2026-01-31' -r
complete -c cdh -n "__fish_cdh_using_subcommand groups" -l fingerprint -d 'Only dumps with this fingerprint (or the start of it)' -r
complete -c cdh -n "__fish_cdh_using_subcommand groups" -l sort -d 'Order of the groups' -r -f -a "time\t'Newest first; dumps of one second in the order of capture if they are few'
size\t'Largest first'
exe\t'By program'
signal\t'By signal'
pod\t'By namespace and pod'
count\t'Most frequent first (only groups)'"
complete -c cdh -n "__fish_cdh_using_subcommand groups" -l limit -d 'Maximum number of groups' -r
complete -c cdh -n "__fish_cdh_using_subcommand groups" -s o -l output -d 'Output format' -r -f -a "table\t'Aligned columns for people'
wide\t'More columns, and nothing cut to the width of the terminal'
json\t'One JSON array'
jsonl\t'One JSON object per line'
csv\t'Comma-separated values with a header line; columns and values are those of JSON'
id\t'Ids only, one per line'"
complete -c cdh -n "__fish_cdh_using_subcommand groups" -l store -d 'Where the dumps are: a directory, `s3://bucket/prefix`, or a name from the config file' -r
complete -c cdh -n "__fish_cdh_using_subcommand groups" -l config -d 'Config file [default: `$XDG_CONFIG_HOME/cdh/config.toml`; of the agent `/etc/cdh/agent.toml`]' -r -F
complete -c cdh -n "__fish_cdh_using_subcommand groups" -l color -d 'When to colour output; `NO_COLOR` turns it off too' -r -f -a "auto\t'On a terminal, unless `NO_COLOR` is set'
always\t'Always'
never\t'Never'"
complete -c cdh -n "__fish_cdh_using_subcommand groups" -l truncated -d 'Only dumps that are not complete'
complete -c cdh -n "__fish_cdh_using_subcommand groups" -l images -d 'Show images of more than 1,000 dumps too (reads their manifests)'
complete -c cdh -n "__fish_cdh_using_subcommand groups" -l no-top -d 'Do not read backtraces for the column TOP FRAME'
complete -c cdh -n "__fish_cdh_using_subcommand groups" -l json -d 'Same as `-o json`'
complete -c cdh -n "__fish_cdh_using_subcommand groups" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c cdh -n "__fish_cdh_using_subcommand groups" -s V -l version -d 'Print version'
complete -c cdh -n "__fish_cdh_using_subcommand drops" -l since -d 'Only what was dropped since then: 2h, 7d, 2026-01-31, 2026-01-31T12:00:00Z' -r
complete -c cdh -n "__fish_cdh_using_subcommand drops" -s o -l output -d 'Output format' -r -f -a "text\t'For people'
json\t'One JSON document'"
complete -c cdh -n "__fish_cdh_using_subcommand drops" -l store -d 'Where the dumps are: a directory, `s3://bucket/prefix`, or a name from the config file' -r
complete -c cdh -n "__fish_cdh_using_subcommand drops" -l config -d 'Config file [default: `$XDG_CONFIG_HOME/cdh/config.toml`; of the agent `/etc/cdh/agent.toml`]' -r -F
complete -c cdh -n "__fish_cdh_using_subcommand drops" -l color -d 'When to colour output; `NO_COLOR` turns it off too' -r -f -a "auto\t'On a terminal, unless `NO_COLOR` is set'
always\t'Always'
never\t'Never'"
complete -c cdh -n "__fish_cdh_using_subcommand drops" -l json -d 'Same as `-o json`'
complete -c cdh -n "__fish_cdh_using_subcommand drops" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c cdh -n "__fish_cdh_using_subcommand drops" -s V -l version -d 'Print version'
complete -c cdh -n "__fish_cdh_using_subcommand diff" -l sysroot -d 'Take modules from this directory, laid out as the root of the crashed process' -r -f -a "(__fish_complete_directories)"
complete -c cdh -n "__fish_cdh_using_subcommand diff" -l image -d 'Take modules from this image instead of the one that the dump names: `repository@sha256:…`' -r
complete -c cdh -n "__fish_cdh_using_subcommand diff" -l debug-image -d 'Take debug files from this image' -r
complete -c cdh -n "__fish_cdh_using_subcommand diff" -l auth-file -d 'Credentials for registries: a docker or podman config, or an image pull secret as JSON or YAML' -r -F
complete -c cdh -n "__fish_cdh_using_subcommand diff" -l registry-ca -d 'Trust the certificates in this file (PEM) for registries, besides the system\'s' -r -F
complete -c cdh -n "__fish_cdh_using_subcommand diff" -s o -l output -d 'Output format' -r -f -a "text\t'For people'
json\t'One JSON document'"
complete -c cdh -n "__fish_cdh_using_subcommand diff" -l store -d 'Where the dumps are: a directory, `s3://bucket/prefix`, or a name from the config file' -r
complete -c cdh -n "__fish_cdh_using_subcommand diff" -l config -d 'Config file [default: `$XDG_CONFIG_HOME/cdh/config.toml`; of the agent `/etc/cdh/agent.toml`]' -r -F
complete -c cdh -n "__fish_cdh_using_subcommand diff" -l color -d 'When to colour output; `NO_COLOR` turns it off too' -r -f -a "auto\t'On a terminal, unless `NO_COLOR` is set'
always\t'Always'
never\t'Never'"
complete -c cdh -n "__fish_cdh_using_subcommand diff" -l offline -d 'Use no network for modules: only what is cached or on this machine'
complete -c cdh -n "__fish_cdh_using_subcommand diff" -l json -d 'Same as `-o json`'
complete -c cdh -n "__fish_cdh_using_subcommand diff" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c cdh -n "__fish_cdh_using_subcommand diff" -s V -l version -d 'Print version'
complete -c cdh -n "__fish_cdh_using_subcommand debug" -l sysroot -d 'Take modules from this directory, laid out as the root of the crashed process' -r -f -a "(__fish_complete_directories)"
complete -c cdh -n "__fish_cdh_using_subcommand debug" -l image -d 'Take modules from this image instead of the one that the dump names: `repository@sha256:…`' -r
complete -c cdh -n "__fish_cdh_using_subcommand debug" -l debug-image -d 'Take debug files from this image' -r
complete -c cdh -n "__fish_cdh_using_subcommand debug" -l auth-file -d 'Credentials for registries: a docker or podman config, or an image pull secret as JSON or YAML' -r -F
complete -c cdh -n "__fish_cdh_using_subcommand debug" -l registry-ca -d 'Trust the certificates in this file (PEM) for registries, besides the system\'s' -r -F
complete -c cdh -n "__fish_cdh_using_subcommand debug" -l debugger -d 'Debugger to start: gdb or LLDB [default: `debugger` of the config file, else gdb]' -r -f -a "(__fish_complete_command)"
complete -c cdh -n "__fish_cdh_using_subcommand debug" -l store -d 'Where the dumps are: a directory, `s3://bucket/prefix`, or a name from the config file' -r
complete -c cdh -n "__fish_cdh_using_subcommand debug" -l config -d 'Config file [default: `$XDG_CONFIG_HOME/cdh/config.toml`; of the agent `/etc/cdh/agent.toml`]' -r -F
complete -c cdh -n "__fish_cdh_using_subcommand debug" -l color -d 'When to colour output; `NO_COLOR` turns it off too' -r -f -a "auto\t'On a terminal, unless `NO_COLOR` is set'
always\t'Always'
never\t'Never'"
complete -c cdh -n "__fish_cdh_using_subcommand debug" -l offline -d 'Use no network for modules: only what is cached or on this machine'
complete -c cdh -n "__fish_cdh_using_subcommand debug" -l print -d 'Print the debugger\'s command line instead of running it'
complete -c cdh -n "__fish_cdh_using_subcommand debug" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c cdh -n "__fish_cdh_using_subcommand debug" -s V -l version -d 'Print version'
complete -c cdh -n "__fish_cdh_using_subcommand sysroot" -l sysroot -d 'Take modules from this directory, laid out as the root of the crashed process' -r -f -a "(__fish_complete_directories)"
complete -c cdh -n "__fish_cdh_using_subcommand sysroot" -l image -d 'Take modules from this image instead of the one that the dump names: `repository@sha256:…`' -r
complete -c cdh -n "__fish_cdh_using_subcommand sysroot" -l debug-image -d 'Take debug files from this image' -r
complete -c cdh -n "__fish_cdh_using_subcommand sysroot" -l auth-file -d 'Credentials for registries: a docker or podman config, or an image pull secret as JSON or YAML' -r -F
complete -c cdh -n "__fish_cdh_using_subcommand sysroot" -l registry-ca -d 'Trust the certificates in this file (PEM) for registries, besides the system\'s' -r -F
complete -c cdh -n "__fish_cdh_using_subcommand sysroot" -s o -l output -d 'Output format' -r -f -a "text\t'For people'
json\t'One JSON document'"
complete -c cdh -n "__fish_cdh_using_subcommand sysroot" -l store -d 'Where the dumps are: a directory, `s3://bucket/prefix`, or a name from the config file' -r
complete -c cdh -n "__fish_cdh_using_subcommand sysroot" -l config -d 'Config file [default: `$XDG_CONFIG_HOME/cdh/config.toml`; of the agent `/etc/cdh/agent.toml`]' -r -F
complete -c cdh -n "__fish_cdh_using_subcommand sysroot" -l color -d 'When to colour output; `NO_COLOR` turns it off too' -r -f -a "auto\t'On a terminal, unless `NO_COLOR` is set'
always\t'Always'
never\t'Never'"
complete -c cdh -n "__fish_cdh_using_subcommand sysroot" -l offline -d 'Use no network for modules: only what is cached or on this machine'
complete -c cdh -n "__fish_cdh_using_subcommand sysroot" -l json -d 'Same as `-o json`'
complete -c cdh -n "__fish_cdh_using_subcommand sysroot" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c cdh -n "__fish_cdh_using_subcommand sysroot" -s V -l version -d 'Print version'
complete -c cdh -n "__fish_cdh_using_subcommand cache; and not __fish_seen_subcommand_from ls clear" -l store -d 'Where the dumps are: a directory, `s3://bucket/prefix`, or a name from the config file' -r
complete -c cdh -n "__fish_cdh_using_subcommand cache; and not __fish_seen_subcommand_from ls clear" -l config -d 'Config file [default: `$XDG_CONFIG_HOME/cdh/config.toml`; of the agent `/etc/cdh/agent.toml`]' -r -F
complete -c cdh -n "__fish_cdh_using_subcommand cache; and not __fish_seen_subcommand_from ls clear" -l color -d 'When to colour output; `NO_COLOR` turns it off too' -r -f -a "auto\t'On a terminal, unless `NO_COLOR` is set'
always\t'Always'
never\t'Never'"
complete -c cdh -n "__fish_cdh_using_subcommand cache; and not __fish_seen_subcommand_from ls clear" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c cdh -n "__fish_cdh_using_subcommand cache; and not __fish_seen_subcommand_from ls clear" -s V -l version -d 'Print version'
complete -c cdh -n "__fish_cdh_using_subcommand cache; and not __fish_seen_subcommand_from ls clear" -f -a "ls" -d 'List unpacked dumps, and files of images and debuginfod servers'
complete -c cdh -n "__fish_cdh_using_subcommand cache; and not __fish_seen_subcommand_from ls clear" -f -a "clear" -d 'Delete all of it'
complete -c cdh -n "__fish_cdh_using_subcommand cache; and __fish_seen_subcommand_from ls" -s o -l output -d 'Output format' -r -f -a "text\t'For people'
json\t'One JSON document'"
complete -c cdh -n "__fish_cdh_using_subcommand cache; and __fish_seen_subcommand_from ls" -l store -d 'Where the dumps are: a directory, `s3://bucket/prefix`, or a name from the config file' -r
complete -c cdh -n "__fish_cdh_using_subcommand cache; and __fish_seen_subcommand_from ls" -l config -d 'Config file [default: `$XDG_CONFIG_HOME/cdh/config.toml`; of the agent `/etc/cdh/agent.toml`]' -r -F
complete -c cdh -n "__fish_cdh_using_subcommand cache; and __fish_seen_subcommand_from ls" -l color -d 'When to colour output; `NO_COLOR` turns it off too' -r -f -a "auto\t'On a terminal, unless `NO_COLOR` is set'
always\t'Always'
never\t'Never'"
complete -c cdh -n "__fish_cdh_using_subcommand cache; and __fish_seen_subcommand_from ls" -l json -d 'Same as `-o json`'
complete -c cdh -n "__fish_cdh_using_subcommand cache; and __fish_seen_subcommand_from ls" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c cdh -n "__fish_cdh_using_subcommand cache; and __fish_seen_subcommand_from ls" -s V -l version -d 'Print version'
complete -c cdh -n "__fish_cdh_using_subcommand cache; and __fish_seen_subcommand_from clear" -s o -l output -d 'Output format' -r -f -a "text\t'For people'
json\t'One JSON document'"
complete -c cdh -n "__fish_cdh_using_subcommand cache; and __fish_seen_subcommand_from clear" -l store -d 'Where the dumps are: a directory, `s3://bucket/prefix`, or a name from the config file' -r
complete -c cdh -n "__fish_cdh_using_subcommand cache; and __fish_seen_subcommand_from clear" -l config -d 'Config file [default: `$XDG_CONFIG_HOME/cdh/config.toml`; of the agent `/etc/cdh/agent.toml`]' -r -F
complete -c cdh -n "__fish_cdh_using_subcommand cache; and __fish_seen_subcommand_from clear" -l color -d 'When to colour output; `NO_COLOR` turns it off too' -r -f -a "auto\t'On a terminal, unless `NO_COLOR` is set'
always\t'Always'
never\t'Never'"
complete -c cdh -n "__fish_cdh_using_subcommand cache; and __fish_seen_subcommand_from clear" -l cases -d 'Delete only the unpacked dumps'
complete -c cdh -n "__fish_cdh_using_subcommand cache; and __fish_seen_subcommand_from clear" -l json -d 'Same as `-o json`'
complete -c cdh -n "__fish_cdh_using_subcommand cache; and __fish_seen_subcommand_from clear" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c cdh -n "__fish_cdh_using_subcommand cache; and __fish_seen_subcommand_from clear" -s V -l version -d 'Print version'
complete -c cdh -n "__fish_cdh_using_subcommand import" -s n -l namespace -d 'Kubernetes namespace that the process ran in' -r
complete -c cdh -n "__fish_cdh_using_subcommand import" -l pod -d 'Pod that it ran in' -r
complete -c cdh -n "__fish_cdh_using_subcommand import" -l container -d 'Container in the pod' -r
complete -c cdh -n "__fish_cdh_using_subcommand import" -l image -d 'Image that it ran from: `repository@sha256:…`, or `repository:tag@sha256:…`. Without a digest, files from it cannot be verified' -r
complete -c cdh -n "__fish_cdh_using_subcommand import" -l label -d 'Label of the pod, as `kubectl get pod --show-labels` prints it; may be repeated' -r
complete -c cdh -n "__fish_cdh_using_subcommand import" -l image-label -d 'Label of the image, such as `org.opencontainers.image.revision=…`; may be repeated' -r
complete -c cdh -n "__fish_cdh_using_subcommand import" -l node -d 'Node that it ran on' -r
complete -c cdh -n "__fish_cdh_using_subcommand import" -s o -l output -d 'Output format' -r -f -a "text\t'For people'
json\t'One JSON document'"
complete -c cdh -n "__fish_cdh_using_subcommand import" -l store -d 'Where the dumps are: a directory, `s3://bucket/prefix`, or a name from the config file' -r
complete -c cdh -n "__fish_cdh_using_subcommand import" -l config -d 'Config file [default: `$XDG_CONFIG_HOME/cdh/config.toml`; of the agent `/etc/cdh/agent.toml`]' -r -F
complete -c cdh -n "__fish_cdh_using_subcommand import" -l color -d 'When to colour output; `NO_COLOR` turns it off too' -r -f -a "auto\t'On a terminal, unless `NO_COLOR` is set'
always\t'Always'
never\t'Never'"
complete -c cdh -n "__fish_cdh_using_subcommand import" -l json -d 'Same as `-o json`'
complete -c cdh -n "__fish_cdh_using_subcommand import" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c cdh -n "__fish_cdh_using_subcommand import" -s V -l version -d 'Print version'
complete -c cdh -n "__fish_cdh_using_subcommand rm" -s o -l output -d 'Output format' -r -f -a "text\t'For people'
json\t'One JSON document'"
complete -c cdh -n "__fish_cdh_using_subcommand rm" -l store -d 'Where the dumps are: a directory, `s3://bucket/prefix`, or a name from the config file' -r
complete -c cdh -n "__fish_cdh_using_subcommand rm" -l config -d 'Config file [default: `$XDG_CONFIG_HOME/cdh/config.toml`; of the agent `/etc/cdh/agent.toml`]' -r -F
complete -c cdh -n "__fish_cdh_using_subcommand rm" -l color -d 'When to colour output; `NO_COLOR` turns it off too' -r -f -a "auto\t'On a terminal, unless `NO_COLOR` is set'
always\t'Always'
never\t'Never'"
complete -c cdh -n "__fish_cdh_using_subcommand rm" -l dry-run -d 'Show what would be deleted, and delete nothing'
complete -c cdh -n "__fish_cdh_using_subcommand rm" -s y -l yes -d 'Do not ask'
complete -c cdh -n "__fish_cdh_using_subcommand rm" -l json -d 'Same as `-o json`'
complete -c cdh -n "__fish_cdh_using_subcommand rm" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c cdh -n "__fish_cdh_using_subcommand rm" -s V -l version -d 'Print version'
complete -c cdh -n "__fish_cdh_using_subcommand gc" -l older-than -d 'Delete dumps that are older: 30d, 12w, or a date' -r
complete -c cdh -n "__fish_cdh_using_subcommand gc" -l keep-per-fingerprint -d 'Keep the newest N dumps of each fingerprint and delete the others' -r
complete -c cdh -n "__fish_cdh_using_subcommand gc" -l max-total -d 'Delete the oldest dumps until all together take no more: 500G, 2T' -r
complete -c cdh -n "__fish_cdh_using_subcommand gc" -l modules-older-than -d 'Delete stored modules that no remaining dump needs and that are older (minimum 1d). Alone, it deletes no dumps [default: 7d]' -r
complete -c cdh -n "__fish_cdh_using_subcommand gc" -s o -l output -d 'Output format' -r -f -a "text\t'For people'
json\t'One JSON document'"
complete -c cdh -n "__fish_cdh_using_subcommand gc" -l store -d 'Where the dumps are: a directory, `s3://bucket/prefix`, or a name from the config file' -r
complete -c cdh -n "__fish_cdh_using_subcommand gc" -l config -d 'Config file [default: `$XDG_CONFIG_HOME/cdh/config.toml`; of the agent `/etc/cdh/agent.toml`]' -r -F
complete -c cdh -n "__fish_cdh_using_subcommand gc" -l color -d 'When to colour output; `NO_COLOR` turns it off too' -r -f -a "auto\t'On a terminal, unless `NO_COLOR` is set'
always\t'Always'
never\t'Never'"
complete -c cdh -n "__fish_cdh_using_subcommand gc" -l dry-run -d 'Show what would be deleted, and delete nothing'
complete -c cdh -n "__fish_cdh_using_subcommand gc" -s y -l yes -d 'Do not ask'
complete -c cdh -n "__fish_cdh_using_subcommand gc" -l json -d 'Same as `-o json`'
complete -c cdh -n "__fish_cdh_using_subcommand gc" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c cdh -n "__fish_cdh_using_subcommand gc" -s V -l version -d 'Print version'
complete -c cdh -n "__fish_cdh_using_subcommand share" -l expires -d 'How long the URL works; the maximum is 7d, the limit of presigned S3 URLs' -r
complete -c cdh -n "__fish_cdh_using_subcommand share" -s o -l output -d 'Output format' -r -f -a "text\t'For people'
json\t'One JSON document'"
complete -c cdh -n "__fish_cdh_using_subcommand share" -l store -d 'Where the dumps are: a directory, `s3://bucket/prefix`, or a name from the config file' -r
complete -c cdh -n "__fish_cdh_using_subcommand share" -l config -d 'Config file [default: `$XDG_CONFIG_HOME/cdh/config.toml`; of the agent `/etc/cdh/agent.toml`]' -r -F
complete -c cdh -n "__fish_cdh_using_subcommand share" -l color -d 'When to colour output; `NO_COLOR` turns it off too' -r -f -a "auto\t'On a terminal, unless `NO_COLOR` is set'
always\t'Always'
never\t'Never'"
complete -c cdh -n "__fish_cdh_using_subcommand share" -l json -d 'Same as `-o json`'
complete -c cdh -n "__fish_cdh_using_subcommand share" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c cdh -n "__fish_cdh_using_subcommand share" -s V -l version -d 'Print version'
complete -c cdh -n "__fish_cdh_using_subcommand agent; and not __fish_seen_subcommand_from install run sweep status doctor check-config uninstall unit await-cleanup handle" -l store -d 'Where the dumps are: a directory, `s3://bucket/prefix`, or a name from the config file' -r
complete -c cdh -n "__fish_cdh_using_subcommand agent; and not __fish_seen_subcommand_from install run sweep status doctor check-config uninstall unit await-cleanup handle" -l config -d 'Config file [default: `$XDG_CONFIG_HOME/cdh/config.toml`; of the agent `/etc/cdh/agent.toml`]' -r -F
complete -c cdh -n "__fish_cdh_using_subcommand agent; and not __fish_seen_subcommand_from install run sweep status doctor check-config uninstall unit await-cleanup handle" -l color -d 'When to colour output; `NO_COLOR` turns it off too' -r -f -a "auto\t'On a terminal, unless `NO_COLOR` is set'
always\t'Always'
never\t'Never'"
complete -c cdh -n "__fish_cdh_using_subcommand agent; and not __fish_seen_subcommand_from install run sweep status doctor check-config uninstall unit await-cleanup handle" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c cdh -n "__fish_cdh_using_subcommand agent; and not __fish_seen_subcommand_from install run sweep status doctor check-config uninstall unit await-cleanup handle" -s V -l version -d 'Print version'
complete -c cdh -n "__fish_cdh_using_subcommand agent; and not __fish_seen_subcommand_from install run sweep status doctor check-config uninstall unit await-cleanup handle" -f -a "install" -d 'Install the handler as the kernel\'s core handler, and save the previous settings'
complete -c cdh -n "__fish_cdh_using_subcommand agent; and not __fish_seen_subcommand_from install run sweep status doctor check-config uninstall unit await-cleanup handle" -f -a "run" -d 'Ship dumps from the spool to the store until stopped'
complete -c cdh -n "__fish_cdh_using_subcommand agent; and not __fish_seen_subcommand_from install run sweep status doctor check-config uninstall unit await-cleanup handle" -f -a "sweep" -d 'Ship what is in the spool now, salvage what dead handlers left, and exit'
complete -c cdh -n "__fish_cdh_using_subcommand agent; and not __fish_seen_subcommand_from install run sweep status doctor check-config uninstall unit await-cleanup handle" -f -a "status" -d 'Show whether cores are captured, whether the store works, and why dumps wait in the spool'
complete -c cdh -n "__fish_cdh_using_subcommand agent; and not __fish_seen_subcommand_from install run sweep status doctor check-config uninstall unit await-cleanup handle" -f -a "doctor" -d 'Diagnose why cores are not captured or shipped on this node, and how to fix it'
complete -c cdh -n "__fish_cdh_using_subcommand agent; and not __fish_seen_subcommand_from install run sweep status doctor check-config uninstall unit await-cleanup handle" -f -a "check-config" -d 'Check the configuration: file, environment and what they mean together'
complete -c cdh -n "__fish_cdh_using_subcommand agent; and not __fish_seen_subcommand_from install run sweep status doctor check-config uninstall unit await-cleanup handle" -f -a "uninstall" -d 'Restore the previous kernel settings and remove the handler'
complete -c cdh -n "__fish_cdh_using_subcommand agent; and not __fish_seen_subcommand_from install run sweep status doctor check-config uninstall unit await-cleanup handle" -f -a "unit" -d 'Print a systemd unit that installs and runs the agent at boot'
complete -c cdh -n "__fish_cdh_using_subcommand agent; and not __fish_seen_subcommand_from install run sweep status doctor check-config uninstall unit await-cleanup handle" -f -a "await-cleanup" -d 'Wait until the chart\'s cleanup is done on every node, and print what each node reports'
complete -c cdh -n "__fish_cdh_using_subcommand agent; and not __fish_seen_subcommand_from install run sweep status doctor check-config uninstall unit await-cleanup handle" -f -a "handle" -d 'Take one core from standard input; the kernel runs this'
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from install" -l state -d 'Directory of the spool and of the settings\' backup [env: CDH_STATE] [default: /var/lib/cdh]' -r -f -a "(__fish_complete_directories)"
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from install" -l libexec -d 'Directory where the handler is installed [env: CDH_LIBEXEC] [default: /usr/local/lib/cdh]' -r -f -a "(__fish_complete_directories)"
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from install" -l handler -d 'Handler to install [default: a static `cdh-handler` beside this program, in `../libexec/cdh`, or built by `cargo xtask handler`]' -r -F
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from install" -l core-pipe-limit -d '`kernel.core_pipe_limit`: handlers that the kernel runs at once [default: 1024]' -r
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from install" -l suid-dumpable -d '`fs.suid_dumpable`: 0 no cores of setuid programs, 2 root-only ones [default: 2]' -r
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from install" -l mode -d 'How the kernel hands cores over [default: pipe]' -r -f -a "pipe\t'It starts the handler for each crash'
socket\t'It connects to a receiver that is there already (Linux 6.16 and later)'
auto\t'`socket` where a crash on purpose shows that it works, else `pipe`'"
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from install" -l release -d 'When the crashed process may go [default: hold]' -r -f -a "hold\t'When its memory has been copied'
early\t'Within milliseconds, unless it is known that there is no room for its memory and a new one\'s'
auto\t'Early where it is known that there is room, else hold'"
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from install" -l strategy -d 'How cores are put into the spool [default: auto]' -r -f -a "auto\t'`raw` where the process waits and there is ample room, else `zstd`'
zstd\t'Compressed at once'
raw\t'As they are, compressed when the process has gone'"
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from install" -l core-limit -d 'Bytes of a stored core at most, such as `2G`; what matters least is cut off [default: no limit]' -r
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from install" -l copy-limit -d 'Seconds that copying a core may take; the rest is cut off, 0 means no limit [default: 3600]' -r
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from install" -l floor -d 'Bytes that stay free on the spool\'s disk (at most a twentieth of it) [default: 256M]' -r
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from install" -l slots -d 'Handlers that copy at once; the others wait with the memory held [default: processors + 2]' -r
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from install" -l store -d 'Where the dumps are: a directory, `s3://bucket/prefix`, or a name from the config file' -r
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from install" -l config -d 'Config file [default: `$XDG_CONFIG_HOME/cdh/config.toml`; of the agent `/etc/cdh/agent.toml`]' -r -F
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from install" -l color -d 'When to colour output; `NO_COLOR` turns it off too' -r -f -a "auto\t'On a terminal, unless `NO_COLOR` is set'
always\t'Always'
never\t'Never'"
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from install" -l chain -d 'Hand each core on to whoever had the core pattern before, when it is safe here'
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from install" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from install" -s V -l version -d 'Print version'
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from run" -l state -d 'Directory of the spool and of the settings\' backup [env: CDH_STATE] [default: /var/lib/cdh]' -r -f -a "(__fish_complete_directories)"
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from run" -l libexec -d 'Directory where the handler is installed [env: CDH_LIBEXEC] [default: /usr/local/lib/cdh]' -r -f -a "(__fish_complete_directories)"
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from run" -l handler -d 'Handler to install at the start [default: as for `cdh agent install`]' -r -F
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from run" -l core-pipe-limit -d '`kernel.core_pipe_limit`: handlers that the kernel runs at once [default: 1024]' -r
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from run" -l suid-dumpable -d '`fs.suid_dumpable`: 0 no cores of setuid programs, 2 root-only ones [default: 2]' -r
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from run" -l mode -d 'How the kernel hands cores over [default: pipe]' -r -f -a "pipe\t'It starts the handler for each crash'
socket\t'It connects to a receiver that is there already (Linux 6.16 and later)'
auto\t'`socket` where a crash on purpose shows that it works, else `pipe`'"
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from run" -l release -d 'When the crashed process may go [default: hold]' -r -f -a "hold\t'When its memory has been copied'
early\t'Within milliseconds, unless it is known that there is no room for its memory and a new one\'s'
auto\t'Early where it is known that there is room, else hold'"
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from run" -l strategy -d 'How cores are put into the spool [default: auto]' -r -f -a "auto\t'`raw` where the process waits and there is ample room, else `zstd`'
zstd\t'Compressed at once'
raw\t'As they are, compressed when the process has gone'"
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from run" -l core-limit -d 'Bytes of a stored core at most, such as `2G`; what matters least is cut off [default: no limit]' -r
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from run" -l copy-limit -d 'Seconds that copying a core may take; the rest is cut off, 0 means no limit [default: 3600]' -r
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from run" -l floor -d 'Bytes that stay free on the spool\'s disk (at most a twentieth of it) [default: 256M]' -r
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from run" -l slots -d 'Handlers that copy at once; the others wait with the memory held [default: processors + 2]' -r
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from run" -l ship -d 'When dumps go to the store [default: what `--interval` or `--schedule` say, else events]' -r -f -a "events\t'As soon as they are sealed'
interval\t'Each time `--interval` has passed'
schedule\t'At the times of `--schedule`'
off\t'Not by itself: they stay on the node for `cdh agent sweep`, rsync or `kubectl cp`'"
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from run" -l interval -d 'Ship what waits each time so much time has passed, such as `10m`' -r
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from run" -l schedule -d 'Ship what waits at the times of a cron expression, in UTC, such as `0 2 * * *`' -r
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from run" -l bandwidth -d 'Bytes a second that all uploads together take, such as `20M` [default: no limit]' -r
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from run" -l parallel -d 'Uploads at once [default: 2]' -r
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from run" -l cri-socket -d 'Socket of a container runtime, may be given more than once [env: CDH_CRI_SOCKET] [default: those that are found]' -r -F
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from run" -l node-name -d 'Name of this node in Kubernetes [env: CDH_NODE_NAME]' -r
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from run" -l log-lines -d 'Last log lines that a dump holds of each container of its pod [env: CDH_LOG_LINES] [default: 500]' -r
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from run" -l pods -d 'Which pods are dumped; a pod says so with `cdh.io/dump: "true"` or `"false"` [env: CDH_PODS] [default: opt-out]' -r -f -a "opt-out\t'All that do not opt out'
opt-in\t'Those that opt in'"
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from run" -l opt-in-label -d 'With `--pods opt-in`: pods with this label are dumped too [env: CDH_OPT_IN_LABEL]' -r
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from run" -l metrics -d 'Serve `/metrics`, `/healthz` and `/readyz` at this address, such as `127.0.0.1:9464` [env: CDH_METRICS]' -r
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from run" -l metrics-file -d 'Write the metrics into a file for the node exporter\'s textfile collector' -r -F
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from run" -l log-format -d 'How the log is written [env: CDH_LOG_FORMAT] [default: text]' -r -f -a "text\t'Lines for people'
json\t'A JSON object on each line'"
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from run" -l store -d 'Where the dumps are: a directory, `s3://bucket/prefix`, or a name from the config file' -r
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from run" -l config -d 'Config file [default: `$XDG_CONFIG_HOME/cdh/config.toml`; of the agent `/etc/cdh/agent.toml`]' -r -F
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from run" -l color -d 'When to colour output; `NO_COLOR` turns it off too' -r -f -a "auto\t'On a terminal, unless `NO_COLOR` is set'
always\t'Always'
never\t'Never'"
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from run" -l manage-node -d 'Install the handler at the start; only `cdh agent uninstall` removes it'
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from run" -l chain -d 'Hand each core on to whoever had the core pattern before, when it is safe here'
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from run" -l keep-modules -d 'Put the ELF files that crashed processes had mapped into the store too, once per build-id: dumps stay debuggable when the image is gone, and host processes need none [env: CDH_KEEP_MODULES]'
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from run" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from run" -s V -l version -d 'Print version'
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from sweep" -s o -l output -d 'Output format' -r -f -a "text\t'For people'
json\t'One JSON document'"
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from sweep" -l state -d 'Directory of the spool and of the settings\' backup [env: CDH_STATE] [default: /var/lib/cdh]' -r -f -a "(__fish_complete_directories)"
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from sweep" -l libexec -d 'Directory where the handler is installed [env: CDH_LIBEXEC] [default: /usr/local/lib/cdh]' -r -f -a "(__fish_complete_directories)"
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from sweep" -l ship -d 'When dumps go to the store [default: what `--interval` or `--schedule` say, else events]' -r -f -a "events\t'As soon as they are sealed'
interval\t'Each time `--interval` has passed'
schedule\t'At the times of `--schedule`'
off\t'Not by itself: they stay on the node for `cdh agent sweep`, rsync or `kubectl cp`'"
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from sweep" -l interval -d 'Ship what waits each time so much time has passed, such as `10m`' -r
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from sweep" -l schedule -d 'Ship what waits at the times of a cron expression, in UTC, such as `0 2 * * *`' -r
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from sweep" -l bandwidth -d 'Bytes a second that all uploads together take, such as `20M` [default: no limit]' -r
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from sweep" -l parallel -d 'Uploads at once [default: 2]' -r
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from sweep" -l cri-socket -d 'Socket of a container runtime, may be given more than once [env: CDH_CRI_SOCKET] [default: those that are found]' -r -F
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from sweep" -l node-name -d 'Name of this node in Kubernetes [env: CDH_NODE_NAME]' -r
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from sweep" -l log-lines -d 'Last log lines that a dump holds of each container of its pod [env: CDH_LOG_LINES] [default: 500]' -r
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from sweep" -l pods -d 'Which pods are dumped; a pod says so with `cdh.io/dump: "true"` or `"false"` [env: CDH_PODS] [default: opt-out]' -r -f -a "opt-out\t'All that do not opt out'
opt-in\t'Those that opt in'"
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from sweep" -l opt-in-label -d 'With `--pods opt-in`: pods with this label are dumped too [env: CDH_OPT_IN_LABEL]' -r
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from sweep" -l store -d 'Where the dumps are: a directory, `s3://bucket/prefix`, or a name from the config file' -r
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from sweep" -l config -d 'Config file [default: `$XDG_CONFIG_HOME/cdh/config.toml`; of the agent `/etc/cdh/agent.toml`]' -r -F
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from sweep" -l color -d 'When to colour output; `NO_COLOR` turns it off too' -r -f -a "auto\t'On a terminal, unless `NO_COLOR` is set'
always\t'Always'
never\t'Never'"
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from sweep" -l json -d 'Same as `-o json`'
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from sweep" -l keep-modules -d 'Put the ELF files that crashed processes had mapped into the store too, once per build-id: dumps stay debuggable when the image is gone, and host processes need none [env: CDH_KEEP_MODULES]'
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from sweep" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from sweep" -s V -l version -d 'Print version'
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from status" -l state -d 'Directory of the spool and of the settings\' backup [env: CDH_STATE] [default: /var/lib/cdh]' -r -f -a "(__fish_complete_directories)"
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from status" -l libexec -d 'Directory where the handler is installed [env: CDH_LIBEXEC] [default: /usr/local/lib/cdh]' -r -f -a "(__fish_complete_directories)"
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from status" -s o -l output -d 'Output format' -r -f -a "text\t'For people'
json\t'One JSON document'"
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from status" -l store -d 'Where the dumps are: a directory, `s3://bucket/prefix`, or a name from the config file' -r
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from status" -l config -d 'Config file [default: `$XDG_CONFIG_HOME/cdh/config.toml`; of the agent `/etc/cdh/agent.toml`]' -r -F
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from status" -l color -d 'When to colour output; `NO_COLOR` turns it off too' -r -f -a "auto\t'On a terminal, unless `NO_COLOR` is set'
always\t'Always'
never\t'Never'"
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from status" -l json -d 'Same as `-o json`'
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from status" -l no-store -d 'Do not contact the store'
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from status" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from status" -s V -l version -d 'Print version'
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from doctor" -l state -d 'Directory of the spool and of the settings\' backup [env: CDH_STATE] [default: /var/lib/cdh]' -r -f -a "(__fish_complete_directories)"
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from doctor" -l libexec -d 'Directory where the handler is installed [env: CDH_LIBEXEC] [default: /usr/local/lib/cdh]' -r -f -a "(__fish_complete_directories)"
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from doctor" -s o -l output -d 'Output format' -r -f -a "text\t'For people'
json\t'One JSON document'"
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from doctor" -l store -d 'Where the dumps are: a directory, `s3://bucket/prefix`, or a name from the config file' -r
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from doctor" -l config -d 'Config file [default: `$XDG_CONFIG_HOME/cdh/config.toml`; of the agent `/etc/cdh/agent.toml`]' -r -F
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from doctor" -l color -d 'When to colour output; `NO_COLOR` turns it off too' -r -f -a "auto\t'On a terminal, unless `NO_COLOR` is set'
always\t'Always'
never\t'Never'"
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from doctor" -l json -d 'Same as `-o json`'
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from doctor" -l no-store -d 'Do not contact the store; otherwise a test object is written, read and deleted'
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from doctor" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from doctor" -s V -l version -d 'Print version'
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from check-config" -s o -l output -d 'Output format' -r -f -a "text\t'For people'
json\t'One JSON document'"
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from check-config" -l store -d 'Where the dumps are: a directory, `s3://bucket/prefix`, or a name from the config file' -r
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from check-config" -l config -d 'Config file [default: `$XDG_CONFIG_HOME/cdh/config.toml`; of the agent `/etc/cdh/agent.toml`]' -r -F
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from check-config" -l color -d 'When to colour output; `NO_COLOR` turns it off too' -r -f -a "auto\t'On a terminal, unless `NO_COLOR` is set'
always\t'Always'
never\t'Never'"
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from check-config" -l print -d 'Print the effective configuration as TOML, with the origin of each value; secrets are hidden'
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from check-config" -l show-secrets -d 'Print secrets too, so that the output is a complete configuration file (implies `--print`)'
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from check-config" -l json -d 'Same as `-o json`'
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from check-config" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from check-config" -s V -l version -d 'Print version'
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from uninstall" -l state -d 'Directory of the spool and of the settings\' backup [env: CDH_STATE] [default: /var/lib/cdh]' -r -f -a "(__fish_complete_directories)"
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from uninstall" -l libexec -d 'Directory where the handler is installed [env: CDH_LIBEXEC] [default: /usr/local/lib/cdh]' -r -f -a "(__fish_complete_directories)"
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from uninstall" -l wait-for-agent -d 'Wait this long for a running agent to stop, then remove its files too' -r
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from uninstall" -l store -d 'Where the dumps are: a directory, `s3://bucket/prefix`, or a name from the config file' -r
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from uninstall" -l config -d 'Config file [default: `$XDG_CONFIG_HOME/cdh/config.toml`; of the agent `/etc/cdh/agent.toml`]' -r -F
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from uninstall" -l color -d 'When to colour output; `NO_COLOR` turns it off too' -r -f -a "auto\t'On a terminal, unless `NO_COLOR` is set'
always\t'Always'
never\t'Never'"
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from uninstall" -l wait -d 'Wait for SIGTERM afterwards, as the pod of a DaemonSet must'
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from uninstall" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from uninstall" -s V -l version -d 'Print version'
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from unit" -l state -d 'Directory of the spool and of the settings\' backup [env: CDH_STATE] [default: /var/lib/cdh]' -r -f -a "(__fish_complete_directories)"
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from unit" -l libexec -d 'Directory where the handler is installed [env: CDH_LIBEXEC] [default: /usr/local/lib/cdh]' -r -f -a "(__fish_complete_directories)"
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from unit" -l handler -d 'Handler to install at the start [default: as for `cdh agent install`]' -r -F
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from unit" -l core-pipe-limit -d '`kernel.core_pipe_limit`: handlers that the kernel runs at once [default: 1024]' -r
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from unit" -l suid-dumpable -d '`fs.suid_dumpable`: 0 no cores of setuid programs, 2 root-only ones [default: 2]' -r
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from unit" -l mode -d 'How the kernel hands cores over [default: pipe]' -r -f -a "pipe\t'It starts the handler for each crash'
socket\t'It connects to a receiver that is there already (Linux 6.16 and later)'
auto\t'`socket` where a crash on purpose shows that it works, else `pipe`'"
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from unit" -l release -d 'When the crashed process may go [default: hold]' -r -f -a "hold\t'When its memory has been copied'
early\t'Within milliseconds, unless it is known that there is no room for its memory and a new one\'s'
auto\t'Early where it is known that there is room, else hold'"
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from unit" -l strategy -d 'How cores are put into the spool [default: auto]' -r -f -a "auto\t'`raw` where the process waits and there is ample room, else `zstd`'
zstd\t'Compressed at once'
raw\t'As they are, compressed when the process has gone'"
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from unit" -l core-limit -d 'Bytes of a stored core at most, such as `2G`; what matters least is cut off [default: no limit]' -r
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from unit" -l copy-limit -d 'Seconds that copying a core may take; the rest is cut off, 0 means no limit [default: 3600]' -r
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from unit" -l floor -d 'Bytes that stay free on the spool\'s disk (at most a twentieth of it) [default: 256M]' -r
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from unit" -l slots -d 'Handlers that copy at once; the others wait with the memory held [default: processors + 2]' -r
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from unit" -l ship -d 'When dumps go to the store [default: what `--interval` or `--schedule` say, else events]' -r -f -a "events\t'As soon as they are sealed'
interval\t'Each time `--interval` has passed'
schedule\t'At the times of `--schedule`'
off\t'Not by itself: they stay on the node for `cdh agent sweep`, rsync or `kubectl cp`'"
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from unit" -l interval -d 'Ship what waits each time so much time has passed, such as `10m`' -r
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from unit" -l schedule -d 'Ship what waits at the times of a cron expression, in UTC, such as `0 2 * * *`' -r
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from unit" -l bandwidth -d 'Bytes a second that all uploads together take, such as `20M` [default: no limit]' -r
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from unit" -l parallel -d 'Uploads at once [default: 2]' -r
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from unit" -l cri-socket -d 'Socket of a container runtime, may be given more than once [env: CDH_CRI_SOCKET] [default: those that are found]' -r -F
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from unit" -l node-name -d 'Name of this node in Kubernetes [env: CDH_NODE_NAME]' -r
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from unit" -l log-lines -d 'Last log lines that a dump holds of each container of its pod [env: CDH_LOG_LINES] [default: 500]' -r
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from unit" -l pods -d 'Which pods are dumped; a pod says so with `cdh.io/dump: "true"` or `"false"` [env: CDH_PODS] [default: opt-out]' -r -f -a "opt-out\t'All that do not opt out'
opt-in\t'Those that opt in'"
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from unit" -l opt-in-label -d 'With `--pods opt-in`: pods with this label are dumped too [env: CDH_OPT_IN_LABEL]' -r
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from unit" -l metrics -d 'Serve `/metrics`, `/healthz` and `/readyz` at this address, such as `127.0.0.1:9464` [env: CDH_METRICS]' -r
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from unit" -l metrics-file -d 'Write the metrics into a file for the node exporter\'s textfile collector' -r -F
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from unit" -l log-format -d 'How the log is written [env: CDH_LOG_FORMAT] [default: text]' -r -f -a "text\t'Lines for people'
json\t'A JSON object on each line'"
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from unit" -l store -d 'Where the dumps are: a directory, `s3://bucket/prefix`, or a name from the config file' -r
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from unit" -l config -d 'Config file [default: `$XDG_CONFIG_HOME/cdh/config.toml`; of the agent `/etc/cdh/agent.toml`]' -r -F
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from unit" -l color -d 'When to colour output; `NO_COLOR` turns it off too' -r -f -a "auto\t'On a terminal, unless `NO_COLOR` is set'
always\t'Always'
never\t'Never'"
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from unit" -l chain -d 'Hand each core on to whoever had the core pattern before, when it is safe here'
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from unit" -l keep-modules -d 'Put the ELF files that crashed processes had mapped into the store too, once per build-id: dumps stay debuggable when the image is gone, and host processes need none [env: CDH_KEEP_MODULES]'
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from unit" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from unit" -s V -l version -d 'Print version'
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from await-cleanup" -l namespace -d 'Namespace of the DaemonSet' -r
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from await-cleanup" -l daemonset -d 'DaemonSet whose pods uninstall' -r
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from await-cleanup" -l timeout -d 'How long to wait' -r
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from await-cleanup" -l store -d 'Where the dumps are: a directory, `s3://bucket/prefix`, or a name from the config file' -r
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from await-cleanup" -l config -d 'Config file [default: `$XDG_CONFIG_HOME/cdh/config.toml`; of the agent `/etc/cdh/agent.toml`]' -r -F
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from await-cleanup" -l color -d 'When to colour output; `NO_COLOR` turns it off too' -r -f -a "auto\t'On a terminal, unless `NO_COLOR` is set'
always\t'Always'
never\t'Never'"
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from await-cleanup" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from await-cleanup" -s V -l version -d 'Print version'
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from handle" -l store -d 'Where the dumps are: a directory, `s3://bucket/prefix`, or a name from the config file' -r
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from handle" -l config -d 'Config file [default: `$XDG_CONFIG_HOME/cdh/config.toml`; of the agent `/etc/cdh/agent.toml`]' -r -F
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from handle" -l color -d 'When to colour output; `NO_COLOR` turns it off too' -r -f -a "auto\t'On a terminal, unless `NO_COLOR` is set'
always\t'Always'
never\t'Never'"
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from handle" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c cdh -n "__fish_cdh_using_subcommand agent; and __fish_seen_subcommand_from handle" -s V -l version -d 'Print version'
complete -c cdh -n "__fish_cdh_using_subcommand completions" -l store -d 'Where the dumps are: a directory, `s3://bucket/prefix`, or a name from the config file' -r
complete -c cdh -n "__fish_cdh_using_subcommand completions" -l config -d 'Config file [default: `$XDG_CONFIG_HOME/cdh/config.toml`; of the agent `/etc/cdh/agent.toml`]' -r -F
complete -c cdh -n "__fish_cdh_using_subcommand completions" -l color -d 'When to colour output; `NO_COLOR` turns it off too' -r -f -a "auto\t'On a terminal, unless `NO_COLOR` is set'
always\t'Always'
never\t'Never'"
complete -c cdh -n "__fish_cdh_using_subcommand completions" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c cdh -n "__fish_cdh_using_subcommand completions" -s V -l version -d 'Print version'
complete -c cdh -n "__fish_cdh_using_subcommand man" -l store -d 'Where the dumps are: a directory, `s3://bucket/prefix`, or a name from the config file' -r
complete -c cdh -n "__fish_cdh_using_subcommand man" -l config -d 'Config file [default: `$XDG_CONFIG_HOME/cdh/config.toml`; of the agent `/etc/cdh/agent.toml`]' -r -F
complete -c cdh -n "__fish_cdh_using_subcommand man" -l color -d 'When to colour output; `NO_COLOR` turns it off too' -r -f -a "auto\t'On a terminal, unless `NO_COLOR` is set'
always\t'Always'
never\t'Never'"
complete -c cdh -n "__fish_cdh_using_subcommand man" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c cdh -n "__fish_cdh_using_subcommand man" -s V -l version -d 'Print version'
complete -c cdh -n "__fish_cdh_using_subcommand schemas" -l store -d 'Where the dumps are: a directory, `s3://bucket/prefix`, or a name from the config file' -r
complete -c cdh -n "__fish_cdh_using_subcommand schemas" -l config -d 'Config file [default: `$XDG_CONFIG_HOME/cdh/config.toml`; of the agent `/etc/cdh/agent.toml`]' -r -F
complete -c cdh -n "__fish_cdh_using_subcommand schemas" -l color -d 'When to colour output; `NO_COLOR` turns it off too' -r -f -a "auto\t'On a terminal, unless `NO_COLOR` is set'
always\t'Always'
never\t'Never'"
complete -c cdh -n "__fish_cdh_using_subcommand schemas" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c cdh -n "__fish_cdh_using_subcommand schemas" -s V -l version -d 'Print version'
