"""The quickstart's winner as a GGUF file: llama.cpp must answer the quickstart's question as the endpoint does.

    python experiments/quickstart/in_llama_cpp.py [NAME] [DTYPE]

It goes after `make quickstart` and `ftlib setup llama-cpp`. NAME is `tickets` and DTYPE `f16` where they are not given.
llama.cpp gets the file alone: it writes the chat by the template in it, and stops where the file says. The exit status
is 1 where the answers differ.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from run import REAL, ROOT, ask, run, served

from ftlib.export.llama_cpp_program import python

CHAT = """
import json, sys
from llama_cpp import Llama
model = Llama(sys.argv[1], n_ctx=512, verbose=False)
chat = [{"role": "user", "content": sys.argv[2]}]
done = model.create_chat_completion(chat, temperature=0, repeat_penalty=1.0, max_tokens=48)
print(json.dumps(done["choices"][0]))
"""


def main(name: str = "tickets", dtype: str = "f16") -> None:
    """Prints both answers."""
    os.chdir(ROOT)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    story = replace(REAL, serve=f"ftlib serve {name}", right=None)
    with tempfile.TemporaryDirectory() as folder:
        run(f"ftlib export {name} --to gguf --dtype {dtype} -o {folder}/gguf")
        (file,) = (Path(folder) / "gguf").glob("*.gguf")
        said = subprocess.run([python(), "-I", "-c", CHAT, file, story.question], stdout=subprocess.PIPE, check=True)
    answer = json.loads(said.stdout.splitlines()[-1])
    theirs = answer["message"]["content"]
    with served(story.serve) as url:
        ours = ask(url, story)
    print(f"\n  {story.question}\n  llama.cpp    -> {theirs} ({answer['finish_reason']})\n  the endpoint -> {ours}\n")
    if theirs != ours:
        sys.exit("quickstart: llama.cpp and the endpoint answer differently")


if __name__ == "__main__":
    main(*sys.argv[1:])
