"""`keras-gevb completion`."""

import argparse

EXAMPLES = """\
  source <(keras-gevb completion bash)          # in ~/.bashrc
  source <(keras-gevb completion zsh)           # in ~/.zshrc
  keras-gevb completion fish > ~/.config/fish/completions/keras-gevb.fish"""
STOPPED = "Nothing was written."

BASH = """\
_keras_gevb() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} words
  case ${{COMP_WORDS[1]}} in
{cases}
  esac
  [ "$COMP_CWORD" = 1 ] && words="{commands} --help --version"
  COMPREPLY=($(compgen -W "$words" -- "$word") $(compgen -f -- "$word"))
}}
complete -F _keras_gevb keras-gevb
"""


def arguments(parser):
    parser.add_argument("shell", choices=["bash", "zsh", "fish"])


def run(options):
    words = _words()
    if options.shell == "fish":
        new = "complete -c keras-gevb -n"
        lines = [f"{new} __fish_use_subcommand -a {command}" for command in words]
        for command, its in words.items():
            lines.append(f"{new} '__fish_seen_subcommand_from {command}' -a '{' '.join(its)}'")
        return {"text": "\n".join(lines)}
    cases = "\n".join(f'    {command}) words="{" ".join(its)}" ;;' for command, its in words.items())
    script = BASH.format(cases=cases, commands=" ".join(words))
    loading = "autoload -U +X bashcompinit && bashcompinit\n" if options.shell == "zsh" else ""
    return {"text": loading + script.rstrip()}


def _words():
    """The options and choices of each command."""
    from keras_gevb import cli

    (commands,) = (a for a in cli.parser()._actions if isinstance(a, argparse._SubParsersAction))
    return {
        name: [word for action in one._actions for word in (*action.option_strings, *(action.choices or ()))]
        for name, one in commands.choices.items()
    }
