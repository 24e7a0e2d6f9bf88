# Completion of puna for fish. To switch it on, save this script:
#     puna completion fish > ~/.config/fish/completions/puna.fish

function __puna_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l program (string replace -r '^~/' "$HOME/" -- $words[1])
    set -l lines ($program __complete $words[2..-1] "$current" 2>/dev/null </dev/null)
    # A value behind "=" is completed by itself.
    set -l option (string match -r -- '^--[^=]*=' $current | string collect)
    set -l value (string replace -- "$option" "" "$current")
    switch "$lines[1]"
        case files
            for each in (__fish_complete_path "$value")
                echo "$option$each"
            end
        case folders
            for each in (__fish_complete_directories "$value")
                echo "$option$each"
            end
        case '*'
            string join \n -- $lines[2..-1]
    end
end

complete -c puna -f -k -a '(__puna_complete)'
