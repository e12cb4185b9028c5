"""`--to ollama`: a GGUF file with a Modelfile beside it (`ollama create NAME -f Modelfile`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ftlib.errors import FtlibError
from ftlib.export.formats import Format
from ftlib.export.gate import Limits, Trained
from ftlib.export.gguf_model import DTYPES, GgufModel
from ftlib.export.llama_cpp_program import LlamaCpp
from ftlib.export.source import Source
from ftlib.export.turns import Chat, Turns, turns_of
from ftlib.files.atomic import write_text

MODELFILE = "Modelfile"


class Ollama(Format):
    """The file of --to gguf, the turns of the chat template in Go, and the tokens that stop."""

    dtypes = DTYPES
    gguf = GgufModel()

    def check(self, source: Source, dtype: str | None) -> None:
        self.gguf.check(source, dtype)
        turns(source)

    def write(self, source: Source, folder: Path, dtype: str | None) -> None:
        self.gguf.write(source, folder, dtype)
        (file,) = folder.glob("*.gguf")
        write_text(folder / MODELFILE, modelfile(source, file.name))

    def program(self, source: Source, folder: Path) -> LlamaCpp:
        """llama.cpp, which Ollama runs. Raises FtlibError for a Modelfile that has lost a part."""
        program = self.gguf.program(source, folder)
        check_modelfile(source, folder / MODELFILE, program.file.name)
        return program

    def limits(self, trained: Trained, dtype: str | None) -> Limits:
        return self.gguf.limits(trained, dtype)


FORMATS = {"ollama": Ollama()}


def turns(source: Source) -> Turns | None:
    """How its chat template writes turns; None where it was trained without one."""
    tokenizer, template = source.candidate.tokenizer, source.template
    if template is None:
        return None

    def write(chat: Chat, asks: bool) -> str:
        written: Any = tokenizer.apply_chat_template(
            list(chat), tokenize=False, add_generation_prompt=asks, chat_template=template
        )
        return str(written)

    one = tokenizer("a")["input_ids"]
    opens = tokenizer.bos_token_id is not None and one[:1] == [tokenizer.bos_token_id]
    return turns_of(write, tokenizer.bos_token if opens else "", source.owner)


def modelfile(source: Source, file: str) -> str:
    """The text of the Modelfile of a GGUF file beside it. Without a template, a prompt goes as it is."""
    found = turns(source)
    lines = [f"FROM ./{file}", f'TEMPLATE """{"{{ .Prompt }}" if found is None else found.go()}"""']
    if found is not None and found.system is None and found.joined is None:
        lines.insert(0, "# The chat template of its training takes no system message: one that is given is left out.")
    if found is not None and found.default:
        lines.append(f'SYSTEM """{found.default}"""')
    return "\n".join([*lines, *(f"PARAMETER stop {_quoted(stop)}" for stop in stops(source))]) + "\n"


def stops(source: Source) -> list[str]:
    """The texts of the tokens that end an answer."""
    tokenizer = source.candidate.tokenizer
    return [str(tokenizer.convert_ids_to_tokens(number)) for number in sorted(source.ends)]


def check_modelfile(source: Source, file: Path, gguf: str) -> None:
    """Raises FtlibError for a Modelfile that names another file, or lacks the template or a stop token of training."""
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    found = turns(source)
    wanted = {
        "the GGUF file": f"FROM ./{gguf}\n",
        "the chat template": f'TEMPLATE """{"{{ .Prompt }}" if found is None else found.go()}"""',
        "the system message": f'SYSTEM """{found.default}"""' if found is not None and found.default else "",
        **{f"the stop token {stop}": f"PARAMETER stop {_quoted(stop)}\n" for stop in stops(source)},
    }
    lost = [what for what, part in wanted.items() if part not in text]
    if lost:
        raise FtlibError(f"the export of {source.owner}: its Modelfile has lost {', '.join(lost)}.")


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
