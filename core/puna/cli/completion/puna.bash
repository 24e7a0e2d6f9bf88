# Completion of puna for bash 4 and newer. To switch it on, put this line into ~/.bashrc:
#     eval "$(puna completion bash)"

_puna() {
  # bash breaks words at ":" and "=". Pieces with no blank between them are one word to puna.
  local rest=${COMP_LINE:0:COMP_POINT} words=() piece index
  for ((index = 0; index <= COMP_CWORD; index++)); do
    piece=${COMP_WORDS[index]}
    if ((index == 0)) || [[ $rest == [[:space:]]* ]]; then
      rest=${rest#"${rest%%[![:space:]]*}"}
      words+=("")
    fi
    # The last word ends at the cursor.
    if ((index == COMP_CWORD)); then piece=$rest; fi
    words[${#words[@]} - 1]+=$piece
    rest=${rest#"$piece"}
  done
  # bash replaces only what stands behind the last ":" or "=".
  local current=${words[${#words[@]} - 1]}
  local kept=${current%"$2"} kind line
  COMPREPLY=()
  {
    read -r kind
    case $kind in
      files) compopt -o filenames; while IFS= read -r line; do COMPREPLY+=("$line"); done < <(compgen -f -- "$2") ;;
      folders) compopt -o filenames; while IFS= read -r line; do COMPREPLY+=("$line"); done < <(compgen -d -- "$2") ;;
      *)
        while IFS= read -r line; do
          line=${line%%$'\t'*}
          COMPREPLY+=("${line#"$kept"}")
        done
        ;;
    esac
  } < <("${1/#\~/$HOME}" __complete "${words[@]:1}" 2>/dev/null </dev/null)
}
complete -F _puna puna
