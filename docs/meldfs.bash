# Completion of meldfs(1) for bash.

_meldfs_mounts() # those that begin with what has been typed; compgen -W would expand what is in a name
{
    local line fields point
    while read -r line; do
        [[ $line == *' - fuse.meldfs '* ]] || continue
        read -r -a fields <<<"$line"
        printf -v point %b "${fields[4]}"
        [[ $point == "$cur"* ]] && COMPREPLY+=("$point")
    done </proc/self/mountinfo
    compopt -o filenames
}

_meldfs_words() # WORDS: of which some begin with what has been typed
{
    mapfile -t COMPREPLY < <(compgen -W "$1" -- "$cur")
}

_meldfs_options() # the last of a list with commas
{
    local head=
    [[ $cur == *,* ]] && head=${cur%,*},
    mapfile -t COMPREPLY < <(compgen -P "$head" -W "cache= threads= seed= strict nostats $1" -- "${cur##*,}")
    compopt -o nospace
}

_meldfs()
{
    local cur=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} command=${COMP_WORDS[1]}
    local IFS=$' \t\n'

    if ((COMP_CWORD == 1)); then
        _meldfs_words 'mount umount check explain export report path yaml status top help version --help --version'
        return
    fi
    case $command:$previous in
    mount:-o) _meldfs_options 'allow_other noprefetch' && return ;;
    export:-o) _meldfs_options '' && return ;;
    report:-o) compopt -o default && return ;;
    esac
    case $command:$cur in
    mount:-*) _meldfs_words '-f -d -o --set' ;;
    export:-*) _meldfs_words '-o --part --afresh --set' ;;
    report:-*) _meldfs_words '-o --json --set' ;;
    explain:-* | yaml:-*) _meldfs_words '--set' ;;
    check:-*) _meldfs_words '--strict --deep --set' ;;
    status:-*) _meldfs_words '--json' ;;
    help:*) _meldfs_words 'mount umount check explain export report path yaml status top version' ;;
    umount:* | status:* | top:*) _meldfs_mounts ;;
    path:*) ((COMP_CWORD == 2)) && _meldfs_mounts ;;
    mount:* | check:* | explain:* | export:* | yaml:* | report:*)
        compopt -o filenames
        mapfile -t COMPREPLY < <(
            if ((COMP_CWORD == 2)); then
                compgen -f -X '!*.yml' -- "$cur"
                compgen -f -X '!*.yaml' -- "$cur"
            fi
            compgen -d -- "$cur"
        )
        ;;
    esac
}

complete -F _meldfs meldfs
