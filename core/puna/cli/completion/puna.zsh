#compdef puna
# Completion of puna for zsh. To switch it on, put this line into ~/.zshrc, behind compinit:
#     eval "$(puna completion zsh)"
# or save this script as _puna in a folder of $fpath.

_puna() {
  local program=${(Q)words[1]} line
  local -a lines described
  lines=("${(@f)$(${~program} __complete "${(@Q)words[2,CURRENT-1]}" "${(Q)PREFIX}" 2>/dev/null </dev/null)}")
  case $lines[1] in
    files | folders)
      # A value behind "=" is completed by itself.
      if [[ $PREFIX == --*=* ]]; then compset -P '*='; fi
      if [[ $lines[1] == folders ]]; then _files -/; else _files; fi
      ;;
    *)
      for line in ${lines[2,-1]}; do
        # A colon separates word and description.
        described+=("${${line%%$'\t'*}//:/\\:}${${line#*$'\t'}:+:${line#*$'\t'}}")
      done
      _describe -t puna 'puna' described
      ;;
  esac
}

if [[ ${funcstack[1]} == _puna ]]; then
  _puna "$@"
else
  compdef _puna puna
fi
